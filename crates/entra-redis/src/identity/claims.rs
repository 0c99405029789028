//! The claims of an access token that are needed here, read without checking the signature: Redis verifies the token.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer};

/// A token whose claims cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Not a JWT with a JSON object as its payload.
    #[error("the token is not a JWT")]
    NotAJwt,
    /// The claim is missing or empty.
    #[error("the token has no `oid` claim")]
    NoObjectId,
}

/// The claims of an access token, or of the assertion it is exchanged for; all optional, because nothing here judges them.
#[derive(Deserialize)]
pub(crate) struct Claims {
    /// `oid`.
    pub(crate) oid: Option<String>,
    /// `exp`.
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) exp: Option<u64>,
    /// `nbf`.
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) nbf: Option<u64>,
    /// `tid`.
    pub(crate) tid: Option<String>,
    /// `aud`.
    #[serde(default)]
    pub(crate) aud: Audience,
    /// `iss`.
    pub(crate) iss: Option<String>,
    /// `sub`.
    pub(crate) sub: Option<String>,
}

/// One audience or several (RFC 7519, section 4.1.3).
#[derive(Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    #[default]
    /// The claim is absent.
    None,
    /// One audience.
    One(String),
    /// A list of audiences.
    Several(Vec<String>),
}

impl Audience {
    /// Returns every audience.
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

/// Returns the claims of a token.
///
/// # Errors
/// The token is not a JWT with a JSON object as its payload.
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

/// Reads a NumericDate: RFC 7519 allows fractions of a second, and MSAL for Python sends them in assertions.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    // The conversion saturates.
    let seconds = Option::<f64>::deserialize(deserializer)?;
    Ok(seconds.map(|seconds| seconds as u64))
}

/// Returns the object id (`oid` claim) of the identity that a token was issued to: its user name in Azure Managed Redis
/// (Azure page "Use Microsoft Entra for cache authentication").
///
/// # Errors
/// The token is not a JWT or has no such claim; never a user name of another kind.
pub(super) fn object_id(token: &str) -> Result<String, Error> {
    let oid = read(token)?.oid;
    oid.filter(|oid| !oid.is_empty()).ok_or(Error::NoObjectId)
}

/// The difference between this machine's clock and Entra ID's, as far as a token just received shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skew {
    /// The difference.
    pub(crate) by: Duration,
    /// This machine's clock is ahead.
    pub(crate) ahead: bool,
}

impl Skew {
    /// Returns the skew in seconds, negative when this machine's clock is behind.
    pub(crate) fn seconds(&self) -> i64 {
        let seconds = i64::try_from(self.by.as_secs()).unwrap_or(i64::MAX);
        if self.ahead { seconds } else { -seconds }
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.ahead { "ahead" } else { "behind" };
        write!(f, "about {} s {direction}", self.by.as_secs())
    }
}

/// Returns the skew that a token just received shows. Compares the token's own times with `expires_at`, which was computed
/// from this machine's clock where the response contained a lifetime, and with `now`.
pub(crate) fn skew(token: &str, expires_at: SystemTime, now: SystemTime) -> Option<Skew> {
    let claims = read(token).ok()?;
    let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let (exp, nbf) = (claims.exp.and_then(at), claims.nbf.and_then(at));
    // Not valid yet: the clock is behind at least by that. Entra ID dates `nbf` five minutes back.
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
        assert_eq!(read.expect("it has one"), "0-1-2");
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
    fn skew_is_computed_from_the_tokens_own_times() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let issued = token(r#"{"nbf":9700,"exp":13600}"#); // at 10 000, for an hour
        // The response contained one hour, this clock shows 17 200: two hours ahead.
        let shown = skew(&issued, at(17_200 + 3600), at(17_200)).expect("it shows the skew");
        assert_eq!(shown.to_string(), "about 7200 s ahead");
        assert_eq!(shown.seconds(), 7200);
        let shown = skew(&issued, at(8_000 + 3600), at(8_000)).expect("it shows the skew");
        assert_eq!(shown.to_string(), "about 2000 s behind");
        assert_eq!(shown.seconds(), -2000);
        let shown = skew(&issued, at(13_600), at(10_000)).expect("it shows the skew");
        assert_eq!(shown.by, Duration::ZERO);
        assert_eq!(skew(&token("{}"), at(1), at(1)), None);
        assert_eq!(skew("opaque", at(1), at(1)), None);
        skew(&token(r#"{"exp":18446744073709551615}"#), at(1), at(1)); // no overflow
    }

    #[test]
    fn times_can_have_fractions() {
        for (seconds, expected) in [
            ("1.7e9", 1_700_000_000),
            ("1700000000.5", 1_700_000_000),
            ("1e300", u64::MAX),
            ("-1", 0),
        ] {
            let claims = read(&token(&format!(r#"{{"exp":{seconds},"nbf":{seconds}}}"#)));
            let claims = claims.expect(seconds);
            assert_eq!((claims.exp, claims.nbf), (Some(expected), Some(expected)));
        }
        let without = read(&token(r#"{"exp":null}"#)).expect("null means absent");
        assert_eq!((without.exp, without.nbf), (None, None));
        assert!(read(&token(r#"{"exp":"1700000000"}"#)).is_err());
    }

    mod properties {
        use proptest::{collection::vec, prelude::*};
        use serde_json::{Value, json};

        use super::*;

        /// Further claims: any JSON.
        fn other() -> impl Strategy<Value = Value> {
            let leaf = prop_oneof![
                Just(Value::Null),
                any::<bool>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                any::<f64>().prop_map(Value::from),
                "\\PC{0,20}".prop_map(Value::from),
            ];
            leaf.prop_recursive(4, 32, 4, |inner| {
                prop_oneof![
                    vec(inner.clone(), 0..4).prop_map(Value::from),
                    prop::collection::btree_map("[a-z]{0,8}", inner, 0..4)
                        .prop_map(|map| Value::Object(map.into_iter().collect())),
                ]
            })
        }

        /// Texts that are not tokens, from noise to almost one.
        fn junk() -> impl Strategy<Value = String> {
            let payload = prop_oneof![
                vec(any::<u8>(), 0..200),
                other().prop_map(|value| value.to_string().into_bytes()),
                (1..4000_usize).prop_map(|depth| "[".repeat(depth).into_bytes()),
                (1..4000_usize).prop_map(|depth| r#"{"oid":"#.repeat(depth).into_bytes()),
            ];
            prop_oneof![
                "\\PC{0,200}",
                "[A-Za-z0-9_=.-]{0,200}",
                payload.prop_map(|payload| format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload))),
            ]
        }

        proptest! {
            #[test]
            fn claims_of_a_token_are_read(
                oid in "\\PC{1,40}",
                exp in 0..u64::from(u32::MAX),
                fraction in 0.0..1.0_f64,
                more in other(),
            ) {
                let claims = json!({
                    "oid": oid, "exp": exp as f64 + fraction, "nbf": exp, "tid": oid, "aud": [oid, oid], "xms": more,
                });
                let text = token(&claims.to_string());
                let claims = read(&text).expect("it is a token");
                prop_assert_eq!((claims.exp, claims.nbf), (Some(exp), Some(exp)));
                prop_assert_eq!(claims.tid.as_ref(), Some(&oid));
                prop_assert_eq!(claims.aud.all(), [oid.clone(), oid.clone()]);
                prop_assert_eq!(object_id(&text).expect("it has one"), oid);
                // Some libraries add padding.
                let (head, tail) = text.rsplit_once('.').expect("it has parts");
                let padded = format!("{head}==.{tail}");
                prop_assert!(read(&padded).is_ok());
            }

            #[test]
            fn junk_is_rejected_and_not_quoted(text in junk(), at in any::<u64>()) {
                let now = UNIX_EPOCH + Duration::from_secs(at >> 2);
                let shown = skew(&text, now, now).map(|skew| skew.to_string());
                match object_id(&text) {
                    Ok(oid) => prop_assert!(!oid.is_empty()),
                    Err(error) => {
                        let shown = format!("{error} {error:?} {shown:?}");
                        for part in text.split('.').filter(|part| part.len() > 12) {
                            prop_assert!(!shown.contains(part), "{}", shown);
                        }
                    }
                }
            }
        }
    }
}
