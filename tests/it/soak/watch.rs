//! Samples of the service's own metrics during a soak.

use std::{
    fmt::{self, Display},
    iter::Sum,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{task::JoinHandle, time::sleep};

use crate::support::{Record, client, metric};

/// One scrape.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) rotations: f64,
    /// Connections that are open.
    pub(super) connections: f64,
    pub(super) opened: f64,
    pub(super) closed: f64,
    /// Re-AUTHs that Redis accepted, and that it refused or did not answer.
    pub(super) accepted: f64,
    pub(super) refused: f64,
    /// Expiry of the current token, and of the one that connections are authenticated with.
    pub(super) token: f64,
    pub(super) connections_token: f64,
    pub(super) resident: f64,
    pub(super) descriptors: f64,
    pub(super) tasks: f64,
}

impl Sample {
    pub(super) fn of(metrics: &str) -> Self {
        let value = |name, labels: &[&str]| metric(metrics, name, labels);
        let again = |outcome| value("redis_auth_total", &["kind=\"reauth\"", outcome]);
        Self {
            rotations: value("entra_token_refresh_total", &["outcome=\"success\""]) - 1.0,
            connections: value("db_client_connection_count", &[]),
            opened: value("redis_connections_opened_total", &[]),
            closed: value("redis_connections_closed_total", &[]),
            accepted: again("outcome=\"success\""),
            refused: again("outcome=\"failure\""),
            token: value("entra_token_expiry_timestamp_seconds", &[]),
            connections_token: value("redis_connection_token_expiry_timestamp_seconds", &[]),
            resident: value("process_resident_memory_bytes", &[]),
            descriptors: value("process_open_fds", &[]),
            tasks: value("tokio_live_tasks_count", &[]),
        }
    }

    /// Returns whether all connections are open and on the newest token, which lives for `left` at least.
    pub(super) fn is_healthy(&self, left: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("it is after 1970").as_secs_f64();
        self.connections == 2.0
            && self.token == self.connections_token
            && self.token >= now + left.as_secs_f64()
    }
}

/// Of several replicas; expiry times have no meaningful sum.
impl Sum for Sample {
    fn sum<I: Iterator<Item = Self>>(samples: I) -> Self {
        samples.fold(Self::default(), |sum, one| Self {
            rotations: sum.rotations + one.rotations,
            connections: sum.connections + one.connections,
            opened: sum.opened + one.opened,
            closed: sum.closed + one.closed,
            accepted: sum.accepted + one.accepted,
            refused: sum.refused + one.refused,
            token: f64::NAN,
            connections_token: f64::NAN,
            resident: sum.resident + one.resident,
            descriptors: sum.descriptors + one.descriptors,
            tasks: sum.tasks + one.tasks,
        })
    }
}

/// Samples a service until it is stopped.
pub(super) struct Watch {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(super) fn start(metrics: String, every: Duration) -> Self {
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let into = samples.clone();
        let task = tokio::spawn(async move {
            let client = client();
            loop {
                let text = client.get(&metrics).send().await.expect("it answers");
                let text = text.text().await.expect("the body is whole");
                let sample = Sample::of(&text);
                into.lock().expect("no panic under the lock").push(sample);
                sleep(every).await;
            }
        });
        Self { samples, task }
    }

    pub(super) fn latest(&self) -> Option<Sample> {
        let samples = self.samples.lock().expect("no panic under the lock");
        samples.last().copied()
    }

    /// The samples so far.
    pub(super) async fn end(self) -> Vec<Sample> {
        self.task.abort();
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            panic!("the service did not answer a scrape");
        }
        let samples = self.samples.lock().expect("no panic under the lock");
        samples.clone()
    }
}

/// The table that is printed at the end, as Markdown.
pub(super) struct Table(Vec<(String, String)>);

impl Table {
    pub(super) fn new() -> Self {
        Self(vec![(String::new(), String::new())])
    }

    pub(super) fn row(mut self, name: impl Display, value: impl Display) -> Self {
        self.0.push((name.to_string(), value.to_string()));
        self
    }

    /// The rows that both tests have, from the first sample to the last; the service's clock is `speed` times as fast.
    pub(super) fn common(self, first: &Sample, last: &Sample, record: &Record, speed: u32) -> Self {
        let mebibytes = |bytes: f64| bytes / 1024.0 / 1024.0;
        #[expect(clippy::cast_precision_loss, reason = "they are durations of requests")]
        let milliseconds = |microseconds: u64| microseconds as f64 / 1000.0 / f64::from(speed);
        let took = &record.durations;
        let [median, late] = [0.5, 0.99].map(|share| milliseconds(took.value_at_quantile(share)));
        let most = milliseconds(took.max());
        self.row("rotations", last.rotations - first.rotations)
            .row(
                "re-AUTHs accepted, refused or unanswered",
                format!(
                    "{}, {}",
                    last.accepted - first.accepted,
                    last.refused - first.refused
                ),
            )
            .row(
                "connections opened, closed",
                format!(
                    "{}, {}",
                    last.opened - first.opened,
                    last.closed - first.closed
                ),
            )
            .row(
                "good answers: p50, p99, max",
                format!("{median:.1} ms, {late:.1} ms, {most:.0} ms"),
            )
            .row(
                "resident memory at start, at end",
                format!(
                    "{:.1} MiB, {:.1} MiB",
                    mebibytes(first.resident),
                    mebibytes(last.resident)
                ),
            )
            .row(
                "tasks at start, at end",
                format!("{}, {}", first.tasks, last.tasks),
            )
            .row(
                "file descriptors at start, at end",
                format!("{}, {}", first.descriptors, last.descriptors),
            )
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&(String, String)) -> &String| {
            self.0
                .iter()
                .map(|row| of(row).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (left, right) = (width(|row| &row.0), width(|row| &row.1));
        for (number, (name, value)) in self.0.iter().enumerate() {
            writeln!(f, "| {name:left$} | {value:right$} |")?;
            if number == 0 {
                writeln!(f, "| {:-<left$} | {:-<right$} |", "", "")?;
            }
        }
        Ok(())
    }
}
