//! Commands without a pause on many keys, each accounted for in a ledger.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use entra_redis::pool::{Error, Pool};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Workers that increment `KEYS` keys in turn, which cover the slots of all nodes of a cluster.
pub(crate) struct IncrementLoad {
    pool: Pool,
    workers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    ledger: Arc<Mutex<Ledger>>,
}

/// The results of the commands.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) good: u64,
    pub(crate) failures: Vec<Failure>,
    /// Per key: commands answered, and commands sent without a reply.
    keys: BTreeMap<usize, (u64, u64)>,
}

/// A command that was not answered with a number.
pub(crate) struct Failure {
    pub(crate) began: Instant,
    pub(crate) error: Error,
}

const KEYS: usize = 300;

impl IncrementLoad {
    pub(crate) fn start(pool: &Pool, workers: usize) -> Self {
        let (stop, ledger) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Ledger>>::default(),
        );
        let mut traffic = Self {
            pool: pool.clone(),
            workers: JoinSet::new(),
            stop: stop.clone(),
            ledger: ledger.clone(),
        };
        for worker in 0..workers {
            let (pool, stop, ledger) = (pool.clone(), stop.clone(), ledger.clone());
            traffic.workers.spawn(async move {
                for turn in worker * 37.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = turn % KEYS;
                    let began = Instant::now();
                    let result = pool.query::<u64>(redis::cmd("INCR").arg(name(key))).await;
                    let mut ledger = ledger.lock().expect("no panic under the lock");
                    let (counted, unknown) = ledger.keys.entry(key).or_default();
                    match result {
                        Ok(_) => {
                            *counted += 1;
                            ledger.good += 1;
                        }
                        Err(error) => {
                            if matches!(error, Error::OutcomeUnknown(_) | Error::TimedOut(_)) {
                                *unknown += 1;
                            }
                            ledger.failures.push(Failure { began, error });
                        }
                    }
                }
            });
        }
        traffic
    }

    /// Good answers so far.
    pub(crate) fn good(&self) -> u64 {
        self.ledger.lock().expect("no panic under the lock").good
    }

    /// Stops it and checks the keys: each was incremented once for each reply, and never twice for a command whose
    /// reply was lost.
    pub(crate) async fn stop(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker.expect("no panic");
        }
        let ledger = std::mem::take(&mut *self.ledger.lock().expect("no panic under the lock"));
        for (key, (counted, unknown)) in &ledger.keys {
            let value: u64 = self
                .pool
                .query_idempotent::<Option<u64>>(redis::cmd("GET").arg(name(*key)))
                .await
                .expect("Redis answers again")
                .unwrap_or(0);
            assert!(
                (*counted..=counted + unknown).contains(&value),
                "{key}: {value}, {counted} answered, {unknown} unknown"
            );
        }
        ledger
    }
}

impl Ledger {
    /// Failures by their text.
    pub(crate) fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for failure in &self.failures {
            *kinds.entry(format!("{:?}", failure.error)).or_default() += 1;
        }
        kinds
    }
}

fn name(key: usize) -> String {
    format!("visits:{key}")
}

/// Workers that read keys without a pause: idempotent commands, none of which may fail.
pub(crate) struct ReadLoad {
    workers: JoinSet<Result<u64, Error>>,
    stop: CancellationToken,
}

impl ReadLoad {
    pub(crate) fn start(pool: &Pool, workers: usize) -> Self {
        let stop = CancellationToken::new();
        let mut readers = Self {
            workers: JoinSet::new(),
            stop: stop.clone(),
        };
        for worker in 0..workers {
            let (pool, stop) = (pool.clone(), stop.clone());
            readers.workers.spawn(async move {
                let mut answers = 0;
                for turn in worker * 37.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    let mut get = redis::cmd("GET");
                    get.arg(name(turn % KEYS));
                    pool.query_idempotent::<Option<u64>>(&get).await?;
                    answers += 1;
                }
                Ok(answers)
            });
        }
        readers
    }

    /// Stops them: each got replies, and no error.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(worker) = self.workers.join_next().await {
            let answers = worker.expect("no panic").expect("no request fails");
            assert!(answers > 0);
        }
    }
}
