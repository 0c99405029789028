//! The interface of a token source: the trait, the token it returns, and its errors.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::claims;
use crate::{env::CredentialName, error_chain::ErrorChain, secret::Secret};

/// A source of access tokens for Redis.
///
/// The refresher calls `fetch` repeatedly, each call with a timeout: `fetch` must send a new request each time and must
/// not retry by itself. Dropping the future abandons the request.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// Returns the credential's name as Azure writes it, or your own: a fixed word, because it becomes a metric's label.
    fn name(&self) -> &'static str;

    /// Returns the timeout of one call of [`TokenSource::fetch`]; it is shorter when the current token expires soon.
    fn attempt_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// Returns a token. The same token again is a result, not an error.
    ///
    /// # Errors
    /// The request failed. The error is counted by its kind and logged, and the call is repeated later.
    async fn fetch(&self) -> Result<AccessToken, Error>;
}

/// A token as returned by its source.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// User name for Redis' `AUTH`; with Entra ID the object id of the identity.
    pub username: String,
    /// The token itself.
    pub secret: Secret,
    /// Expiry by this machine's clock.
    pub expires_at: SystemTime,
}

impl AccessToken {
    /// Returns a token of Entra ID's, with its `oid` claim as the user name.
    ///
    /// # Errors
    /// The token is not a JWT, or has no such claim.
    pub fn from_jwt(secret: Secret, expires_at: SystemTime) -> Result<Self, Error> {
        Ok(Self {
            username: claims::object_id(secret.expose())?,
            secret,
            expires_at,
        })
    }
}

/// A failure to get a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source did not answer within the timeout of one attempt.
    #[error("no response within {}", Seconds(*.0))]
    TimedOut(Duration),
    /// No credential of the chain can be used on this machine.
    #[error("no credential is available: {0}")]
    Unavailable(Skipped),
    /// The source answered and refused.
    #[error("{credential} was refused with status {status}{}", Fix(*.fix))]
    Refused {
        /// The credential's name.
        credential: &'static str,
        /// HTTP status of the answer.
        status: u16,
        /// The cause and how to fix it, where known.
        fix: Option<&'static str>,
        /// The delay that the answer asked for.
        retry_after: Option<Duration>,
        /// The answer's own text, without anything that looks like a token.
        #[source]
        source: Sanitised,
    },
    /// A resource id selects the managed identity on a platform where azure_identity supports none.
    #[error(
        "cannot select a managed identity by its resource id on Container Apps and App Service: use its client id (`az identity show --query clientId`)"
    )]
    ResourceId,
    /// The client certificate cannot be used.
    #[cfg(feature = "client-certificate")]
    #[error("cannot use the client certificate in {}", path.display())]
    Certificate {
        /// `AZURE_CLIENT_CERTIFICATE_PATH`.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: super::certificate::CertificateError,
    },
    /// The source could not be reached, or returned something unusable.
    #[error("{credential} could not get a token")]
    Failed {
        /// The credential's name.
        credential: &'static str,
        /// Its own text, without anything that looks like a token.
        #[source]
        source: Sanitised,
    },
    /// Your own source failed; see [`Error::other`].
    #[error("the token source failed")]
    Other(#[source] Sanitised),
    /// The token is not a JWT, so the user name cannot be read from it.
    #[error("the token is not a JWT: set REDIS_USERNAME to the object id it was issued to")]
    NotAJwt,
    /// The token has no object id.
    #[error("the token has no `oid` claim: set REDIS_USERNAME to the object id it was issued to")]
    NoObjectId,
    /// The token had already expired.
    #[error("received a token that expired {} ago: check this machine's clock", Seconds(*.0))]
    Expired(Duration),
    /// TLS for the token endpoint could not be set up.
    #[error("cannot set up TLS for the token endpoint")]
    Tls(#[from] crate::tls::Error),
    /// The HTTP client for the token endpoint could not be set up.
    #[error("cannot set up the HTTP client for the token endpoint")]
    HttpClient(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The kinds of failure: a closed set, for metrics and display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// No answer within the timeout.
    TimedOut,
    /// No credential of the chain can be used.
    Unavailable,
    /// The source answered and refused.
    Refused,
    /// The source could not be reached, or its answer is unusable.
    Failed,
    /// The source returned a token that cannot be used.
    Unusable,
}

impl FailureKind {
    /// Returns a word of a closed set, for labels.
    pub fn as_label(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unusable => "unusable",
        }
    }

    /// Returns a short phrase for display.
    pub fn description(self) -> &'static str {
        match self {
            Self::TimedOut => "the credential did not respond in time",
            Self::Unavailable => "no credential is available",
            Self::Refused => "the credential was refused",
            Self::Failed => "the credential could not be reached",
            Self::Unusable => "the token received cannot be used",
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
    /// Returns the delay before the next request that the answer asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns an error for a source of your own: takes the error's text, without anything that looks like a token.
    pub fn other(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Other(Sanitised::new(error))
    }

    /// Returns the kind of this failure.
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

/// The credentials of the chain that were not used, each with the reason.
#[derive(Debug, Clone, Default)]
pub struct Skipped(Vec<(CredentialName, String)>);

impl Skipped {
    pub(super) fn push(&mut self, name: CredentialName, reason: String) {
        self.0.push((name, reason));
    }

    /// Sorts them in the order of the chain.
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

/// A fix in parentheses.
struct Fix(Option<&'static str>);

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(fix) => write!(f, " ({fix})"),
            None => Ok(()),
        }
    }
}

/// The text of a foreign error on one line, with everything that could be a token removed.
///
/// The SDK puts response bodies into its error texts; their content is unknown here, so tokens are recognised by shape.
#[derive(Debug, Clone)]
pub struct Sanitised(String);

impl Sanitised {
    /// Takes the text of an error with its sources.
    pub fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(remove_tokens(&ErrorChain(error).to_string()))
    }
}

impl fmt::Display for Sanitised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Sanitised {}

/// Removes every word that begins like a JWT (`eyJ` is base64 of `{"`), and joins the lines.
fn remove_tokens(text: &str) -> String {
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

/// A duration for display.
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
    fn tokens_are_removed_from_foreign_texts() {
        let text = "bad answer {\"access_token\":\"eyJhbGci.eyJvaWQi.c2ln-_x\",\n\"x\":1} eyJ0";
        let clean = remove_tokens(text);
        assert_eq!(
            clean,
            "bad answer {\"access_token\":\"(hidden)\", \"x\":1} (hidden)"
        );
        assert_eq!(
            remove_tokens("AADSTS700016: no\r\napp"),
            "AADSTS700016: no app"
        );
    }
}
