//! Metrics: one recorder for whoever scrapes, and a second beside it where metrics go by OTLP too.

use std::{sync::OnceLock, time::Duration};

use metrics::{SetRecorderError, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_process::Collector;
use tokio::runtime::Handle;

use super::{
    Telemetry,
    bridge::{Bridge, Fanout},
    lines, queue,
};

const BUILD_INFO: &str = "entra_redis_build_info";

/// How often recorded values are folded into histograms: between scrapes they wait in memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// As the crate tokio-metrics names it: what is leaked by a service that spawns tasks shows here first.
const LIVE_TASKS: &str = "tokio_live_tasks_count";

const LINES_DROPPED: &str = "entra_redis_log_lines_dropped_total";

/// Why there is no recorder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bounds that are none.
    #[error("the bounds of a histogram cannot be used")]
    Bounds(#[from] BuildError),
    /// There is one in this process already.
    #[error("another recorder was installed by somebody else")]
    Taken,
}

impl<R> From<SetRecorderError<R>> for Error {
    fn from(_: SetRecorderError<R>) -> Self {
        Self::Taken
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
    pub(crate) fn install<'a>(
        telemetry: Option<&Telemetry>,
        buckets: impl IntoIterator<Item = &'a (&'a str, &'a [f64])>,
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
                let bridge = Bridge::new(meter, buckets);
                metrics::set_global_recorder(Fanout::new(recorder, bridge))?;
            }
            None => metrics::set_global_recorder(recorder)?,
        }
        metrics.process.describe();
        describe_gauge!(
            BUILD_INFO,
            Unit::Count,
            "Always 1; the labels say which build runs"
        );
        describe_gauge!(LIVE_TASKS, Unit::Count, "Tasks that have not ended");
        describe_counter!(
            LINES_DROPPED,
            Unit::Count,
            "Log lines dropped because standard output did not take them"
        );
        queue::describe();
        if let Some(exporters) = exporters {
            exporters.count_from_zero();
        }
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(INSTALLED.get_or_init(|| metrics).clone())
    }

    /// Everything measured so far, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.look();
        // OpenTelemetry's `db.client.connection.count` is a gauge, but Prometheus keeps the ending for histograms and
        // has its linter complain; of what has no type it says nothing.
        let text = self.recorder.render();
        text.replace("_count gauge\n", "_count untyped\n")
    }

    /// Folds recorded values into histograms, for ever: an unscraped process must not grow. What is read rather than
    /// recorded is read anew, for those who get metrics without asking.
    pub async fn upkeep(self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            self.look();
            self.recorder.run_upkeep();
        }
    }

    /// Reads what nobody records.
    fn look(&self) {
        self.process.collect();
        counter!(LINES_DROPPED).absolute(lines::dropped());
        if let Ok(runtime) = Handle::try_current() {
            #[expect(clippy::cast_precision_loss, reason = "tasks are counted in thousands")]
            gauge!(LIVE_TASKS).set(runtime.metrics().num_alive_tasks() as f64);
        }
    }
}
