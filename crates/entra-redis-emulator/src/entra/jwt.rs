//! JWTs: what does a signed text say?
//!
//! `token` takes its own tokens apart here, `entra` the assertions it is sent. What always holds: nothing read here is
//! proven before a key has verified [`Jwt::signed`] against [`Jwt::signature`]; till then it chooses a key or an error
//! message and lets nobody in. Keys are not this file's business.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A signed text taken apart; deliberately without `Debug`.
pub(crate) struct Jwt<'a> {
    pub(crate) header: Header,
    pub(crate) claims: Claims,
    /// What the signature is over.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

/// Which key is said to have signed, and how.
#[derive(Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) kid: Option<String>,
    /// The SHA-1 of the signer's certificate.
    pub(crate) x5t: Option<String>,
    /// The SHA-256 of the signer's certificate.
    #[serde(rename = "x5t#S256")]
    pub(crate) x5t_s256: Option<String>,
}

/// What a verifier reads of a token or an assertion.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    /// One name or, as Kubernetes has it, a list of one.
    pub(crate) aud: Value,
    /// Zero where there is none: MSAL for Python sends none.
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) nbf: u64,
    #[serde(deserialize_with = "seconds")]
    pub(crate) exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oid: Option<String>,
}

impl<'a> Jwt<'a> {
    /// Takes a text apart; nothing where it is not a signed JWT.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let mut parts = text.split(|&byte| byte == b'.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            header: read(header)?,
            claims: read(claims)?,
            signed: &text[..text.len() - signature.len() - 1],
            signature: BASE64URL.decode(signature).ok()?,
        })
    }
}

impl Claims {
    /// Whether `now` is inside the validity.
    pub(crate) fn in_time(&self, now: u64) -> bool {
        self.nbf <= now && now < self.exp
    }

    /// The audience; empty where there is none or more than one.
    pub(crate) fn audience(&self) -> &str {
        match &self.aud {
            Value::Array(names) if names.len() == 1 => names[0].as_str(),
            other => other.as_str(),
        }
        .unwrap_or_default()
    }
}

fn read<T: DeserializeOwned>(part: &[u8]) -> Option<T> {
    serde_json::from_slice(&BASE64URL.decode(part).ok()?).ok()
}

/// RFC 7519 allows fractions of a second, and MSAL for Python sends them.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    // The conversion saturates: what no clock reaches stays out of reach.
    f64::deserialize(deserializer).map(|seconds| seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(claims: &str) -> Option<Claims> {
        let parts = [r#"{"alg":"RS256"}"#, claims, "signature"].map(|part| BASE64URL.encode(part));
        Jwt::parse(parts.join(".").as_bytes()).map(|jwt| jwt.claims)
    }

    #[test]
    fn times_may_have_fractions_and_a_beginning_is_not_needed() {
        let claims = parse(r#"{"iss":"a","sub":"a","aud":"b","exp":12.75}"#).expect("it is one");
        assert_eq!((claims.nbf, claims.exp), (0, 12));
        assert!(claims.in_time(11) && !claims.in_time(12));
        let endless = parse(r#"{"iss":"a","sub":"a","aud":"b","exp":1e300}"#).expect("it is one");
        assert_eq!(endless.exp, u64::MAX);
    }

    #[test]
    fn an_assertion_without_an_end_or_of_other_parts_is_none() {
        assert!(parse(r#"{"iss":"a","sub":"a","aud":"b"}"#).is_none());
        assert!(parse("[]").is_none());
        assert!(Jwt::parse(b"e30.e30").is_none());
        assert!(Jwt::parse(b"e30.e30.e30.e30").is_none());
    }

    #[test]
    fn the_audience_is_one_name_or_a_list_of_one() {
        let audience = |aud: &str| {
            let claims = parse(&format!(r#"{{"iss":"a","sub":"a","aud":{aud},"exp":1}}"#));
            claims.expect("it is one").audience().to_owned()
        };
        assert_eq!(audience(r#""b""#), "b");
        assert_eq!(audience(r#"["b"]"#), "b");
        assert_eq!(audience(r#"["b","c"]"#), "");
        assert_eq!(audience("1"), "");
    }
}
