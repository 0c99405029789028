//! Metrics by OTLP: a recorder that passes what is recorded to OpenTelemetry's meter.
//!
//! Installed only where metrics are exported. Of the crates that do this none keeps the histograms' bounds or gives the
//! conventions' names.
//!
//! Names: where OpenTelemetry's semantic conventions have one it is that (`http.server.request.duration`), by a table that
//! the modules bring; the others lose what Prometheus adds, `_total` and the unit, so that a back end that writes them the
//! Prometheus way (OpenTelemetry's "Prometheus compatibility") arrives at the name that is scraped. Units are seconds and
//! bytes either way.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use opentelemetry::{KeyValue, metrics::Meter};

/// The attribute that the conventions define as a number; labels are text.
const STATUS: &str = "http.response.status_code";

/// Names of metrics and labels as they are scraped, each with the name that OpenTelemetry's semantic conventions have.
#[derive(Debug, Clone, Default)]
struct Conventions(HashMap<&'static str, &'static str>);

impl Conventions {
    fn get(&self, scraped: &str) -> Option<&'static str> {
        self.0.get(scraped).copied()
    }

    /// Returns the name under which a metric is exported, and its unit.
    fn name(&self, scraped: &str) -> (String, &'static str) {
        let name = scraped.strip_suffix("_total").unwrap_or(scraped);
        let (name, unit) = match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
            (Some(name), _) => (name, "s"),
            (None, Some(name)) => (name, "By"),
            (None, None) => (name, ""),
        };
        (self.get(scraped).unwrap_or(name).to_owned(), unit)
    }

    /// Returns the attributes for a series' labels. An empty label, which Prometheus takes for none, is left out.
    fn attributes(&self, key: &Key) -> Vec<KeyValue> {
        let labels = key.labels().filter(|label| !label.value().is_empty());
        labels
            .map(|label| {
                let name = self.get(label.key());
                let name = name.map_or_else(|| label.key().to_owned(), str::to_owned);
                match label.value().parse::<i64>() {
                    Ok(status) if name == STATUS => KeyValue::new(name, status),
                    _ => KeyValue::new(name, label.value().to_owned()),
                }
            })
            .collect()
    }
}

/// Passes what is recorded to OpenTelemetry.
pub(super) struct Bridge {
    meter: Meter,
    conventions: Conventions,
    bounds: HashMap<String, Vec<f64>>,
    help: RwLock<HashMap<String, String>>,
    numbers: RwLock<HashMap<KeyName, Arc<Series>>>,
    histograms: RwLock<HashMap<Key, Arc<Recording>>>,
}

/// All series of one counter or gauge, read when they are exported.
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
        conventions: impl IntoIterator<Item = &'a (&'static str, &'static str)>,
    ) -> Self {
        let bounds = buckets.into_iter();
        Self {
            meter,
            conventions: Conventions(conventions.into_iter().copied().collect()),
            bounds: bounds
                .map(|(name, bounds)| ((*name).to_owned(), bounds.to_vec()))
                .collect(),
            help: RwLock::default(),
            numbers: RwLock::default(),
            histograms: RwLock::default(),
        }
    }

    fn describe(&self, name: &KeyName, help: SharedString) {
        let mut known = write(&self.help);
        known.insert(name.as_str().to_owned(), help.into_owned());
    }

    fn help(&self, name: &str) -> String {
        let known = read(&self.help);
        known.get(name).cloned().unwrap_or_default()
    }

    /// Returns the number of one series; the first series of a name makes the instrument.
    fn number(&self, key: &Key, kind: Kind) -> Arc<AtomicU64> {
        let name = KeyName::from(key.name().to_owned());
        let known = read(&self.numbers);
        let series = known.get(&name).cloned();
        drop(known);
        let series = series.unwrap_or_else(|| {
            let mut known = write(&self.numbers);
            let make = || self.instrument(key.name(), kind);
            known.entry(name).or_insert_with(make).clone()
        });
        let known = read(&series);
        if let Some((_, number)) = known.get(key) {
            return number.clone();
        }
        drop(known);
        let mut known = write(&series);
        let new = || (self.conventions.attributes(key), Arc::default());
        known.entry(key.clone()).or_insert_with(new).1.clone()
    }

    fn instrument(&self, scraped: &str, kind: Kind) -> Arc<Series> {
        let (name, unit) = self.conventions.name(scraped);
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
            // The conventions count open and active things by up-down counters.
            Kind::Gauge if self.conventions.get(scraped).is_some() => {
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
        let known = read(&self.histograms);
        if let Some(recording) = known.get(key) {
            return recording.clone();
        }
        drop(known);
        let (name, unit) = self.conventions.name(key.name());
        let builder = self.meter.f64_histogram(name).with_unit(unit);
        let mut builder = builder.with_description(self.help(key.name()));
        if let Some(bounds) = self.bounds.get(key.name()) {
            builder = builder.with_boundaries(bounds.clone());
        }
        // The SDK returns the same instrument for the same name.
        let recording = Arc::new(Recording {
            histogram: builder.build(),
            attributes: self.conventions.attributes(key),
        });
        let mut known = write(&self.histograms);
        known.entry(key.clone()).or_insert(recording).clone()
    }
}

/// Locks for reading. A panic elsewhere leaves a valid map.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing. A panic elsewhere leaves a valid map.
fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn for_each(series: &Series, mut observe: impl FnMut(u64, &[KeyValue])) {
    let series = read(series);
    for (attributes, number) in series.values() {
        observe(number.load(Ordering::Relaxed), attributes);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::instruments::CONVENTIONS;

    fn conventions() -> Conventions {
        Conventions(CONVENTIONS.iter().copied().collect())
    }

    #[test]
    fn names_are_the_conventions_or_ours_without_what_prometheus_adds() {
        let conventions = conventions();
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
            assert_eq!(conventions.name(scraped), (exported.to_owned(), unit));
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
            conventions().attributes(&key),
            [
                KeyValue::new("http.response.status_code", 503),
                KeyValue::new("outcome", "success")
            ]
        );
    }
}
