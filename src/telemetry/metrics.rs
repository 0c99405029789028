//! Metrics: a recorder to be scraped, and beside it a second one where metrics are exported by OTLP.

use std::{sync::OnceLock, time::Duration};

use metrics::{SetRecorderError, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_process::Collector;
use metrics_util::layers::FanoutBuilder;
use tokio::runtime::Handle;

use super::{Telemetry, bridge::Bridge, lines, queue};

const BUILD_INFO: &str = "entra_redis_build_info";

/// Interval at which recorded values are folded into histograms: between scrapes they wait in memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Named as in the crate tokio-metrics: leaked tasks show here first.
const LIVE_TASKS: &str = "tokio_live_tasks_count";

const LINES_DROPPED: &str = "entra_redis_log_lines_dropped_total";

/// An error that keeps the recorder from being installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bounds of a histogram are invalid.
    #[error("invalid bounds for a histogram")]
    Bounds(#[from] BuildError),
    /// Another recorder is installed.
    #[error("another metrics recorder is already installed in this process")]
    Taken,
}

impl<R> From<SetRecorderError<R>> for Error {
    fn from(_: SetRecorderError<R>) -> Self {
        Self::Taken
    }
}

/// The read side of the recorder.
#[derive(Debug, Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    process: Collector,
}

impl Metrics {
    /// Installs the recorder with the bounds of each histogram, and the names that OpenTelemetry's semantic conventions
    /// have for metrics and labels; later calls in one process return the first one's. Modules describe their own
    /// instruments, after this.
    ///
    /// # Errors
    /// Another recorder is installed in this process.
    pub fn install<'a>(
        telemetry: Option<&Telemetry>,
        buckets: impl IntoIterator<Item = &'a (&'a str, &'a [f64])>,
        conventions: impl IntoIterator<Item = &'a (&'static str, &'static str)>,
    ) -> Result<Self, Error> {
        static INSTALLED: OnceLock<Metrics> = OnceLock::new();
        if let Some(metrics) = INSTALLED.get() {
            return Ok(metrics.clone());
        }
        let buckets: Vec<_> = buckets.into_iter().collect();
        let mut builder = PrometheusBuilder::new();
        for (name, bounds) in &buckets {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
        }
        let recorder: PrometheusRecorder = builder.build_recorder();
        let metrics = Self {
            recorder: recorder.handle(),
            process: Collector::default(),
        };
        let exporters = telemetry.map(|telemetry| &telemetry.exporters);
        match exporters.and_then(|exporters| exporters.meter()) {
            Some(meter) => {
                let bridge = Bridge::new(meter, buckets, conventions);
                let both = FanoutBuilder::default()
                    .add_recorder(recorder)
                    .add_recorder(bridge);
                metrics::set_global_recorder(both.build())?;
            }
            None => metrics::set_global_recorder(recorder)?,
        }
        metrics.process.describe();
        describe_gauge!(
            BUILD_INFO,
            Unit::Count,
            "Always 1; labels identify the build"
        );
        describe_gauge!(LIVE_TASKS, Unit::Count, "Tasks that are alive");
        describe_counter!(
            LINES_DROPPED,
            Unit::Count,
            "Log lines dropped because standard output blocked"
        );
        queue::describe();
        if let Some(exporters) = exporters {
            exporters.count_from_zero();
        }
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(INSTALLED.get_or_init(|| metrics).clone())
    }

    /// Returns everything measured so far, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.read();
        // Gauges named by OpenTelemetry (`db.client.connection.count`, `tokio_live_tasks_count`) end in `_count`, which
        // Prometheus reserves for histograms: `promtool check metrics` rejects such a gauge, but not a metric without a type.
        // Changed in the text, because the exporter cannot omit a type.
        let text = self.recorder.render();
        text.replace("_count gauge\n", "_count untyped\n")
    }

    /// Folds recorded values into histograms, forever: a process that is not scraped must not grow. Values that are read
    /// rather than recorded are read, too, for exporters.
    pub async fn upkeep(self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            self.read();
            self.recorder.run_upkeep();
        }
    }

    /// Reads the values that are not recorded by events.
    fn read(&self) {
        self.process.collect();
        counter!(LINES_DROPPED).absolute(lines::dropped());
        if let Ok(runtime) = Handle::try_current() {
            #[expect(clippy::cast_precision_loss, reason = "tasks are counted in thousands")]
            gauge!(LIVE_TASKS).set(runtime.metrics().num_alive_tasks() as f64);
        }
    }
}
