//! What waits for a collector: bounded, and counted where it is lost.
//!
//! The OpenTelemetry SDK bounds its queues too but keeps to itself how much it dropped, so each is entered here first,
//! with the same bound. What always holds: a span or record that was let in and did not arrive is counted once; trouble
//! with a collector is logged once a minute a signal, and that line is not exported to it.

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

use super::otlp::OF_EXPORTERS;

const DROPPED: &str = "entra_redis_telemetry_dropped_total";

/// A collector that is away is logged once in this time, and not with each batch.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Gives the recorder the help text.
pub(super) fn describe() {
    describe_counter!(
        DROPPED,
        Unit::Count,
        "Spans and log records not exported by signal (traces, logs) and reason: queue_full or export_failed"
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

    /// Makes the series, so that nothing lost is 0 rather than absent.
    pub(super) fn count_from_zero(&self) {
        self.lost(0, "queue_full");
        self.lost(0, "export_failed");
    }

    /// Whether there is room for one more; counts it as lost where there is none.
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

    /// Counts and logs what an export came to.
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
        if warned.is_some_and(|last| last.elapsed() < WARN_EVERY) {
            return;
        }
        *warned = Some(Instant::now());
        // The SDK's export threads are marked so that nothing of theirs is exported; this one may be another.
        let _unexported = Context::enter_telemetry_suppressed_scope();
        warn!(
            otel.signal = self.signal,
            %error,
            "the OpenTelemetry collector did not take an export; what is dropped is counted"
        );
    }
}

/// Counts what leaves a queue for the collector.
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

/// Sums are sent anew each time, so a failed export loses nothing: it is logged and not counted.
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

/// Lets into the SDK's queue what there is room for.
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
        !OF_EXPORTERS.iter().any(|theirs| target.starts_with(theirs))
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
