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
#[doc(hidden)] // for `doctor`
pub mod claims;
mod credential;
mod explain;
mod refresh;
mod source;
mod token;

#[cfg(feature = "client-certificate")]
pub use self::certificate::CertificateError;
pub use self::{
    credential::{AzureCredential, MAX_CLOCK_SKEW, ManagedIdentity},
    refresh::Refresher,
    source::{AccessToken, Error, FailureKind, Sanitised, Skipped, TokenSource},
    token::{Token, TokenInfo, TokenStatus, Tokens},
};

/// The instruments of this module; names are an interface.
pub mod instruments {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    /// The token's expiry.
    pub const EXPIRY: &str = "entra_token_expiry_timestamp_seconds";
    /// Requests for a token.
    pub const REFRESHES: &str = "entra_token_refresh_total";
    /// Duration of those requests.
    pub const REFRESH_DURATION: &str = "entra_token_refresh_duration_seconds";

    /// From a nearby metadata service to an attempt's limit.
    pub const BUCKETS: &[(&str, &[f64])] = &[(
        REFRESH_DURATION,
        &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
    )];

    /// Gives the recorder the help texts. Called once, after a recorder is installed.
    pub fn describe() {
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
