//! Telemetry: log lines on standard output, metrics to be scraped, and, where a collector is configured, traces, log
//! records and metrics by OTLP.
//!
//! `main` starts it once, before anything else can report, and finishes it last; modules then use the `tracing` and
//! `metrics` macros and know nothing of this one.
//!
//! # Invariants
//! - An event is one line.
//! - Memory does not grow while metrics are not scraped or a collector is away.
//! - A collector that is unreachable, slow or silent costs a counted drop and never a request.
//! - What the exporters do themselves is not exported.
//! - Without a collector nothing is set up for one.
//!
//! Spans, events and instruments do not belong here: each module has its own.

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
use crate::config;
use entra_redis::trace;

/// Telemetry in operation.
#[must_use = "call `finish` to flush pending telemetry"]
pub struct Telemetry {
    lines: Option<Lines>,
    exporters: Exporters,
    filter: LogFilter,
}

/// Starts logging, panics included, and the exporters that are configured.
///
/// Must be called in a runtime, on which the exporters run. Keeps a subscriber that is installed already: the first one in a
/// process wins.
///
/// # Errors
/// An exporter cannot be set up.
pub fn start(config: &config::Telemetry) -> Result<Telemetry, Error> {
    let exporters = Exporters::new(config)?;
    let (lines, layer) = lines::start(config);
    let (filter, log_filter) = LogFilter::new(&config.log_filter);
    let installed = Registry::default()
        .with(
            layer
                .and_then(exporters.records())
                .with_filter(log_filter.and(not_for_traces())),
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

/// Excludes the spans of traces, which would hide the request's id: log lines have spans of their own.
fn not_for_traces<S>() -> impl Filter<S> {
    filter_fn(|metadata| metadata.target() != trace::TARGET).with_max_level_hint(LevelFilter::TRACE)
}

/// Selects our own spans for traces, and those at `info` of a program that adds routes of its own; never the exporters'.
/// Our other spans are for log lines.
fn exported_spans() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(trace::TARGET, LevelFilter::TRACE)
        .with_target("entra_redis", LevelFilter::OFF)
        .with_targets(queue::EXPORTER_TARGETS.map(|target| (target, LevelFilter::OFF)))
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Returns a handle that changes the log filter while the process runs.
    pub fn log_filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Exports pending telemetry and writes the last lines, each within a second, then stops reporting.
    ///
    /// Dropping the future discards what is pending.
    pub async fn finish(self) {
        self.exporters.finish().await;
        drop(self.lines);
    }
}
