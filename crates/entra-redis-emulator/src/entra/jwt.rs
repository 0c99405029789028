//! JSON Web Tokens, parsed.
//!
//! `token` parses the tokens that it issued, `assertion` those of requests.
//!
//! # Invariants
//!
//! - Nothing in a parsed text is proven before a key has verified [`Jwt::signed`] against [`Jwt::signature`]; until then it
//!   may only choose a key or an error message.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A parsed text; without `Debug`, because it is a credential.
pub(crate) struct Jwt<'a> {
    pub(crate) header: Header,
    pub(crate) claims: Claims,
    /// The bytes that are signed.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

/// The key and the algorithm that the header names.
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

/// The claims of a token or an assertion that are checked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    /// One name or, from Kubernetes, a list of one.
    pub(crate) aud: Value,
    /// Zero if there is none: MSAL for Python sends none.
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) nbf: u64,
    #[serde(deserialize_with = "seconds")]
    pub(crate) exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oid: Option<String>,
}

impl<'a> Jwt<'a> {
    /// Parses a text; `None` if it is not a signed JWT.
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
    /// Returns true if the text is valid at `now`.
    pub(crate) fn in_time(&self, now: u64) -> bool {
        self.nbf <= now && now < self.exp
    }

    /// Returns the audience; empty if there is not exactly one.
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

/// Deserializes a time. RFC 7519 allows fractions of a second, and MSAL for Python sends them.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    // The conversion saturates: a time that no clock reaches stays out of reach.
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
    fn times_may_have_fractions_and_nbf_is_optional() {
        let claims = parse(r#"{"iss":"a","sub":"a","aud":"b","exp":12.75}"#).expect("valid claims");
        assert_eq!((claims.nbf, claims.exp), (0, 12));
        assert!(claims.in_time(11) && !claims.in_time(12));
        let endless =
            parse(r#"{"iss":"a","sub":"a","aud":"b","exp":1e300}"#).expect("valid claims");
        assert_eq!(endless.exp, u64::MAX);
    }

    #[test]
    fn a_text_without_exp_or_with_other_parts_is_not_parsed() {
        assert!(parse(r#"{"iss":"a","sub":"a","aud":"b"}"#).is_none());
        assert!(parse("[]").is_none());
        assert!(Jwt::parse(b"e30.e30").is_none());
        assert!(Jwt::parse(b"e30.e30.e30.e30").is_none());
    }

    #[test]
    fn the_audience_is_one_name_or_a_list_of_one() {
        let audience = |aud: &str| {
            let claims = parse(&format!(r#"{{"iss":"a","sub":"a","aud":{aud},"exp":1}}"#));
            claims.expect("valid claims").audience().to_owned()
        };
        assert_eq!(audience(r#""b""#), "b");
        assert_eq!(audience(r#"["b"]"#), "b");
        assert_eq!(audience(r#"["b","c"]"#), "");
        assert_eq!(audience("1"), "");
    }
}
