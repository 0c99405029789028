//! The claims of an access token that we need, read without checking the signature: the token is for Redis to judge.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::source::Error;

/// Of an access token, and of the assertion that it is exchanged for; all optional, as nothing here judges them.
#[derive(Deserialize)]
pub(crate) struct Claims {
    pub(crate) oid: Option<String>,
    pub(crate) exp: Option<u64>,
    pub(crate) nbf: Option<u64>,
    // What only `doctor` shows.
    #[cfg(feature = "service")]
    pub(crate) tid: Option<String>,
    #[cfg(feature = "service")]
    #[serde(default)]
    pub(crate) aud: Audience,
    #[cfg(feature = "service")]
    pub(crate) iss: Option<String>,
    #[cfg(feature = "service")]
    pub(crate) sub: Option<String>,
}

/// One or several (RFC 7519, section 4.1.3).
#[cfg(feature = "service")]
#[derive(Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

#[cfg(feature = "service")]
impl Audience {
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

pub(crate) fn read(token: &str) -> Result<Claims, Error> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::NotAJwt);
    };
    let payload = URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .map_err(|_| Error::NotAJwt)?;
    serde_json::from_slice(&payload).map_err(|_| Error::NotAJwt)
}

/// The object id (`oid` claim) of the identity a token was issued to: the user name Azure Managed Redis knows
/// (Azure page "Use Microsoft Entra for cache authentication").
///
/// # Errors
/// The token is not a JWT or has no such claim; never a user name of another kind.
pub(super) fn object_id(token: &str) -> Result<String, Error> {
    let oid = read(token)?.oid;
    oid.filter(|oid| !oid.is_empty()).ok_or(Error::NoObjectId)
}

/// How far this machine's clock is from Entra ID's, as far as a token that just came can tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skew {
    pub(crate) by: Duration,
    ahead: bool,
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.ahead { "ahead" } else { "behind" };
        write!(f, "about {} s {direction}", self.by.as_secs())
    }
}

/// Compares the token's own times with `expires_at`, which counts from this machine's clock where the answer said how
/// long the token lives, and with `now`.
pub(crate) fn skew(token: &str, expires_at: SystemTime, now: SystemTime) -> Option<Skew> {
    let claims = read(token).ok()?;
    let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let (exp, nbf) = (claims.exp.and_then(at), claims.nbf.and_then(at));
    // Valid only later: the clock is behind at least by that. Entra ID dates `nbf` five minutes back.
    if let Some(early) = nbf.and_then(|nbf| nbf.duration_since(now).ok()) {
        let by = early.saturating_add(Duration::from_secs(5 * 60));
        return Some(Skew { by, ahead: false });
    }
    Some(match expires_at.duration_since(exp?) {
        Ok(by) => Skew { by, ahead: true },
        Err(error) => Skew {
            by: error.duration(),
            ahead: false,
        },
    })
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

    #[test]
    fn skew_is_what_the_tokens_own_times_say() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let issued = token(r#"{"nbf":9700,"exp":13600}"#); // at 10 000, for an hour
        // The answer said one hour, this clock says 17 200: an hour and more ahead.
        let shown = skew(&issued, at(17_200 + 3600), at(17_200)).expect("it can tell");
        assert_eq!(shown.to_string(), "about 7200 s ahead");
        let shown = skew(&issued, at(8_000 + 3600), at(8_000)).expect("it can tell");
        assert_eq!(shown.to_string(), "about 2000 s behind");
        let shown = skew(&issued, at(13_600), at(10_000)).expect("it can tell");
        assert_eq!(shown.by, Duration::ZERO);
        assert_eq!(skew(&token("{}"), at(1), at(1)), None);
        assert_eq!(skew("opaque", at(1), at(1)), None);
        skew(&token(r#"{"exp":18446744073709551615}"#), at(1), at(1)); // no overflow
    }
}
