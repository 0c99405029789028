//! Faults and counts: what a test or a script turns while the emulator runs.
//!
//! `Emulator::controls` hands out `Controls`; `entra` and `front` read it at each request and connection. All clones
//! speak of the same emulator, a change holds from the next request on, and nothing here ever waits. What a fault
//! looks like on the wire is written where it is made, in `entra` and `front`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

/// What goes wrong at the three token endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntraFault {
    /// Nothing: tokens are issued.
    #[default]
    None,
    /// Every request is answered with this status and an error of Entra ID's shape.
    Status(u16),
    /// The same with a `Retry-After` header, as a throttled caller gets (429, 503).
    RetryAfter(u16, Duration),
    /// No request is ever answered.
    Hang,
    /// Every request is answered rightly, but this much later.
    Slow(Duration),
    /// An identity gets the token it got last for as long as that token lives, as from a managed identity's cache.
    SameToken,
    /// Every request is answered with status 200 and a page of HTML, as by a proxy in between.
    Garbage,
    /// Every answer ends in its middle.
    CutOff,
}

/// What goes wrong at Azure's front before Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisFault {
    /// Nothing: whoever brings a good token is let in.
    #[default]
    None,
    /// Every sign-in is refused with `WRONGPASS`, whatever its token; a sign-in made before stays in force.
    RefuseAuth,
    /// A token signs nobody in before it is this old, as while Azure still spreads the news of it; whole seconds, and up to
    /// one more, since tokens are dated in whole seconds. A sign-in made before stays in force.
    LateTokens(Duration),
    /// A sign-in is never answered. Replies keep their order, so neither is what its connection sends after it;
    /// connections that do not sign in go on.
    HangAuth,
    /// The same where a connection is signed in already: each is let in, and its next sign-in is lost.
    HangReauth,
    /// Connections are accepted and closed at once, before TLS; those already open go on.
    Refuse,
}

/// How often things happened since the emulator was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Access tokens signed; one handed out again by [`EntraFault::SameToken`] counts once.
    pub tokens_issued: u64,
    /// Connections to Redis that completed their TLS handshake.
    pub connections_opened: u64,
    /// `AUTH` and `HELLO … AUTH` accepted.
    pub auth_accepted: u64,
    /// Those among the accepted that brought the very token their connection was signed in with already.
    pub auth_repeated: u64,
    /// `AUTH` and `HELLO … AUTH` refused for their token or by [`RedisFault::RefuseAuth`].
    pub auth_refused: u64,
    /// Connections closed because the token they were signed in with ended.
    pub connections_expired: u64,
}

/// A handle to a running emulator's faults and counts; clones share one state.
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

/// The live counters behind [`Counts`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) tokens_issued: Counter,
    pub(super) connections_opened: Counter,
    pub(super) auth_accepted: Counter,
    pub(super) auth_repeated: Counter,
    pub(super) auth_refused: Counter,
    pub(super) connections_expired: Counter,
}

/// One counter that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Controls {
    pub(super) fn new(token_lifetime: Duration) -> Self {
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

    /// Sets what goes wrong at the token endpoints from the next request on.
    pub fn set_entra(&self, fault: EntraFault) {
        self.shared.entra.send_replace(fault);
    }

    /// Sets what goes wrong at the front before Redis from the next sign-in or connection on.
    pub fn set_redis(&self, fault: RedisFault) {
        self.shared.redis.send_replace(fault);
    }

    /// Closes every connection to Redis at once; new ones are let in.
    pub fn disconnect_all(&self) {
        self.shared.disconnect.send_replace(());
    }

    /// Sets the life of the tokens issued from now on; whole seconds, at least one, as Entra ID has it.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.token_lifetime.send_replace(lifetime);
    }

    /// Tells how often things happened so far.
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

    pub(super) fn entra(&self) -> EntraFault {
        *self.shared.entra.borrow()
    }

    pub(super) fn redis(&self) -> RedisFault {
        *self.shared.redis.borrow()
    }

    pub(super) fn token_lifetime(&self) -> Duration {
        *self.shared.token_lifetime.borrow()
    }

    /// A receiver that changes when [`Controls::disconnect_all`] is called after this.
    pub(super) fn disconnects(&self) -> watch::Receiver<()> {
        self.shared.disconnect.subscribe()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}
