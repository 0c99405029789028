//! Requests without a pause, counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::task::JoinSet;

/// Workers that ask one URL again and again, each on a connection of its own.
pub(crate) struct Load {
    workers: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Whether the server may stop listening.
    may_end: AtomicBool,
    good: AtomicU64,
    /// Failures by what was met.
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Load {
    pub(crate) fn start(url: &str, workers: usize) -> Self {
        let shared = Arc::<Shared>::default();
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
                    let met = match client.execute(request).await {
                        Ok(response) => {
                            let status = response.status();
                            match response.text().await {
                                Ok(_) if status == 200 => None,
                                Ok(body) => Some(format!("{status}: {body}")),
                                Err(error) => Some(format!("{status}, cut off: {error:?}")),
                            }
                        }
                        // Nobody listens any more: this was no accepted request.
                        Err(error)
                            if error.is_connect() && shared.may_end.load(Ordering::Relaxed) =>
                        {
                            return;
                        }
                        Err(error) => Some(format!("{error:?}")),
                    };
                    match met {
                        None => {
                            shared.good.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(met) => {
                            let mut failures = shared.failures.lock().expect("no panic while held");
                            *failures.entry(met).or_default() += 1;
                        }
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

    /// Ends it: good answers, and failures by what was met.
    pub(crate) async fn stop(mut self) -> (u64, BTreeMap<String, u64>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.workers.join_next().await.is_some() {}
        let failures = self.shared.failures.lock().expect("no panic while held");
        (self.good(), failures.clone())
    }
}
