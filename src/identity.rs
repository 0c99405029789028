//! Who are we right now? A token source, one task that refreshes, and a read side for those who sign in.
//!
//! [`Refresher`] asks a [`TokenSource`] (Azure's credentials: [`AzureCredential`]; or a caller's own) and publishes
//! through one `watch` channel; [`Tokens`] reads. What always holds: at most one request for a token is in flight, the
//! refresher never gives up, and the token held stays published while it lives, whatever happens to its successor.
//!
//! What does not belong here: Redis. Who signs in where is the `redis` module's question.

#[cfg(feature = "client-certificate")]
mod certificate;
mod chain;
pub(crate) mod claims;
mod credential;
mod explain;
mod refresh;
mod source;
mod token;

#[cfg(feature = "client-certificate")]
pub use self::certificate::CertificateError;
pub(crate) use self::credential::SKEW_TOLERATED;
pub use self::{
    credential::{AzureCredential, ManagedIdentity},
    refresh::Refresher,
    source::{AccessToken, Error, FailureKind, Sanitised, TokenSource, Tried},
    token::{Status, Token, Tokens},
};

/// The instruments of this module; names are an interface.
pub(crate) mod instruments {
    #[cfg(feature = "service")]
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    pub(crate) const EXPIRY: &str = "entra_token_expiry_timestamp_seconds";
    pub(crate) const REFRESHES: &str = "entra_token_refresh_total";
    pub(crate) const REFRESH_DURATION: &str = "entra_token_refresh_duration_seconds";

    /// From a nearby metadata service to an attempt's limit.
    #[cfg(feature = "service")]
    pub(crate) const BUCKETS: &[(&str, &[f64])] = &[(
        REFRESH_DURATION,
        &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
    )];

    /// Gives the recorder the help texts. Called once, after a recorder is installed.
    #[cfg(feature = "service")]
    pub(crate) fn describe() {
        describe_gauge!(
            EXPIRY,
            Unit::Seconds,
            "When the token held ends, in seconds since the epoch; absent until there was one"
        );
        describe_counter!(
            REFRESHES,
            Unit::Count,
            "Requests for a token by credential and outcome: success, unchanged (the same token again) or failure"
        );
        describe_histogram!(
            REFRESH_DURATION,
            Unit::Seconds,
            "How long requests for a token took"
        );
    }
}
