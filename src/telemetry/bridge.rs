//! The same metrics by OTLP: a recorder that gives what is recorded to OpenTelemetry's meter, and the fan-out to both.
//!
//! Installed only where metrics are exported. Of the crates that do this none keeps the histograms' bounds or gives the
//! conventions' names; what is left to do is little.
//!
//! Names: where OpenTelemetry's semantic conventions have one it is that (`http.server.request.duration`); ours lose
//! what Prometheus adds, `_total` and the unit, so that a back end that writes them the Prometheus way (OpenTelemetry's
//! "Prometheus compatibility") arrives at the name that is scraped. Units are seconds and bytes either way.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusRecorder;
use opentelemetry::{KeyValue, metrics::Meter};

/// The names that OpenTelemetry's semantic conventions have.
const CONVENTIONS: &[(&str, &str)] = &[
    (
        "http_server_request_duration_seconds",
        "http.server.request.duration",
    ),
    ("http_server_active_requests", "http.server.active_requests"),
    (
        "db_client_operation_duration_seconds",
        "db.client.operation.duration",
    ),
    ("db_client_connection_count", "db.client.connection.count"),
];

/// The attributes that they have.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("http_request_method", "http.request.method"),
    ("http_route", "http.route"),
    ("http_response_status_code", "http.response.status_code"),
    ("db_operation_name", "db.operation.name"),
    ("db_client_connection_state", "db.client.connection.state"),
    ("error_type", "error.type"),
];

/// Gives what is recorded to OpenTelemetry.
pub(super) struct Bridge {
    meter: Meter,
    bounds: HashMap<String, Vec<f64>>,
    help: RwLock<HashMap<String, String>>,
    numbers: RwLock<HashMap<KeyName, Arc<Series>>>,
    histograms: RwLock<HashMap<Key, Arc<Recording>>>,
}

/// All series of one counter or gauge: read when they are exported.
type Series = RwLock<HashMap<Key, (Vec<KeyValue>, Arc<AtomicU64>)>>;

/// One series of a histogram.
struct Recording {
    histogram: opentelemetry::metrics::Histogram<f64>,
    attributes: Vec<KeyValue>,
}

impl HistogramFn for Recording {
    fn record(&self, value: f64) {
        self.histogram.record(value, &self.attributes);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

impl Bridge {
    pub(super) fn new<'a>(
        meter: Meter,
        buckets: impl IntoIterator<Item = &'a (&'a str, &'a [f64])>,
    ) -> Self {
        let bounds = buckets.into_iter();
        Self {
            meter,
            bounds: bounds
                .map(|(name, bounds)| ((*name).to_owned(), bounds.to_vec()))
                .collect(),
            help: RwLock::default(),
            numbers: RwLock::default(),
            histograms: RwLock::default(),
        }
    }

    fn describe(&self, name: &KeyName, help: SharedString) {
        let mut known = self.help.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.as_str().to_owned(), help.into_owned());
    }

    fn help(&self, name: &str) -> String {
        let known = self.help.read().unwrap_or_else(PoisonError::into_inner);
        known.get(name).cloned().unwrap_or_default()
    }

    /// The number of one series; the first of a name makes the instrument.
    fn number(&self, key: &Key, kind: Kind) -> Arc<AtomicU64> {
        let name = KeyName::from(key.name().to_owned());
        let known = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        let series = known.get(&name).cloned();
        drop(known);
        let series = series.unwrap_or_else(|| {
            let mut known = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
            let make = || self.instrument(key.name(), kind);
            known.entry(name).or_insert_with(make).clone()
        });
        let known = series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, number)) = known.get(key) {
            return number.clone();
        }
        drop(known);
        let mut known = series.write().unwrap_or_else(PoisonError::into_inner);
        let new = || (attributes(key), Arc::default());
        known.entry(key.clone()).or_insert_with(new).1.clone()
    }

    fn instrument(&self, scraped: &str, kind: Kind) -> Arc<Series> {
        let (name, unit) = exported_name(scraped);
        let help = self.help(scraped);
        let series = Arc::<Series>::default();
        let read = series.clone();
        match kind {
            Kind::Counter => {
                let builder = self.meter.u64_observable_counter(name);
                builder
                    .with_unit(unit)
                    .with_description(help)
                    .with_callback(move |observer| {
                        for_each(&read, |bits, with| observer.observe(bits, with))
                    })
                    .build();
            }
            // The conventions count what is open or active as something that goes up and down.
            Kind::Gauge if convention(scraped).is_some() => {
                let builder = self.meter.i64_observable_up_down_counter(name);
                builder
                    .with_unit(unit)
                    .with_description(help)
                    .with_callback(move |observer| {
                        for_each(&read, |bits, with| {
                            observer.observe(f64::from_bits(bits) as i64, with);
                        })
                    })
                    .build();
            }
            Kind::Gauge => {
                let builder = self.meter.f64_observable_gauge(name);
                builder
                    .with_unit(unit)
                    .with_description(help)
                    .with_callback(move |observer| {
                        for_each(&read, |bits, with| {
                            observer.observe(f64::from_bits(bits), with);
                        })
                    })
                    .build();
            }
        }
        series
    }

    fn recording(&self, key: &Key) -> Arc<Recording> {
        let known = self
            .histograms
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(recording) = known.get(key) {
            return recording.clone();
        }
        drop(known);
        let (name, unit) = exported_name(key.name());
        let builder = self.meter.f64_histogram(name).with_unit(unit);
        let mut builder = builder.with_description(self.help(key.name()));
        if let Some(bounds) = self.bounds.get(key.name()) {
            builder = builder.with_boundaries(bounds.clone());
        }
        // One instrument asked for again is the same to the SDK.
        let recording = Arc::new(Recording {
            histogram: builder.build(),
            attributes: attributes(key),
        });
        let mut known = self
            .histograms
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.entry(key.clone()).or_insert(recording).clone()
    }
}

fn for_each(series: &Series, mut observe: impl FnMut(u64, &[KeyValue])) {
    let series = series.read().unwrap_or_else(PoisonError::into_inner);
    for (attributes, number) in series.values() {
        observe(number.load(Ordering::Relaxed), attributes);
    }
}

fn convention(scraped: &str) -> Option<&'static str> {
    let found = CONVENTIONS.iter().find(|(name, _)| *name == scraped);
    found.map(|(_, name)| *name)
}

/// The name under which a metric leaves, and its unit.
fn exported_name(scraped: &str) -> (String, &'static str) {
    let name = scraped.strip_suffix("_total").unwrap_or(scraped);
    let (name, unit) = match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
        (Some(name), _) => (name, "s"),
        (None, Some(name)) => (name, "By"),
        (None, None) => (name, ""),
    };
    (convention(scraped).unwrap_or(name).to_owned(), unit)
}

fn attributes(key: &Key) -> Vec<KeyValue> {
    key.labels()
        .map(|label| {
            let found = ATTRIBUTES.iter().find(|(name, _)| *name == label.key());
            let name = found.map_or_else(|| label.key().to_owned(), |(_, name)| (*name).to_owned());
            // The conventions have a number here; labels are text.
            match (label.key(), label.value().parse::<i64>()) {
                ("http_response_status_code", Ok(status)) => KeyValue::new(name, status),
                _ => KeyValue::new(name, label.value().to_owned()),
            }
        })
        .filter(|attribute| !attribute.value.as_str().is_empty()) // an empty label is Prometheus' way to say none
        .collect()
}

impl Recorder for Bridge {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&key, help);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&key, help);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&key, help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.number(key, Kind::Counter))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.number(key, Kind::Gauge))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.recording(key))
    }
}

/// Records everything twice.
pub(super) struct Fanout {
    scraped: PrometheusRecorder,
    exported: Bridge,
}

impl Fanout {
    pub(super) fn new(scraped: PrometheusRecorder, exported: Bridge) -> Self {
        Self { scraped, exported }
    }
}

struct Both<T>(T, T);

impl CounterFn for Both<Counter> {
    fn increment(&self, value: u64) {
        self.0.increment(value);
        self.1.increment(value);
    }

    fn absolute(&self, value: u64) {
        self.0.absolute(value);
        self.1.absolute(value);
    }
}

impl GaugeFn for Both<Gauge> {
    fn increment(&self, value: f64) {
        self.0.increment(value);
        self.1.increment(value);
    }

    fn decrement(&self, value: f64) {
        self.0.decrement(value);
        self.1.decrement(value);
    }

    fn set(&self, value: f64) {
        self.0.set(value);
        self.1.set(value);
    }
}

impl HistogramFn for Both<Histogram> {
    fn record(&self, value: f64) {
        self.0.record(value);
        self.1.record(value);
    }
}

impl Recorder for Fanout {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.scraped
            .describe_counter(key.clone(), unit, help.clone());
        self.exported.describe_counter(key, unit, help);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.scraped.describe_gauge(key.clone(), unit, help.clone());
        self.exported.describe_gauge(key, unit, help);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.scraped
            .describe_histogram(key.clone(), unit, help.clone());
        self.exported.describe_histogram(key, unit, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Both(
            self.scraped.register_counter(key, metadata),
            self.exported.register_counter(key, metadata),
        )))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Both(
            self.scraped.register_gauge(key, metadata),
            self.exported.register_gauge(key, metadata),
        )))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Both(
            self.scraped.register_histogram(key, metadata),
            self.exported.register_histogram(key, metadata),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_conventions_or_ours_without_what_prometheus_adds() {
        for (scraped, exported, unit) in [
            (
                "http_server_request_duration_seconds",
                "http.server.request.duration",
                "s",
            ),
            (
                "entra_token_expiry_timestamp_seconds",
                "entra_token_expiry_timestamp",
                "s",
            ),
            ("entra_token_refresh_total", "entra_token_refresh", ""),
            ("process_cpu_seconds_total", "process_cpu", "s"),
            (
                "process_resident_memory_bytes",
                "process_resident_memory",
                "By",
            ),
            ("entra_redis_build_info", "entra_redis_build_info", ""),
        ] {
            assert_eq!(exported_name(scraped), (exported.to_owned(), unit));
        }
    }

    #[test]
    fn a_status_is_a_number_and_an_empty_label_is_no_attribute() {
        let labels = vec![
            metrics::Label::new("http_response_status_code", "503"),
            metrics::Label::new("http_route", ""),
            metrics::Label::new("outcome", "success"),
        ];
        let key = Key::from_parts("any", labels);
        assert_eq!(
            attributes(&key),
            [
                KeyValue::new("http.response.status_code", 503),
                KeyValue::new("outcome", "success")
            ]
        );
    }
}
