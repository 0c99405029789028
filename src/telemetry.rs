//! What do we report? Logs to standard output, metrics for whoever scrapes.
//!
//! `main` sets both up once, before anything else can report; modules then use the `tracing` and `metrics` macros. What
//! always holds: an event is one line; histograms have buckets; what nobody scrapes does not grow.

use std::{io::IsTerminal, sync::OnceLock, time::Duration};

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{self, LogFormat};

const BUILD_INFO: &str = "entra_redis_build_info";

/// How often recorded values are folded into histograms: between scrapes they wait in memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Log lines that wait for standard output to take them; with more, the newest are dropped and counted. About 5 MB.
const LINES_WAITING: usize = 16 * 1024;

const LINES_DROPPED: &str = "entra_redis_log_lines_dropped_total";

/// Writes what is still waiting when it is dropped, within a second.
#[must_use = "the last lines are written when it is dropped"]
pub struct Logging(Option<WorkerGuard>);

/// Lines dropped so far in this process.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Starts logging and hands panics to it.
///
/// Lines leave on a thread of their own: a reader of standard output that stands still must not stand the service
/// still. Does nothing where a subscriber is installed already: the first one in a process wins.
pub fn start_logging(config: &config::Telemetry) -> Logging {
    let is_terminal = std::io::stdout().is_terminal();
    let format = config.log_format.unwrap_or(match is_terminal {
        true => LogFormat::Text,
        false => LogFormat::Json,
    });
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING)
        .finish(std::io::stdout());
    let dropped = writer.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_filter))
        .with_writer(writer);
    let installed = match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => builder.with_ansi(is_terminal).try_init(),
    };
    if installed.is_err() {
        return Logging(None);
    }
    DROPPED.get_or_init(|| dropped);
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        tracing::error!(
            panic.location = location,
            panic.message = message.or(payload.downcast_ref::<String>().map(String::as_str)),
            "a task panicked, which is a bug"
        );
    }));
    Logging(Some(guard))
}

/// Reads what was measured.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    process: Collector,
}

impl Logging {
    /// Writes what is waiting, within a second, and logs no more.
    pub fn finish(self) {
        drop(self.0);
    }
}

impl Metrics {
    /// Installs the recorder with the bounds of each histogram; later calls in one process share the first one's
    /// recorder. Modules describe their own instruments, after this.
    ///
    /// # Errors
    /// Another recorder was installed by somebody else.
    pub fn install<'a>(
        buckets: impl IntoIterator<Item = &'a (&'a str, &'a [f64])>,
    ) -> Result<Self, BuildError> {
        static INSTALLED: OnceLock<Metrics> = OnceLock::new();
        if let Some(metrics) = INSTALLED.get() {
            return Ok(metrics.clone());
        }
        let mut builder = PrometheusBuilder::new();
        for (name, bounds) in buckets {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
        }
        let metrics = Self {
            recorder: builder.install_recorder()?,
            process: Collector::default(),
        };
        metrics.process.describe();
        describe_gauge!(
            BUILD_INFO,
            Unit::Count,
            "Always 1; the labels say which build runs"
        );
        describe_counter!(
            LINES_DROPPED,
            "Log lines dropped because standard output did not take them"
        );
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(INSTALLED.get_or_init(|| metrics).clone())
    }

    /// Everything measured so far, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.process.collect();
        let dropped = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
        counter!(LINES_DROPPED).absolute(dropped as u64);
        self.recorder.render()
    }

    /// Folds recorded values into histograms, for ever: an unscraped process must not grow.
    pub async fn upkeep(self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            self.recorder.run_upkeep();
        }
    }
}
