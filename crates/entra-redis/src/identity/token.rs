//! The token in force and the read side of the channel it travels in.

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

/// A token in force: published once, read by whoever signs in, copied by nobody.
#[derive(Debug)]
pub struct Token {
    /// User name for `AUTH`.
    pub username: String,
    /// The token itself.
    pub secret: Secret,
    /// When it ends, by this machine's clock; for people and metrics.
    pub expires_at: SystemTime,
    /// When it ends, on the monotonic clock; for decisions.
    pub ends: Instant,
    /// Grows by one with each different token.
    pub version: u64,
}

impl Token {
    /// How long it will still live.
    pub fn remaining(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Whether it still lives.
    pub fn is_live(&self) -> bool {
        !self.remaining().is_zero()
    }
}

/// What may be known of the credential from outside: everything but the token.
#[derive(Debug, Clone)]
pub struct Status {
    /// The credential's name.
    pub credential: &'static str,
    /// Object id and end of the token held, live or not; `None` before the first.
    pub held: Option<Held>,
    /// Kind of the failure of the latest attempt; `None` when it succeeded or none was made.
    pub failure: Option<FailureKind>,
}

/// What may be known of a token.
#[derive(Debug, Clone)]
pub struct Held {
    /// User name it signs in with.
    pub username: String,
    /// When it ends, by this machine's clock.
    pub expires_at: SystemTime,
    /// When it ends, on the monotonic clock.
    pub ends: Instant,
}

impl Status {
    /// Whether a token is held that still lives.
    pub fn is_live(&self) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.ends > Instant::now())
    }
}

/// The read side: the newest token, news of the next one, and the status of the credential.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub(super) token: watch::Receiver<Option<Arc<Token>>>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) doubt: Arc<Notify>,
}

impl Tokens {
    /// The newest token if it still lives, and marks it as seen for [`Tokens::changed`].
    pub fn newest(&mut self) -> Option<Arc<Token>> {
        self.token
            .borrow_and_update()
            .as_ref()
            .filter(|token| token.is_live())
            .cloned()
    }

    /// Waits for a token that [`Tokens::newest`] has not returned yet; for ever once the refresher is gone.
    ///
    /// Dropping the future leaves everything as it was.
    pub async fn changed(&mut self) {
        if self.token.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Says that Redis refused the newest token, so that a new one is asked for soon: Redis' verdict counts, not our
    /// clock, which stands still while a machine is suspended.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// The credential as it may be shown.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }
}
