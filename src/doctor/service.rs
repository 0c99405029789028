//! The service that runs beside the doctor, in the same container say: what it holds, and what it had to do for it. A way
//! that is open now says nothing of a process that walked it an hour ago.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use std::collections::BTreeMap;

use super::{identity::minutes, local, report::Verdict};
use crate::config::Config;

/// As many connections as there are may be opened a few times over, in maintenance or a failover; more than that, and more
/// than one a minute, and something closes them for good.
const OPENED_OVER: f64 = 3.0;

/// What `/readyz` answers.
#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    checks: BTreeMap<String, Check>,
}

#[derive(Deserialize)]
struct Check {
    status: String,
    detail: String,
}

/// Whether it is ready, and whether it will stay so. `mended`: whether no step before failed.
pub(super) async fn running(config: &Config, mended: bool) -> (Verdict, Option<()>) {
    let address = local::address(&config.http);
    let verdict = match ask(address).await {
        Ok(Some((readiness, metrics))) => judge(&readiness, &Metrics(&metrics), mended),
        Ok(None) => Verdict::warned(
            format!("something else answers at http://{address}"),
            "the service cannot listen there",
            "give one of the two another port: PORT, ADMIN_PORT",
        ),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Verdict::not_applicable(format!("no service listens on {address}"))
        }
        Err(error) => Verdict::failed(
            format!("http://{address}: {error}"),
            "the service that runs here does not answer its own probes",
            "look at its log and at the limits of its processor time and memory",
        ),
    };
    (verdict, Some(()))
}

/// What `/readyz` and `/metrics` say; `None` where it is not this service that answers.
async fn ask(address: std::net::SocketAddr) -> io::Result<Option<(Readiness, String)>> {
    let (_, body) = local::get(address, "/readyz").await?;
    let Ok(readiness) = serde_json::from_str(&body) else {
        return Ok(None);
    };
    let (_, metrics) = local::get(address, "/metrics").await?;
    Ok(Some((readiness, metrics)))
}

fn judge(readiness: &Readiness, metrics: &Metrics<'_>, mended: bool) -> Verdict {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    let left = |end: f64| minutes(std::time::Duration::from_secs_f64((end - now).max(0.0)));
    let detail = |name: &str| {
        let check = readiness.checks.get(name);
        check.map_or("unknown", |check| check.detail.as_str())
    };

    if !readiness.ready {
        let failed = readiness
            .checks
            .iter()
            .filter(|(_, check)| check.status == "failed");
        let failed: Vec<_> = failed
            .map(|(name, check)| format!("{name}: {}", check.detail))
            .collect();
        let mend = match mended {
            true => {
                "the way is open now: it should be ready within 5 seconds; else its log says what it meets"
            }
            false => {
                "mend what failed above; it is ready again within 5 seconds, without a restart"
            }
        };
        let meaning = "it is not ready, so that no traffic comes here";
        return Verdict::failed(failed.join("\n"), meaning, mend);
    }

    let token = metrics.total("entra_token_expiry_timestamp_seconds", "");
    let signed_in = metrics.total("redis_connection_token_expiry_timestamp_seconds", "");
    if let (Some(token), Some(signed_in)) = (token, signed_in)
        && signed_in < token
        && let Some(refused) =
            metrics.total("redis_auth_total", r#"kind="reauth",outcome="failure""#)
        && refused > 0.0
    {
        return Verdict::warned(
            format!(
                "a connection is signed in with a token that ends in {}, though a newer one is held: Redis did not take it {refused} times",
                left(signed_in)
            ),
            "it serves until that end and is then given up",
            "see sign-in above: it tries again by itself",
        );
    }
    // The check adds why the latest request failed.
    if let (Some(token), Some((_, trouble))) = (token, detail("token").split_once("; ")) {
        return Verdict::warned(
            format!("no new token: {trouble}"),
            format!(
                "requests are served until the token held ends, in {}",
                left(token)
            ),
            "see token above: it asks again by itself, and never gives up",
        );
    }
    let minutes_up = metrics
        .total("process_start_time_seconds", "")
        .map_or(0.0, |started| (now - started) / 60.0);
    let opened = metrics
        .total("redis_connections_opened_total", "")
        .unwrap_or_default();
    let open = metrics
        .total("db_client_connection_count", "")
        .unwrap_or_default();
    if opened > open + OPENED_OVER * open.max(1.0) && opened - open > minutes_up {
        let found = format!("for {open} connections {opened} were opened in {minutes_up:.1} min");
        let silent = metrics
            .total("redis_connections_closed_total", r#"reason="silent""#)
            .unwrap_or_default();
        if silent > (opened - open) / 2.0 {
            return Verdict::warned(
                format!("{found}; {silent} answered nothing and were given up"),
                "a command that blocks (BLPOP, XREAD BLOCK, WAIT) holds up all that come after it on its connection, the sign-in with a new token too; a network that forgets connections looks the same",
                "give commands that block a connection of their own, or let them wait for less than REDIS_COMMAND_TIMEOUT; for the network, see the idle time-outs between",
            );
        }
        return Verdict::warned(
            found,
            "something closes them again and again; each opening is a sign-in, and Azure limits new connections",
            "look for an idle time-out below 10 minutes: of Redis (`CONFIG GET timeout`), of a firewall, NAT gateway or proxy between",
        );
    }
    Verdict::passed(format!("ready; {}; {}", detail("token"), detail("redis")))
}

/// A scrape.
struct Metrics<'a>(&'a str);

impl Metrics<'_> {
    /// The sum over all series of `name` that have `label`; `None` where there is none.
    fn total(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            let is_meant = labels.is_empty() || labels.starts_with('{');
            (is_meant && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        values.reduce(|sum, value| sum + value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_of_all_series_of_that_name_and_label() {
        let scrape = Metrics("# HELP a x\na{k=\"1\"} 2\na{k=\"2\"} 3\na_total 7\nb 1.5\n");
        assert_eq!(scrape.total("a", ""), Some(5.0));
        assert_eq!(scrape.total("a", "k=\"2\""), Some(3.0));
        assert_eq!(scrape.total("b", ""), Some(1.5));
        assert_eq!(scrape.total("c", ""), None);
    }
}
