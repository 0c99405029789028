//! What a source of tokens is, what it hands over, and how it fails.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::claims;
use crate::{config::CredentialName, report::ErrorChain, secret::Secret};

/// Anything that can get an access token for Redis.
///
/// The refresher calls it again and again, one call at a time, each under a deadline: `fetch` must ask anew each time
/// and must not retry by itself. Dropping the future abandons the request.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// The credential's name as Azure writes it, or your own: a fixed word, since it becomes a metric's label.
    fn name(&self) -> &'static str;

    /// How long one call of [`TokenSource::fetch`] may take at the longest; it is given less where less is left.
    fn attempt_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// Gets a token. "The same token again" is an answer, not an error.
    ///
    /// # Errors
    /// Whatever stood in the way; it is counted by its kind, logged, and the call is repeated later.
    async fn fetch(&self) -> Result<AccessToken, Error>;
}

/// A token as it came from its source.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// User name for Redis' `AUTH`; with Entra ID the object id of the identity.
    pub username: String,
    /// The token itself.
    pub secret: Secret,
    /// When it ends, by this machine's clock.
    pub expires_at: SystemTime,
}

impl AccessToken {
    /// A token from Entra ID, whose `oid` claim is the user name.
    ///
    /// # Errors
    /// The text is not a JWT, or has no such claim.
    pub fn from_jwt(secret: Secret, expires_at: SystemTime) -> Result<Self, Error> {
        Ok(Self {
            username: claims::object_id(secret.expose())?,
            secret,
            expires_at,
        })
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source did not answer within the deadline of one attempt.
    #[error("no answer within {}", Seconds(*.0))]
    TimedOut(Duration),
    /// Nothing that could be asked is configured on this machine.
    #[error("no credential is available: {0}")]
    Unavailable(Skipped),
    /// The source answered and refused.
    #[error("{credential} was refused with status {status}{}", Fix(*.fix))]
    Refused {
        /// The credential's name.
        credential: &'static str,
        /// HTTP status of the answer.
        status: u16,
        /// What it means and what to do, where that is known.
        fix: Option<&'static str>,
        /// How long the answer asked to wait.
        retry_after: Option<Duration>,
        /// The answer's own words, without anything that looks like a token.
        #[source]
        source: Sanitised,
    },
    /// A resource id names the managed identity on a platform whose protocol azure_identity cannot say it in.
    #[error(
        "on Container Apps and App Service a managed identity cannot be named by its resource id: use its client id (`az identity show --query clientId`)"
    )]
    ResourceId,
    /// The client certificate cannot be used.
    #[cfg(feature = "client-certificate")]
    #[error("the client certificate in {} cannot be used", path.display())]
    Certificate {
        /// `AZURE_CLIENT_CERTIFICATE_PATH`.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: super::certificate::CertificateError,
    },
    /// The source could not be asked, or answered something unusable.
    #[error("{credential} got no token")]
    Failed {
        /// The credential's name.
        credential: &'static str,
        /// Its own words, without anything that looks like a token.
        #[source]
        source: Sanitised,
    },
    /// A caller's own source failed; see [`Error::other`].
    #[error("the token source failed")]
    Other(#[source] Sanitised),
    /// The token is not a JWT, so that the user name cannot be read from it.
    #[error("the token is not a JWT: set REDIS_USERNAME to the object id it was issued to")]
    NotAJwt,
    /// The token names no object id.
    #[error("the token has no `oid` claim: set REDIS_USERNAME to the object id it was issued to")]
    NoObjectId,
    /// The token had ended when it came.
    #[error("the token had ended {} before it came: compare this machine's clock", Seconds(*.0))]
    Expired(Duration),
    /// TLS for the token endpoint could not be set up.
    #[error("cannot set up TLS for the token endpoint")]
    Tls(#[from] crate::tls::Error),
    /// The HTTP client for the token endpoint could not be made.
    #[error("cannot set up the HTTP client for the token endpoint")]
    HttpClient(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The kinds of failure, as a closed set for those who count or show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// No answer in time.
    TimedOut,
    /// No credential is configured.
    Unavailable,
    /// Answered and refused.
    Refused,
    /// Not reachable, or an unusable answer.
    Failed,
    /// A token came that cannot be used.
    Unusable,
}

impl FailureKind {
    /// A word of a closed set, for programs.
    pub fn as_label(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unusable => "unusable",
        }
    }

    /// A short phrase for a person.
    pub fn description(self) -> &'static str {
        match self {
            Self::TimedOut => "the credential did not answer in time",
            Self::Unavailable => "no credential is available",
            Self::Refused => "the credential was refused",
            Self::Failed => "the credential could not be asked",
            Self::Unusable => "the token that came cannot be used",
        }
    }
}

impl From<claims::Error> for Error {
    fn from(error: claims::Error) -> Self {
        match error {
            claims::Error::NotAJwt => Self::NotAJwt,
            claims::Error::NoObjectId => Self::NoObjectId,
        }
    }
}

impl Error {
    /// How long the other side asked to wait before the next request.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// For a source of your own: takes the error's text, without anything that looks like a token.
    pub fn other(error: &dyn std::error::Error) -> Self {
        Self::Other(Sanitised::new(error))
    }

    /// The kind of this failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::TimedOut(_) => FailureKind::TimedOut,
            Self::Unavailable(_) => FailureKind::Unavailable,
            Self::Refused { .. } => FailureKind::Refused,
            Self::Failed { .. }
            | Self::Other(_)
            | Self::ResourceId
            | Self::Tls(_)
            | Self::HttpClient(_) => FailureKind::Failed,
            #[cfg(feature = "client-certificate")]
            Self::Certificate { .. } => FailureKind::Failed,
            Self::NotAJwt | Self::NoObjectId | Self::Expired(_) => FailureKind::Unusable,
        }
    }
}

/// What each credential of the chain said, or why it was not asked.
#[derive(Debug, Clone, Default)]
pub struct Skipped(Vec<(CredentialName, String)>);

impl Skipped {
    pub(super) fn push(&mut self, name: CredentialName, reason: String) {
        self.0.push((name, reason));
    }

    /// In the order of the chain.
    pub(super) fn in_order(mut self) -> Self {
        let place = |name| CredentialName::ALL.iter().position(|known| *known == name);
        self.0.sort_by_key(|(name, _)| place(*name));
        self
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, reason)) in self.0.iter().enumerate() {
            let separator = if number > 0 { "; " } else { "" };
            write!(f, "{separator}{}: {reason}", name.as_str())?;
        }
        Ok(())
    }
}

/// What to do, in brackets.
struct Fix(Option<&'static str>);

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(fix) => write!(f, " ({fix})"),
            None => Ok(()),
        }
    }
}

/// Somebody else's error text on one line, with everything that could be a token cut out.
///
/// The SDK puts answers' bodies into its error texts; what a body holds is not ours to promise, so it is cut by shape.
#[derive(Debug, Clone)]
pub struct Sanitised(String);

impl Sanitised {
    /// Takes an error with its sources.
    pub fn new(error: &dyn std::error::Error) -> Self {
        Self(cut_tokens(&ErrorChain(error).to_string()))
    }
}

impl fmt::Display for Sanitised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Sanitised {}

/// Cuts every word that begins as a JWT does (`eyJ` is base64 of `{"`), and joins the lines.
fn cut_tokens(text: &str) -> String {
    let is_token_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("eyJ") {
        clean.push_str(&rest[..start]);
        clean.push_str("(hidden)");
        let word = &rest[start..];
        let end = word.find(|c| !is_token_part(c)).unwrap_or(word.len());
        rest = &word[end..];
    }
    clean.push_str(rest);
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A duration as a person writes it.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_from_other_peoples_texts() {
        let text = "bad answer {\"access_token\":\"eyJhbGci.eyJvaWQi.c2ln-_x\",\n\"x\":1} eyJ0";
        let clean = cut_tokens(text);
        assert_eq!(
            clean,
            "bad answer {\"access_token\":\"(hidden)\", \"x\":1} (hidden)"
        );
        assert_eq!(
            cut_tokens("AADSTS700016: no\r\napp"),
            "AADSTS700016: no app"
        );
    }
}
