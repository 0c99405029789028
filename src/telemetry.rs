//! What do we report? Logs to standard output, metrics for whoever scrapes.
//!
//! `main` sets both up once, before anything else can report; modules then use the `tracing` and `metrics` macros. What
//! always holds: an event is one line; histograms have buckets; what nobody scrapes does not grow.

use std::{io::IsTerminal, sync::OnceLock, time::Duration};

use metrics::{Unit, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tracing_subscriber::EnvFilter;

use crate::config::{self, LogFormat};

const BUILD_INFO: &str = "entra_redis_build_info";

/// How often recorded values are folded into histograms: between scrapes they wait in memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts logging and hands panics to it.
///
/// Does nothing where a subscriber is installed already: the first one in a process wins.
pub fn start_logging(config: &config::Telemetry) {
    let format = config.log_format.unwrap_or({
        match std::io::stdout().is_terminal() {
            true => LogFormat::Text,
            false => LogFormat::Json,
        }
    });
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&config.log_filter));
    let installed = match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::stdout().is_terminal())
            .try_init(),
    };
    if installed.is_ok() {
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
    }
}

/// Reads what was measured.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    process: Collector,
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
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(INSTALLED.get_or_init(|| metrics).clone())
    }

    /// Everything measured so far, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.process.collect();
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
