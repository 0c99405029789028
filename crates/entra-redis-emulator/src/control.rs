//! Faults and counters, used by a test or a script while the emulator runs.
//!
//! `entra` and `redis_proxy` read the faults at each request and connection; what a fault looks like on the wire is written
//! there.
//!
//! # Invariants
//!
//! - All clones of [`Controls`] share one state.
//! - A change applies from the next request on, and nothing here waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

/// A fault of the three token endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntraFault {
    /// No fault: tokens are issued.
    #[default]
    None,
    /// Every response has this status and an error in the format of Entra ID.
    Status(u16),
    /// The same with a `Retry-After` header, as throttled callers receive it (429, 503).
    RetryAfter(u16, Duration),
    /// No request gets a response.
    Hang,
    /// Every response is delayed by this time.
    Slow(Duration),
    /// An identity gets its last token again until that token expires, as from a managed identity's cache.
    SameToken,
    /// Every response has status 200 and a page of HTML, as that of a proxy in between.
    Garbage,
    /// Every connection breaks in the middle of the response's body.
    CutOff,
}

/// A fault of Azure's proxy before Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisFault {
    /// No fault: every valid token is accepted.
    #[default]
    None,
    /// Every authentication is rejected with `WRONGPASS`. An earlier one stays in force.
    RefuseAuth,
    /// A token is rejected until it is this old, as long as Azure has not yet distributed it. Whole seconds, and up to one
    /// more, because tokens are dated in whole seconds. An earlier authentication stays in force.
    LateTokens(Duration),
    /// Authentication gets no reply. Replies keep their order, so later commands of the connection get none either;
    /// connections that do not authenticate are not affected.
    HangAuth,
    /// The same for re-authentication: the first one of each connection succeeds, and the next gets no reply.
    HangReauth,
    /// Connections are accepted and closed at once, before TLS. Open ones are not affected.
    Refuse,
}

/// Counters since the emulator was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Access tokens issued; one that [`EntraFault::SameToken`] returns again counts once.
    pub tokens_issued: u64,
    /// Connections to Redis that completed their TLS handshake.
    pub connections_opened: u64,
    /// `AUTH` and `HELLO … AUTH` accepted.
    pub auth_accepted: u64,
    /// Accepted ones with the token that their connection was authenticated with already.
    pub auth_repeated: u64,
    /// `AUTH` and `HELLO … AUTH` rejected for their token or by [`RedisFault::RefuseAuth`].
    pub auth_refused: u64,
    /// Connections closed because their token expired.
    pub connections_expired: u64,
}

/// A handle to an emulator's faults and counters. Clones share one state.
#[derive(Clone, Debug)]
pub struct Controls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    entra: watch::Sender<EntraFault>,
    redis: watch::Sender<RedisFault>,
    token_lifetime: watch::Sender<Duration>,
    disconnect: watch::Sender<()>,
    counters: Counters,
}

/// The counters behind [`Counts`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) tokens_issued: Counter,
    pub(crate) connections_opened: Counter,
    pub(crate) auth_accepted: Counter,
    pub(crate) auth_repeated: Counter,
    pub(crate) auth_refused: Counter,
    pub(crate) connections_expired: Counter,
}

/// A counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Controls {
    pub(crate) fn new(token_lifetime: Duration) -> Self {
        let shared = Shared {
            entra: watch::Sender::default(),
            redis: watch::Sender::default(),
            token_lifetime: watch::Sender::new(token_lifetime),
            disconnect: watch::Sender::default(),
            counters: Counters::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Sets the fault of the token endpoints, from the next request on.
    pub fn set_entra(&self, fault: EntraFault) {
        self.shared.entra.send_replace(fault);
    }

    /// Sets the fault of the proxy before Redis, from the next authentication or connection on.
    pub fn set_redis(&self, fault: RedisFault) {
        self.shared.redis.send_replace(fault);
    }

    /// Closes every connection to Redis at once. New ones are accepted.
    pub fn disconnect_all(&self) {
        self.shared.disconnect.send_replace(());
    }

    /// Sets the lifetime of the tokens issued from now on: whole seconds, at least one.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.token_lifetime.send_replace(lifetime);
    }

    /// Returns the counters.
    pub fn counts(&self) -> Counts {
        let counters = self.counters();
        Counts {
            tokens_issued: counters.tokens_issued.read(),
            connections_opened: counters.connections_opened.read(),
            auth_accepted: counters.auth_accepted.read(),
            auth_repeated: counters.auth_repeated.read(),
            auth_refused: counters.auth_refused.read(),
            connections_expired: counters.connections_expired.read(),
        }
    }

    pub(crate) fn entra(&self) -> EntraFault {
        *self.shared.entra.borrow()
    }

    pub(crate) fn redis(&self) -> RedisFault {
        *self.shared.redis.borrow()
    }

    pub(crate) fn token_lifetime(&self) -> Duration {
        *self.shared.token_lifetime.borrow()
    }

    /// Returns a receiver that changes when [`Controls::disconnect_all`] is called from now on.
    pub(crate) fn disconnects(&self) -> watch::Receiver<()> {
        self.shared.disconnect.subscribe()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}
