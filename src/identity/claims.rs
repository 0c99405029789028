//! The claims of an access token that we need, read without checking the signature: the token is for Redis to judge.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::source::Error;

#[derive(Deserialize)]
struct Claims {
    oid: Option<String>,
}

/// The object id (`oid` claim) of the identity a token was issued to: the user name Azure Managed Redis knows
/// (Azure page "Use Microsoft Entra for cache authentication").
///
/// # Errors
/// The token is not a JWT or has no such claim; never a user name of another kind.
pub(super) fn object_id(token: &str) -> Result<String, Error> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::NotAJwt);
    };
    let payload = URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .map_err(|_| Error::NotAJwt)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| Error::NotAJwt)?;
    claims
        .oid
        .filter(|oid| !oid.is_empty())
        .ok_or(Error::NoObjectId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("header.{}.signature", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_object_id_is_the_oid_claim_and_nothing_else() {
        let read = object_id(&token(r#"{"oid":"0-1-2","sub":"other"}"#));
        assert_eq!(read.expect("there is one"), "0-1-2");
        for without in [r#"{"sub":"other"}"#, r#"{"oid":""}"#, r#"{"oid":null}"#] {
            assert!(matches!(object_id(&token(without)), Err(Error::NoObjectId)));
        }
        for not in [
            "",
            "opaque",
            "a.b",
            "a.!!.c",
            "a.b.c.d",
            &token("[1]"),
            &token(r#"{"oid":7}"#),
        ] {
            assert!(matches!(object_id(not), Err(Error::NotAJwt)), "{not}");
        }
    }
}
