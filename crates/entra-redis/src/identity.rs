//! The identity that authenticates to Redis: a token source, one task that refreshes its token, and a read side.
//!
//! [`Refresher`] requests tokens from a [`TokenSource`] (Azure's credentials: [`AzureCredential`]; or one of your own) and
//! publishes them through one `watch` channel; [`Tokens`] reads.
//!
//! # Invariants
//! - While there is a live token, at most one request for the next one is in flight.
//! - The refresher never gives up.
//! - A token stays published until it expires, whatever happens to its successor.
//!
//! Redis does not belong here: authenticating connections is the task of `pool`.

#[cfg(feature = "client-certificate")]
mod certificate;
pub(crate) mod claims;
mod credential;
mod explain;
mod refresh;
mod selection;
mod source;
mod token;

#[cfg(feature = "client-certificate")]
pub use self::certificate::CertificateError;
pub(crate) use self::credential::MAX_CLOCK_SKEW;
pub use self::{
    credential::{AzureCredential, ManagedIdentity},
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

    /// From a nearby metadata service to the timeout of an attempt.
    pub const BUCKETS: &[(&str, &[f64])] = &[(
        REFRESH_DURATION,
        &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
    )];

    /// Registers the help texts. Called once, after a recorder is installed.
    pub fn describe() {
        describe_gauge!(
            EXPIRY,
            Unit::Seconds,
            "Expiry of the current token, in seconds since the epoch; absent before the first token"
        );
        describe_counter!(
            REFRESHES,
            Unit::Count,
            "Requests for a token by credential and outcome: success, unchanged (the same token again) or failure"
        );
        describe_histogram!(
            REFRESH_DURATION,
            Unit::Seconds,
            "Duration of requests for a token"
        );
    }
}
