//! The responses of the local service's `/readyz` and `/metrics`, as typed data.

use std::{
    io,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;

use crate::doctor::local;

use entra_redis::{identity::instruments as identity, pool::instruments as redis};

/// A metric of the process, as metrics-process names it.
const PROCESS_START: &str = "process_start_time_seconds";

/// The state of the local service.
pub(super) struct Observation {
    pub(super) readiness: Readiness,
    pub(super) counters: Counters,
}

impl Observation {
    /// Requests `/readyz` and `/metrics`; `None` if it is not this service that responds.
    pub(super) async fn request(address: SocketAddr) -> io::Result<Option<Self>> {
        let (_, body) = local::get(address, "/readyz").await?;
        let Ok(readiness) = serde_json::from_str(&body) else {
            return Ok(None);
        };
        let (_, metrics) = local::get(address, "/metrics").await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs_f64();
        Ok(Some(Self {
            readiness,
            counters: Counters::read(&metrics, now),
        }))
    }
}

/// The body of `/readyz`. Fields that a version of the service does not have are absent.
#[derive(Debug, Deserialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    pub(super) checks: Checks,
}

#[derive(Debug, Deserialize)]
pub(super) struct Checks {
    #[serde(default)]
    pub(super) clustering: Check<NoDetails>,
    #[serde(default)]
    pub(super) lifecycle: Check<NoDetails>,
    #[serde(default)]
    pub(super) redis: Check<NoDetails>,
    #[serde(default)]
    pub(super) token: Check<Token>,
}

/// One check: its status, a description for people, and fields of its own.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Check<T> {
    pub(super) status: Status,
    #[serde(default)]
    pub(super) detail: String,
    #[serde(flatten)]
    pub(super) details: T,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Passed,
    Failed,
    NotApplicable,
    #[default]
    #[serde(other)]
    Unknown,
}

/// A check of which only status and description are used.
#[derive(Debug, Default, Deserialize)]
pub(super) struct NoDetails {}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Token {
    pub(super) last_failure: Option<TokenFailure>,
    pub(super) expires_in_seconds: Option<f64>,
}

/// The kinds of a failed token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TokenFailure {
    Timeout,
    Unavailable,
    Refused,
    Failed,
    Unusable,
    #[serde(other)]
    Unknown,
}

impl Checks {
    /// Describes the failed checks, one a line.
    pub(super) fn failures(&self) -> Vec<String> {
        let checks = [
            ("lifecycle", self.lifecycle.failure()),
            ("token", self.token.failure()),
            ("redis", self.redis.failure()),
            ("clustering", self.clustering.failure()),
        ];
        let failures = checks.into_iter().filter_map(|(name, failure)| {
            let detail = failure?;
            Some(format!("{name}: {detail}"))
        });
        failures.collect()
    }
}

impl<T> Check<T> {
    fn failure(&self) -> Option<&str> {
        (self.status == Status::Failed).then_some(&*self.detail)
    }
}

/// The metrics of the local service, as far as they show its condition. Times are in seconds from now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counters {
    /// `None` without a token.
    pub(super) token_expires_in: Option<f64>,
    /// The earliest of all connections; `None` without a connection that authenticated by token.
    pub(super) connection_token_expires_in: Option<f64>,
    pub(super) reauthentications_failed: f64,
    pub(super) connections_open: f64,
    pub(super) connections_opened: f64,
    /// Connections that were closed because Redis did not respond on them.
    pub(super) connections_unresponsive: f64,
    pub(super) uptime_minutes: f64,
}

impl Counters {
    /// Reads a scrape in Prometheus' text format; `now` is in seconds since the epoch.
    fn read(scrape: &str, now: f64) -> Self {
        let scrape = Scrape(scrape);
        let in_seconds = |instant: f64| instant - now;
        let reauth_failed = [("kind", "reauth"), ("outcome", "failure")];
        Self {
            token_expires_in: scrape.total(identity::EXPIRY, &[]).map(in_seconds),
            connection_token_expires_in: scrape.total(redis::EXPIRY, &[]).map(in_seconds),
            reauthentications_failed: scrape.count(redis::AUTH, &reauth_failed),
            connections_open: scrape.count(redis::CONNECTION_COUNT, &[]),
            connections_opened: scrape.count(redis::OPENED, &[]),
            connections_unresponsive: scrape.count(redis::CLOSED, &[("reason", "silent")]),
            uptime_minutes: scrape
                .total(PROCESS_START, &[])
                .map_or(0.0, |started| (now - started) / 60.0),
        }
    }
}

struct Scrape<'a>(&'a str);

impl Scrape<'_> {
    fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.total(name, labels).unwrap_or_default()
    }

    /// Returns the sum over all series of `name` that have these labels; `None` without any.
    fn total(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            let is_meant = rest.is_empty() || rest.starts_with('{');
            let mut labels = labels.iter();
            let has_labels =
                labels.all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")));
            (is_meant && has_labels).then(|| value.parse::<f64>().ok())?
        });
        values.reduce(|sum, value| sum + value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_of_all_series_of_that_name_with_those_labels() {
        let text = "# HELP a x\na{k=\"1\",l=\"3\"} 2\na{l=\"3\",k=\"2\"} 3\na_total 7\nb 1.5\n";
        let scrape = Scrape(text);
        assert_eq!(scrape.total("a", &[]), Some(5.0));
        assert_eq!(scrape.total("a", &[("k", "2")]), Some(3.0));
        assert_eq!(scrape.total("a", &[("k", "1"), ("l", "3")]), Some(2.0));
        assert_eq!(scrape.total("a", &[("k", "1"), ("l", "4")]), None);
        assert_eq!(scrape.total("b", &[]), Some(1.5));
        assert_eq!(scrape.total("c", &[]), None);
    }

    #[test]
    fn counters_are_read_by_the_names_that_the_library_exports() {
        let text = "entra_token_expiry_timestamp_seconds 160\n\
            redis_connection_token_expiry_timestamp_seconds{p=\"x\"} 150\n\
            redis_auth_total{kind=\"reauth\",outcome=\"failure\"} 3\n\
            redis_auth_total{kind=\"connect\",outcome=\"failure\"} 5\n\
            db_client_connection_count{state=\"used\"} 2\n\
            redis_connections_opened_total 9\n\
            redis_connections_closed_total{reason=\"silent\"} 4\n\
            redis_connections_closed_total{reason=\"lost\"} 1\n\
            process_start_time_seconds 40\n";
        let expected = Counters {
            token_expires_in: Some(60.0),
            connection_token_expires_in: Some(50.0),
            reauthentications_failed: 3.0,
            connections_open: 2.0,
            connections_opened: 9.0,
            connections_unresponsive: 4.0,
            uptime_minutes: 1.0,
        };
        assert_eq!(Counters::read(text, 100.0), expected);
        assert_eq!(Counters::read("", 100.0), Counters::default());
    }

    #[test]
    fn readiness_is_read_with_and_without_the_optional_fields() {
        let old = r#"{"ready":true,"checks":{"token":{"status":"passed","detail":"d"}}}"#;
        let old: Readiness = serde_json::from_str(old).expect("an older service's");
        assert!(old.ready && old.checks.token.details.last_failure.is_none());
        let new = r#"{"ready":false,"checks":{
            "token":{"status":"failed","detail":"d","last_failure":"timeout","expires_in_seconds":-3},
            "redis":{"status":"new","detail":"d","connections_open":1,"connections_wanted":2},
            "lifecycle":{"status":"passed","detail":"d","phase":"serving"}}}"#;
        let new: Readiness = serde_json::from_str(new).expect("a newer service's");
        let token = &new.checks.token;
        assert_eq!(token.details.last_failure, Some(TokenFailure::Timeout));
        assert_eq!(token.details.expires_in_seconds, Some(-3.0));
        assert_eq!(new.checks.redis.status, Status::Unknown);
        assert_eq!(new.checks.failures(), ["token: d"]);
        for other in ["", "ok", "{}", "[]", r#"{"ready":1,"checks":{}}"#] {
            assert!(serde_json::from_str::<Readiness>(other).is_err(), "{other}");
        }
    }
}
