//! HTTP requests without a pause, or at a pace, counted.

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

/// Workers that request one URL in a loop, each on a connection of its own.
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
    /// The body, or the error in its place.
    pub(crate) answer: String,
}

impl Failure {
    /// The last word of the problem's type, where there is one.
    pub(crate) fn problem(&self) -> Option<&str> {
        let (_, rest) = self.answer.split_once("\"urn:entra-redis:problem:")?;
        rest.split('"').next()
    }
}

/// The results of a [`Load`].
pub(crate) struct Record {
    pub(crate) good: u64,
    pub(crate) failures: Vec<Failure>,
    /// The durations of the good ones, in microseconds.
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
    /// Adds the results of another load.
    pub(crate) fn add(&mut self, other: &Self) {
        self.good += other.good;
        self.failures.extend_from_slice(&other.failures);
        let durations = self.durations.add(&other.durations);
        durations.expect("it resizes itself");
    }
}

struct Shared {
    stop: AtomicBool,
    /// The server may stop listening.
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
                    let answer = match client.execute(request).await {
                        Ok(response) => {
                            let status = response.status().as_u16();
                            match response.text().await {
                                Ok(_) if status == 200 => None,
                                Ok(body) => Some((status, body)),
                                Err(error) => Some((status, format!("cut off: {error:?}"))),
                            }
                        }
                        // Nothing listens any more: this was no accepted request.
                        Err(error)
                            if error.is_connect() && shared.may_end.load(Ordering::Relaxed) =>
                        {
                            return;
                        }
                        Err(error) => Some((0, format!("{error:?}"))),
                    };
                    shared.note(began, answer);
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                }
            });
        }
        load
    }

    /// From now on, a connection that cannot be opened is no failure.
    pub(crate) fn server_may_end(&self) {
        self.shared.may_end.store(true, Ordering::Relaxed);
    }

    /// Good answers so far.
    pub(crate) fn good(&self) -> u64 {
        self.shared.good.load(Ordering::Relaxed)
    }

    /// Returns whether any request has failed so far.
    pub(crate) fn has_failed(&self) -> bool {
        let failures = self
            .shared
            .failures
            .lock()
            .expect("no panic under the lock");
        !failures.is_empty()
    }

    /// Stops it. Returns the number of good answers, and the failures by their text.
    pub(crate) async fn stop(self) -> (u64, BTreeMap<String, u64>) {
        let record = self.end().await;
        let mut failures = BTreeMap::new();
        for failure in record.failures {
            let answer = format!("{}: {}", failure.status, failure.answer);
            *failures.entry(answer).or_default() += 1;
        }
        (record.good, failures)
    }

    /// Stops it and returns everything.
    pub(crate) async fn end(mut self) -> Record {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.workers.join_next().await.is_some() {}
        let lock = "no panic under the lock";
        Record {
            good: self.good(),
            failures: self.shared.failures.lock().expect(lock).clone(),
            durations: self.shared.durations.lock().expect(lock).clone(),
        }
    }
}

impl Shared {
    fn note(&self, began: Instant, answer: Option<(u16, String)>) {
        match answer {
            None => {
                self.good.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                let mut durations = self.durations.lock().expect("no panic under the lock");
                durations.record(took).expect("it resizes itself");
            }
            Some((status, answer)) => {
                let mut failures = self.failures.lock().expect("no panic under the lock");
                failures.push(Failure {
                    began,
                    ended: Instant::now(),
                    status,
                    answer,
                });
            }
        }
    }
}
