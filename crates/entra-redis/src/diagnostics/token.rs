//! The content of a token, read without checking its signature.

use std::{
    fmt, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    file,
    identity::{AccessToken, MAX_CLOCK_SKEW, claims},
};

/// The claims of a JWT that matter for a connection: of an access token, or of the assertion that is exchanged for one.
/// Nothing is verified; every claim may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// `oid`: the object id of the identity, which is its user name in Redis.
    pub object_id: Option<String>,
    /// `tid`: the tenant.
    pub tenant_id: Option<String>,
    /// `iss`: the issuer.
    pub issuer: Option<String>,
    /// `sub`: the subject.
    pub subject: Option<String>,
    /// `aud`: the audiences.
    pub audiences: Vec<String>,
    /// `exp`: the expiry.
    pub expires_at: Option<SystemTime>,
}

impl Claims {
    /// Reads the claims of an access token; `None` if it is not a JWT.
    pub fn of_token(token: &AccessToken) -> Option<Self> {
        Self::of_jwt(token.secret.expose())
    }

    /// Reads the claims of a JWT; `None` if the text is not one.
    pub fn of_jwt(text: &str) -> Option<Self> {
        let claims = claims::read(text.trim()).ok()?;
        let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Some(Self {
            audiences: claims.aud.all().to_vec(),
            expires_at: claims.exp.and_then(at),
            object_id: claims.oid,
            tenant_id: claims.tid,
            issuer: claims.iss,
            subject: claims.sub,
        })
    }

    /// Reads the claims of the JWT in a file of at most 4 MiB, such as a federated token file; `None` if the content is not a
    /// JWT.
    ///
    /// # Errors
    /// The file cannot be read, or is larger.
    pub fn of_file(path: &Path) -> io::Result<Option<Self>> {
        let bytes = file::read(path)?;
        Ok(Self::of_jwt(&String::from_utf8_lossy(&bytes)))
    }

    /// Returns the remaining lifetime by this machine's clock; `None` if it has expired or does not expire.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_at?.duration_since(SystemTime::now()).ok()
    }
}

/// A difference between this machine's clock and that of Entra ID. It displays as `about 7200 s ahead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockSkew {
    /// The size of the difference.
    pub by: Duration,
    /// True if this machine's clock is ahead.
    pub is_ahead: bool,
}

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.is_ahead { "ahead" } else { "behind" };
        write!(f, "about {} s {direction}", self.by.as_secs())
    }
}

/// Compares the times in a token that was issued a moment ago with this machine's clock. Returns `None` if the difference is
/// within the 5 minutes that Entra ID tolerates, or if the token is not a JWT.
pub fn clock_skew(token: &AccessToken) -> Option<ClockSkew> {
    let skew = claims::skew(token.secret.expose(), token.expires_at, SystemTime::now())?;
    (skew.by > MAX_CLOCK_SKEW).then_some(ClockSkew {
        by: skew.by,
        is_ahead: skew.ahead,
    })
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn claims_are_read_and_may_be_missing() {
        let jwt = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        let text = jwt(r#"{"oid":"o","tid":"t","iss":"i","sub":"s","aud":["a","b"],"exp":7}"#);
        let claims = Claims::of_jwt(&format!("{text}\n")).expect("a JWT");
        assert_eq!(claims.object_id.as_deref(), Some("o"));
        assert_eq!(claims.tenant_id.as_deref(), Some("t"));
        assert_eq!(claims.issuer.as_deref(), Some("i"));
        assert_eq!(claims.subject.as_deref(), Some("s"));
        assert_eq!(claims.audiences, ["a", "b"]);
        assert_eq!(claims.expires_at, Some(UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(claims.expires_in(), None);
        assert_eq!(Claims::of_jwt(&jwt("{}")), Some(Claims::default()));
        assert_eq!(Claims::of_jwt("opaque"), None);
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("token");
        assert!(Claims::of_file(&path).is_err());
        std::fs::write(&path, &text).expect("there is room");
        let from_file = Claims::of_file(&path).expect("it can be read");
        assert_eq!(from_file.as_ref(), Some(&claims));
        std::fs::write(&path, "opaque").expect("there is room");
        assert_eq!(Claims::of_file(&path).expect("it can be read"), None);
    }
}
