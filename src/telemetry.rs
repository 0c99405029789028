//! What do we report? Log lines to standard output, metrics for whoever scrapes, and, where a collector is configured,
//! traces, log records and metrics by OTLP.
//!
//! `main` starts it once, before anything else can report, and finishes it last; modules then use the `tracing` and
//! `metrics` macros and know nothing of this one. What always holds: an event is one line; what nobody scrapes or
//! collects does not grow; a collector that is away, slow or silent costs a counted drop and never a request; what the
//! exporters do themselves is not exported; without a collector nothing is set up for one.
//!
//! What does not belong here: which spans, events and instruments there are. Each module has its own.

mod bridge;
mod filter;
mod lines;
mod metrics;
mod otlp;
mod queue;

use std::fmt;

use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, LevelFilter, Targets, filter_fn},
    layer::{Filter, SubscriberExt},
    util::SubscriberInitExt,
};

pub use self::{
    filter::LogFilter,
    metrics::{Error as MetricsError, Metrics},
    otlp::Error,
};
use self::{lines::Lines, otlp::Exporters};
use crate::{config, trace};

/// What was started; to be finished.
#[must_use = "what waits to leave the process leaves when it is finished"]
pub struct Telemetry {
    lines: Option<Lines>,
    exporters: Exporters,
    filter: LogFilter,
}

/// Starts logging and hands panics to it; starts the exporters that are configured.
///
/// Must be called in a runtime: exporters live there. Installs no subscriber where there is one already: the first one
/// in a process wins.
///
/// # Errors
/// An exporter cannot be set up.
pub fn start(config: &config::Telemetry) -> Result<Telemetry, Error> {
    let exporters = Exporters::new(config)?;
    let (lines, layer) = lines::start(config);
    let filter = LogFilter::new(&config.log_filter);
    let installed = Registry::default()
        .with(
            layer
                .and_then(exporters.records())
                .with_filter(filter.clone().and(not_for_traces())),
        )
        .with(exporters.tracer().map(|tracer| {
            OpenTelemetryLayer::new(tracer)
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(exported_spans().and(filter_fn(|metadata| metadata.is_span())))
        }))
        .try_init();
    let lines = installed.is_ok().then_some(lines);
    if let Some(lines) = &lines {
        lines.take_over();
    }
    Ok(Telemetry {
        lines,
        exporters,
        filter,
    })
}

/// Log lines stand in spans of their own, whatever is logged: those of traces would hide the request's id.
fn not_for_traces<S>() -> impl Filter<S> {
    filter_fn(|metadata| metadata.target() != trace::TARGET).with_max_level_hint(LevelFilter::TRACE)
}

/// Our own spans for traces, and those at `info` of a program that adds routes of its own; never the exporters'. Our
/// other spans are for log lines.
fn exported_spans() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(trace::TARGET, LevelFilter::TRACE)
        .with_target(env!("CARGO_CRATE_NAME"), LevelFilter::OFF)
        .with_targets(otlp::OF_EXPORTERS.map(|target| (target, LevelFilter::OFF)))
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// What is logged, to be changed while the process runs.
    pub fn log_filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Exports what is waiting and writes the last lines, each within a second, and reports no more.
    ///
    /// Dropping the future gives up what has not left yet.
    pub async fn finish(self) {
        self.exporters.finish().await;
        drop(self.lines);
    }
}
