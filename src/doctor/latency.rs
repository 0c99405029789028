//! The round-trip time of PING.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    commands::token_expired,
    examination::{Checked, Failed, Passed},
};
use entra_redis::{
    error_chain::ErrorChain,
    pool::{Error, Pool},
};

const PINGS: usize = 20;
/// No further PING is sent after this time.
const PINGS_TIMEOUT: Duration = Duration::from_secs(5);
/// A cache in the same region responds within a millisecond or two.
const FAR: Duration = Duration::from_millis(10);

/// Measures PING.
pub(super) async fn check(pool: &Pool, token_expires_at: Option<SystemTime>) -> Checked<()> {
    let mut durations = ping(pool).await.map_err(|error| {
        let observed = ErrorChain(&error).to_string();
        token_expired(&observed, token_expires_at).unwrap_or_else(|| {
            Failed::new(
                observed,
                "the cache responded to earlier commands and no longer does",
                "check the cache's server load and events",
            )
        })
    })?;
    durations.sort();
    let milliseconds = |place: usize| durations[place].as_secs_f64() * 1000.0;
    let count = durations.len();
    let median = count / 2;
    let observed = format!(
        "{count} PINGs: min {:.2} ms, median {:.2} ms, max {:.2} ms",
        milliseconds(0),
        milliseconds(median),
        milliseconds(count - 1)
    );
    if durations[median] > FAR {
        return Ok(Passed::warned(
            observed,
            "each request waits at least this long",
            "run the service in the cache's region, and check the cache's server load",
            (),
        ));
    }
    Ok(Passed::new(observed, ()))
}

/// Returns the duration of each PING; at least one.
async fn ping(pool: &Pool) -> Result<Vec<Duration>, Error> {
    let ping = redis::cmd("PING");
    let mut durations = Vec::with_capacity(PINGS);
    let started = Instant::now();
    while durations.len() < PINGS && started.elapsed() < PINGS_TIMEOUT {
        let sent = Instant::now();
        match pool.query::<redis::Value>(&ping).await {
            Ok(_) | Err(Error::Command(_)) => durations.push(sent.elapsed()), // a refusal takes as long
            Err(error) => return Err(error),
        }
    }
    Ok(durations)
}
