//! Faults made at random: which, for how long, and how each is undone.

use std::time::Duration;

use entra_redis_emulator::{EntraFault, Options, RedisFault};
use fastrand::Rng;
use tokio::time::sleep;

use crate::support::{Azure, Fault, Proxy, RedisServer};

/// Long enough for several rotations between two faults, and short enough that each fault hits one.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(10);

/// A real redis-server behind the emulated proxy, Entra ID, and what lies between them and the service.
pub(super) struct World {
    redis: RedisServer,
    azure: Azure,
    to_redis: Proxy,
    to_entra: Proxy,
}

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) enum Disturbance {
    ResetConnections,
    CloseConnections,
    KillClients,
    DelayAnswers,
    CutAnswers,
    EntraFails,
    EntraThrottles,
    EntraHangs,
    EntraIsSlow,
    EntraTalksNonsense,
    EntraRepeatsItself,
    EntraBlackHoled,
    EntraReset,
    ReauthRefused,
    ReauthUnanswered,
    // From here on, Redis or a token is out of reach.
    RedisRestarts,
    RedisStops,
    RedisBlackHoled,
    RedisHalfOpen,
    RedisThrottled,
    RedisRefusesConnections,
    RedisRefusesAuth,
    RedisIgnoresAuth,
    EntraAwayPastExpiry,
}

impl Disturbance {
    pub(super) const ALL: [Self; 24] = [
        Self::ResetConnections,
        Self::CloseConnections,
        Self::KillClients,
        Self::DelayAnswers,
        Self::CutAnswers,
        Self::EntraFails,
        Self::EntraThrottles,
        Self::EntraHangs,
        Self::EntraIsSlow,
        Self::EntraTalksNonsense,
        Self::EntraRepeatsItself,
        Self::EntraBlackHoled,
        Self::EntraReset,
        Self::ReauthRefused,
        Self::ReauthUnanswered,
        Self::RedisRestarts,
        Self::RedisStops,
        Self::RedisBlackHoled,
        Self::RedisHalfOpen,
        Self::RedisThrottled,
        Self::RedisRefusesConnections,
        Self::RedisRefusesAuth,
        Self::RedisIgnoresAuth,
        Self::EntraAwayPastExpiry,
    ];

    /// Returns whether Redis or a token is out of reach, so that requests may fail.
    pub(super) fn is_outage(self) -> bool {
        self >= Self::RedisRestarts
    }

    /// In the words of a report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ResetConnections => "all connections are reset",
            Self::CloseConnections => "the proxy closes all connections",
            Self::KillClients => "CLIENT KILL of all connections",
            Self::DelayAnswers => "everything takes longer",
            Self::CutAnswers => "connections are cut in their midst",
            Self::EntraFails => "Entra ID answers 500",
            Self::EntraThrottles => "Entra ID answers 429 with Retry-After",
            Self::EntraHangs => "Entra ID does not answer",
            Self::EntraIsSlow => "Entra ID is slow",
            Self::EntraTalksNonsense => "something else answers for Entra ID",
            Self::EntraRepeatsItself => "the same token again",
            Self::EntraBlackHoled => "nothing passes to Entra ID",
            Self::EntraReset => "Entra ID refuses connections",
            Self::ReauthRefused => "AUTH is refused on open connections",
            Self::ReauthUnanswered => "AUTH is not answered on open connections",
            Self::RedisRestarts => "Redis restarts",
            Self::RedisStops => "Redis stands still",
            Self::RedisBlackHoled => "nothing passes to Redis",
            Self::RedisHalfOpen => "nothing comes back from Redis",
            Self::RedisThrottled => "the way to Redis is narrow",
            Self::RedisRefusesConnections => "Redis refuses connections",
            Self::RedisRefusesAuth => "Redis refuses AUTH of new connections",
            Self::RedisIgnoresAuth => "Redis does not answer AUTH of new connections",
            Self::EntraAwayPastExpiry => "Entra ID is away past the token's expiry",
        }
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let redis = RedisServer::start().await;
        let azure = Azure::start(Options {
            token_lifetime: TOKEN_LIFETIME,
            redis: Some(redis.address()),
            ..Options::default()
        })
        .await;
        let authority = azure.variable("AZURE_AUTHORITY_HOST");
        let authority = authority
            .trim_start_matches("https://")
            .trim_end_matches('/');
        Self {
            to_redis: Proxy::before(azure.variable("REDIS_ENDPOINT")).await,
            to_entra: Proxy::before(authority).await,
            redis,
            azure,
        }
    }

    /// The environment of a service in it.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let mut pairs = self.azure.environment("WorkloadIdentityCredential");
        for (name, value) in &mut pairs {
            match name.as_str() {
                "REDIS_ENDPOINT" => *value = format!("localhost:{}", self.to_redis.port),
                "AZURE_AUTHORITY_HOST" => {
                    *value = format!("https://localhost:{}/", self.to_entra.port);
                }
                _ => {}
            }
        }
        // An AUTH that is lost just before Redis is back must time out early enough to resume within 5 s.
        pairs.push(("REDIS_CONNECT_TIMEOUT".to_owned(), "2s".to_owned()));
        pairs.push(("RUST_LOG".to_owned(), "info,access=off".to_owned()));
        pairs
    }

    /// Makes a fault, waits and undoes it.
    pub(super) async fn make(&mut self, disturbance: Disturbance, random: &mut Rng) {
        let controls = &self.azure.controls;
        // A brief failure, shorter than the token's remaining life.
        let hiccup = Duration::from_millis(random.u64(200..2000));
        // Beyond what is tried again within a request's deadline.
        let outage = Duration::from_millis(random.u64(500..6000));
        let entra = match disturbance {
            Disturbance::EntraFails => EntraFault::Status(500),
            Disturbance::EntraThrottles => EntraFault::RetryAfter(429, Duration::from_secs(1)),
            Disturbance::EntraHangs => EntraFault::Hang,
            Disturbance::EntraIsSlow => EntraFault::Slow(Duration::from_millis(700)),
            Disturbance::EntraTalksNonsense => *random
                .choice(&[EntraFault::Garbage, EntraFault::CutOff])
                .expect("there are two"),
            Disturbance::EntraRepeatsItself => EntraFault::SameToken,
            Disturbance::EntraAwayPastExpiry => EntraFault::Status(503),
            _ => EntraFault::None,
        };
        let (redis, to_redis) = match disturbance {
            Disturbance::ReauthRefused => (RedisFault::RefuseAuth, Fault::None),
            Disturbance::RedisRefusesAuth => (RedisFault::RefuseAuth, Fault::None),
            Disturbance::RedisIgnoresAuth => (RedisFault::HangAuth, Fault::None),
            Disturbance::ReauthUnanswered => (RedisFault::HangReauth, Fault::None),
            Disturbance::DelayAnswers => {
                let delay = Duration::from_millis(random.u64(5..100));
                (RedisFault::None, Fault::Delay(delay))
            }
            Disturbance::CutAnswers => {
                let bytes = random.u64(32 * 1024..256 * 1024);
                (RedisFault::None, Fault::CutAfter(bytes))
            }
            Disturbance::RedisBlackHoled => (RedisFault::None, Fault::BlackHole),
            Disturbance::RedisHalfOpen => (RedisFault::None, Fault::HalfOpen),
            Disturbance::RedisThrottled => (RedisFault::None, Fault::Throttle(1000)),
            Disturbance::RedisRefusesConnections => (RedisFault::None, Fault::Refuse),
            _ => (RedisFault::None, Fault::None),
        };
        let to_entra = match disturbance {
            Disturbance::EntraBlackHoled => Fault::BlackHole,
            Disturbance::EntraReset => Fault::Refuse,
            _ => Fault::None,
        };
        controls.set_entra(entra);
        controls.set_redis(redis);
        self.to_redis.set(to_redis);
        self.to_entra.set(to_entra);

        match disturbance {
            Disturbance::ResetConnections => self.to_redis.reset_all(),
            Disturbance::CloseConnections => controls.disconnect_all(),
            Disturbance::KillClients => {
                let mut admin = self.redis.admin().await;
                let mut kill = redis::cmd("CLIENT");
                kill.arg(&["KILL", "SKIPME", "yes"]);
                let killed: u64 = kill
                    .query_async(&mut admin)
                    .await
                    .expect("the administrator may");
                assert!(killed > 0, "there were connections");
            }
            Disturbance::RedisRestarts => {
                self.redis.kill();
                sleep(hiccup).await;
                self.redis.restart().await;
            }
            Disturbance::RedisStops => {
                self.redis.pause();
                sleep(outage).await;
                self.redis.resume();
            }
            Disturbance::RedisRefusesConnections => {
                self.to_redis.reset_all();
                sleep(outage).await;
            }
            Disturbance::RedisRefusesAuth | Disturbance::RedisIgnoresAuth => {
                controls.disconnect_all();
                sleep(outage).await;
            }
            Disturbance::RedisBlackHoled
            | Disturbance::RedisHalfOpen
            | Disturbance::RedisThrottled => sleep(outage).await,
            Disturbance::EntraAwayPastExpiry => {
                sleep(TOKEN_LIFETIME + Duration::from_secs(2)).await;
            }
            _ => sleep(hiccup).await,
        }
        controls.set_entra(EntraFault::None);
        controls.set_redis(RedisFault::None);
        self.to_redis.set(Fault::None);
        self.to_entra.set(Fault::None);
    }
}
