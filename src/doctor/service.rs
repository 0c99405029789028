//! The service that runs on this machine, in the same container for example: its state, and the effort to keep it. A path
//! that works now is no proof that a process which started an hour ago works too.

mod observation;

use std::{io, time::Duration};

use self::observation::{Counters, Observation, Readiness, TokenFailure};
use super::{
    duration::in_words,
    examination::{Checked, Failed, Passed},
    local, token,
};
use crate::config::Config;
use entra_redis::identity::FailureKind;

/// Each connection may be opened a few times over, during maintenance or a failover. If more than that are opened, and more
/// than one a minute, something closes them.
const OPENED_OVER: f64 = 3.0;

/// Asks the local service whether it is ready, and judges whether it stays so. `is_path_healthy` is true if no step before
/// failed.
pub(super) async fn check(config: &Config, is_path_healthy: bool) -> Checked<()> {
    let address = local::address(&config.http);
    let observed = match Observation::request(address).await {
        Ok(observed) => observed,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let reason = format!("no service listens on {address}");
            return Ok(Passed::not_applicable(reason, ()));
        }
        Err(error) => {
            return Err(Failed::new(
                format!("http://{address}: {error}"),
                "the local service does not respond to its probes",
                "check its log, and its CPU and memory limits",
            ));
        }
    };
    let Some(Observation {
        readiness,
        counters,
    }) = observed
    else {
        return Ok(Passed::warned(
            format!("another program responds at http://{address}"),
            "the service cannot listen there",
            "give one of the two another port: PORT, ADMIN_PORT",
            (),
        ));
    };
    judge(&readiness, &counters, is_path_healthy)
}

fn judge(readiness: &Readiness, counters: &Counters, is_path_healthy: bool) -> Checked<()> {
    if !readiness.ready {
        return Err(not_ready(readiness, is_path_healthy));
    }
    let warning = old_token(counters)
        .or_else(|| no_new_token(readiness, counters))
        .or_else(|| many_connections(counters));
    Ok(warning.unwrap_or_else(|| {
        let checks = &readiness.checks;
        let observed = format!("ready; {}; {}", checks.token.detail, checks.redis.detail);
        Passed::new(observed, ())
    }))
}

fn not_ready(readiness: &Readiness, is_path_healthy: bool) -> Failed {
    let fix = if is_path_healthy {
        "the path to Redis works now: the service should become ready within 5 seconds; otherwise check its log"
    } else {
        "see the failed steps above; once they pass, the service becomes ready within 5 seconds, without a restart"
    };
    Failed::new(
        readiness.checks.failures().join("\n"),
        "the service is not ready and receives no traffic",
        fix,
    )
}

/// Redis refuses the new token on an open connection.
fn old_token(counters: &Counters) -> Option<Passed<()>> {
    let remaining = counters.connection_token_expires_in?;
    let is_old = remaining < counters.token_expires_in?;
    let refused = counters.reauthentications_failed;
    (is_old && refused > 0.0).then(|| {
        Passed::warned(
            format!(
                "a connection uses a token that expires in {}, although there is a newer one: re-authentication failed {refused} times",
                seconds(remaining)
            ),
            "the connection is closed when its token expires",
            "see authentication above; re-authentication is retried automatically",
            (),
        )
    })
}

/// Entra ID issues no new token.
fn no_new_token(readiness: &Readiness, counters: &Counters) -> Option<Passed<()>> {
    let token = &readiness.checks.token.details;
    let failure = token.last_failure?;
    let remaining = token.expires_in_seconds.or(counters.token_expires_in)?;
    Some(Passed::warned(
        format!("no new token: {}", token::cause(failure.into())),
        format!(
            "requests are served until the current token expires, in {}",
            seconds(remaining)
        ),
        "see token above; the request is repeated until it succeeds",
        (),
    ))
}

/// Something closes the connections.
fn many_connections(counters: &Counters) -> Option<Passed<()>> {
    let (opened, open) = (counters.connections_opened, counters.connections_open);
    let reopened = opened - open;
    if reopened <= OPENED_OVER * open.max(1.0) || reopened <= counters.uptime_minutes {
        return None;
    }
    let observed = format!(
        "{opened} connections were opened in {:.1} min, and {open} are open",
        counters.uptime_minutes
    );
    let unresponsive = counters.connections_unresponsive;
    if unresponsive > reopened / 2.0 {
        return Some(Passed::warned(
            format!("{observed}; {unresponsive} stopped responding and were closed"),
            "a blocking command (BLPOP, XREAD BLOCK, WAIT) delays everything that is sent after it on its connection, re-authentication included; a network that drops idle connections looks the same",
            "use separate connections for blocking commands, or let them block for less than REDIS_COMMAND_TIMEOUT; for the network, check the idle timeouts in between",
            (),
        ));
    }
    Some(Passed::warned(
        observed,
        "connections are closed repeatedly; each new one has to authenticate, and Azure limits new connections",
        "look for an idle timeout below 10 minutes: of Redis (`CONFIG GET timeout`), or of a firewall, NAT gateway or proxy in between",
        (),
    ))
}

fn seconds(seconds: f64) -> String {
    in_words(Duration::from_secs_f64(seconds.max(0.0)))
}

impl From<TokenFailure> for FailureKind {
    fn from(failure: TokenFailure) -> Self {
        match failure {
            TokenFailure::Timeout => Self::TimedOut,
            TokenFailure::Unavailable => Self::Unavailable,
            TokenFailure::Refused => Self::Refused,
            TokenFailure::Unusable => Self::Unusable,
            TokenFailure::Failed | TokenFailure::Unknown => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Outcome, Step, examination::finding};

    fn judged(readiness: &str, counters: Counters, is_path_healthy: bool) -> (Outcome, String) {
        let readiness = serde_json::from_str(readiness).expect("it is /readyz's");
        let result = judge(&readiness, &counters, is_path_healthy);
        let (finding, _) = finding(Step::LocalService, result);
        (finding.outcome, finding.to_string())
    }

    #[test]
    fn the_local_service_is_judged_by_fields_and_counters() {
        let ready = r#"{"ready":true,"checks":{"token":{"status":"passed","detail":"t"},"redis":{"status":"passed","detail":"r"}}}"#;
        let no_token = r#"{"ready":true,"checks":{"token":{"status":"passed","detail":"t","last_failure":"refused","expires_in_seconds":90}}}"#;
        let not_ready = r#"{"ready":false,"checks":{"redis":{"status":"failed","detail":"no reply"},"other":{"status":"failed","detail":"x"}}}"#;
        let quiet = Counters {
            token_expires_in: Some(100.0),
            connection_token_expires_in: Some(100.0),
            connections_open: 2.0,
            connections_opened: 2.0,
            uptime_minutes: 1.0,
            ..Counters::default()
        };
        let old = Counters {
            connection_token_expires_in: Some(50.0),
            reauthentications_failed: 3.0,
            ..quiet.clone()
        };
        let many = Counters {
            connections_opened: 20.0,
            ..quiet.clone()
        };
        let blocked = Counters {
            connections_unresponsive: 15.0,
            ..many.clone()
        };
        let within_days = Counters {
            uptime_minutes: 10_000.0,
            ..many.clone()
        };
        use Outcome::{Failed, Passed, Warned};
        for (readiness, counters, healthy, outcome, part) in [
            (ready, quiet.clone(), true, Passed, "ready; t; r"),
            (not_ready, quiet.clone(), true, Failed, "redis: no reply"),
            (not_ready, quiet.clone(), true, Failed, "works now"),
            (
                not_ready,
                quiet.clone(),
                false,
                Failed,
                "see the failed steps",
            ),
            (ready, old.clone(), true, Warned, "expires in 50 s"),
            (no_token, quiet.clone(), true, Warned, "was refused"),
            (no_token, quiet.clone(), true, Warned, "in 90 s"),
            (no_token, old, true, Warned, "failed 3 times"),
            (ready, many, true, Warned, "idle timeout"),
            (ready, blocked, true, Warned, "BLPOP"),
            (ready, within_days, true, Passed, "ready"),
        ] {
            let (found, text) = judged(readiness, counters, healthy);
            assert_eq!(found, outcome, "{text}");
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}
