//! The current token and the read side of the channel that publishes it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::source::FailureKind;
use crate::secret::Secret;

/// A published token; readers share it and make no copies.
#[derive(Debug)]
pub struct Token {
    /// User name for `AUTH`.
    pub username: String,
    /// The token itself.
    pub secret: Secret,
    /// Expiry by this machine's clock; for display and metrics.
    pub expires_at: SystemTime,
    /// Expiry on the monotonic clock; for decisions.
    pub(crate) valid_until: Instant,
    /// Grows by one with each different token.
    pub version: u64,
}

impl Token {
    /// Returns the time left until it expires, on the monotonic clock; zero once it has expired.
    pub fn remaining(&self) -> Duration {
        remaining(self.valid_until)
    }

    /// Returns whether it has not expired yet.
    pub fn is_live(&self) -> bool {
        !self.remaining().is_zero()
    }
}

/// The state of the credential without its secrets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenStatus {
    /// The credential's name.
    pub credential: &'static str,
    /// The newest token, expired or not; `None` before the first.
    pub token: Option<TokenInfo>,
    /// Kind of the failure of the latest attempt; `None` when it succeeded or none was made.
    pub failure: Option<FailureKind>,
}

/// A token without its secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenInfo {
    /// User name that it authenticates.
    pub username: String,
    /// Expiry by this machine's clock.
    pub expires_at: SystemTime,
    /// Expiry on the monotonic clock.
    pub(crate) valid_until: Instant,
}

impl TokenInfo {
    /// Returns the time left until it expires, on the monotonic clock; zero once it has expired.
    pub fn remaining(&self) -> Duration {
        remaining(self.valid_until)
    }
}

impl TokenStatus {
    /// Returns whether there is a token that has not expired yet.
    pub fn is_live(&self) -> bool {
        let token = self.token.as_ref();
        token.is_some_and(|token| !token.remaining().is_zero())
    }
}

fn remaining(valid_until: Instant) -> Duration {
    valid_until.saturating_duration_since(Instant::now())
}

/// The read side of a refresher: the newest token, notice of the next one, and the status of the credential.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub(super) token: watch::Receiver<Option<Arc<Token>>>,
    pub(super) status: watch::Receiver<TokenStatus>,
    pub(super) rejected: Arc<Notify>,
}

impl Tokens {
    /// Returns the newest token unless it has expired, and marks it as seen for [`Tokens::changed`].
    pub fn newest(&mut self) -> Option<Arc<Token>> {
        self.token
            .borrow_and_update()
            .as_ref()
            .filter(|token| token.is_live())
            .cloned()
    }

    /// Waits for a token that [`Tokens::newest`] has not returned yet; forever once the refresher is gone.
    ///
    /// Cancel-safe: dropping the future changes nothing.
    pub async fn changed(&mut self) {
        if self.token.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Reports that Redis rejected the newest token, so that a new one is requested soon. Redis' verdict counts, not our
    /// clock, which stands still while a machine is suspended.
    pub fn report_rejected(&self) {
        self.rejected.notify_one();
    }

    /// Returns the state of the credential.
    pub fn status(&self) -> TokenStatus {
        self.status.borrow().clone()
    }
}
