//! Requests without a pause, or at a pace, counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Workers that ask one URL again and again, each on a connection of its own.
pub(crate) struct Load {
    workers: JoinSet<()>,
    shared: Arc<Shared>,
}

/// A request that was not answered 200.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// 0 where there was no answer.
    pub(crate) status: u16,
    /// The answer, or what came in its place.
    pub(crate) met: String,
}

impl Failure {
    /// The last word of the problem's type, where it was told.
    pub(crate) fn problem(&self) -> Option<&str> {
        let (_, rest) = self.met.split_once("\"urn:entra-redis:problem:")?;
        rest.split('"').next()
    }
}

/// What became of a [`Load`].
pub(crate) struct Record {
    pub(crate) good: u64,
    pub(crate) failures: Vec<Failure>,
    /// How long the good ones took, in microseconds.
    pub(crate) durations: Histogram<u64>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            good: 0,
            failures: Vec::new(),
            durations: Histogram::new(3).expect("three digits are allowed"),
        }
    }
}

impl Record {
    /// Adds what became of another load.
    pub(crate) fn add(&mut self, other: &Self) {
        self.good += other.good;
        self.failures.extend_from_slice(&other.failures);
        let durations = self.durations.add(&other.durations);
        durations.expect("it resizes itself");
    }
}

struct Shared {
    stop: AtomicBool,
    /// Whether the server may stop listening.
    may_end: AtomicBool,
    good: AtomicU64,
    failures: Mutex<Vec<Failure>>,
    durations: Mutex<Histogram<u64>>,
}

impl Load {
    pub(crate) fn start(url: &str, workers: usize) -> Self {
        Self::paced(url, workers, Duration::ZERO)
    }

    /// Each worker waits this long before its next request.
    pub(crate) fn paced(url: &str, workers: usize, pause: Duration) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            may_end: AtomicBool::new(false),
            good: AtomicU64::new(0),
            failures: Mutex::default(),
            durations: Mutex::new(Histogram::new(3).expect("three digits are allowed")),
        });
        let mut load = Self {
            workers: JoinSet::new(),
            shared: shared.clone(),
        };
        let request = super::service::client()
            .get(url)
            .build()
            .expect("it is a URL");
        for _ in 0..workers {
            let shared = shared.clone();
            let client = super::service::client();
            let request = request.try_clone().expect("it has no body");
            load.workers.spawn(async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    let request = request.try_clone().expect("it has no body");
                    let began = Instant::now();
                    let met = match client.execute(request).await {
                        Ok(response) => {
                            let status = response.status().as_u16();
                            match response.text().await {
                                Ok(_) if status == 200 => None,
                                Ok(body) => Some((status, body)),
                                Err(error) => Some((status, format!("cut off: {error:?}"))),
                            }
                        }
                        // Nobody listens any more: this was no accepted request.
                        Err(error)
                            if error.is_connect() && shared.may_end.load(Ordering::Relaxed) =>
                        {
                            return;
                        }
                        Err(error) => Some((0, format!("{error:?}"))),
                    };
                    shared.note(began, met);
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                }
            });
        }
        load
    }

    /// From now on, that no connection can be opened is no failure.
    pub(crate) fn server_may_end(&self) {
        self.shared.may_end.store(true, Ordering::Relaxed);
    }

    /// Good answers so far.
    pub(crate) fn good(&self) -> u64 {
        self.shared.good.load(Ordering::Relaxed)
    }

    /// Whether any request has failed so far.
    pub(crate) fn has_failed(&self) -> bool {
        let failures = self.shared.failures.lock().expect("no panic while held");
        !failures.is_empty()
    }

    /// Ends it: good answers, and failures by what was met.
    pub(crate) async fn stop(self) -> (u64, BTreeMap<String, u64>) {
        let record = self.end().await;
        let mut failures = BTreeMap::new();
        for failure in record.failures {
            let met = format!("{}: {}", failure.status, failure.met);
            *failures.entry(met).or_default() += 1;
        }
        (record.good, failures)
    }

    /// Ends it and tells everything.
    pub(crate) async fn end(mut self) -> Record {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.workers.join_next().await.is_some() {}
        let lock = "no panic while held";
        Record {
            good: self.good(),
            failures: self.shared.failures.lock().expect(lock).clone(),
            durations: self.shared.durations.lock().expect(lock).clone(),
        }
    }
}

impl Shared {
    fn note(&self, began: Instant, met: Option<(u16, String)>) {
        match met {
            None => {
                self.good.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                let mut durations = self.durations.lock().expect("no panic while held");
                durations.record(took).expect("it resizes itself");
            }
            Some((status, met)) => {
                let mut failures = self.failures.lock().expect("no panic while held");
                failures.push(Failure {
                    began,
                    ended: Instant::now(),
                    status,
                    met,
                });
            }
        }
    }
}
