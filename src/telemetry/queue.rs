//! Queues of what waits for a collector: bounded, with drops counted.
//!
//! The OpenTelemetry SDK bounds its queues too but does not report how much it dropped, so each item is counted in here
//! first, with the same bound.
//!
//! # Invariants
//! - A span or record that was accepted and not exported is counted once.
//! - A collector's failures are logged once a minute for each signal, and that line is not exported.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::{Unit, counter, describe_counter};
use opentelemetry::{Context, InstrumentationScope, logs::Severity};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{BatchLogProcessor, LogBatch, LogExporter, LogProcessor, SdkLogRecord},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use tracing::warn;

/// Prefixes of the targets of the exporters and of the crates below them: exporting what exporting logs would never end.
pub(super) const EXPORTER_TARGETS: [&str; 7] = [
    "h2",
    "hyper",
    "opentelemetry",
    "reqwest",
    "rustls",
    "tonic",
    "tower",
];

const DROPPED: &str = "entra_redis_telemetry_dropped_total";

/// Interval at which a failing collector is logged, rather than with each batch.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Gives the recorder the help text.
pub(super) fn describe() {
    describe_counter!(
        DROPPED,
        Unit::Count,
        "Spans and log records not exported, by signal (traces or logs) and reason (queue_full or export_failed)"
    );
}

/// One signal's queue.
#[derive(Debug)]
pub(super) struct Queue {
    signal: &'static str,
    room: usize,
    waiting: AtomicUsize,
    warned: Mutex<Option<Instant>>,
}

impl Queue {
    pub(super) fn new(signal: &'static str, room: usize) -> Arc<Self> {
        Arc::new(Self {
            signal,
            room,
            waiting: AtomicUsize::new(0),
            warned: Mutex::new(None),
        })
    }

    /// Creates the series, so that the count is 0 rather than absent while nothing was lost.
    pub(super) fn count_from_zero(&self) {
        self.lost(0, "queue_full");
        self.lost(0, "export_failed");
    }

    /// Returns whether there is room for one more; counts it as lost if not.
    fn enter(&self) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.room {
            return true;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.lost(1, "queue_full");
        false
    }

    fn leave(&self, number: usize) {
        self.waiting.fetch_sub(number, Ordering::Relaxed);
    }

    /// Counts and logs the result of an export.
    fn exported(&self, number: usize, result: &OTelSdkResult) {
        if let Err(error) = result {
            self.lost(number, "export_failed");
            self.warn(error);
        }
    }

    fn lost(&self, number: usize, reason: &'static str) {
        counter!(DROPPED, "signal" => self.signal, "reason" => reason).increment(number as u64);
    }

    fn warn(&self, error: &dyn fmt::Display) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|last| last.elapsed() < WARN_INTERVAL) {
            return;
        }
        *warned = Some(Instant::now());
        // The SDK suppresses exports of its own threads' events; this may be another thread.
        let _unexported = Context::enter_telemetry_suppressed_scope();
        warn!(
            otel.signal = self.signal,
            %error,
            "export to the OpenTelemetry collector failed"
        );
    }
}

/// An exporter that counts what leaves a queue for the collector.
#[derive(Debug)]
pub(super) struct Counted<E> {
    exporter: E,
    queue: Arc<Queue>,
}

impl<E> Counted<E> {
    pub(super) fn new(exporter: E, queue: &Arc<Queue>) -> Self {
        let queue = queue.clone();
        Self { exporter, queue }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let number = batch.len();
        self.queue.leave(number);
        let result = self.exporter.export(batch).await;
        self.queue.exported(number, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let number = batch.iter().count();
        self.queue.leave(number);
        let result = self.exporter.export(batch).await;
        self.queue.exported(number, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Sums are sent in full each time, so a failed export loses nothing: it is logged and not counted.
impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        self.queue.exported(0, &result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

/// A processor that passes to the SDK's queue what there is room for.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    processor: P,
    queue: Arc<Queue>,
}

impl<P> Bounded<P> {
    pub(super) fn new(processor: P, queue: &Arc<Queue>) -> Self {
        let queue = queue.clone();
        Self { processor, queue }
    }
}

impl SpanProcessor for Bounded<BatchSpanProcessor> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.queue.enter() {
            self.processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

impl LogProcessor for Bounded<BatchLogProcessor> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.queue.enter() {
            self.processor.emit(record, scope);
        }
    }

    fn event_enabled(&self, _: Severity, target: &str, _: Option<&str>) -> bool {
        !EXPORTER_TARGETS
            .iter()
            .any(|prefix| target.starts_with(prefix))
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}
