//! The service: its parts put together, started, and stopped in order.
//!
//! `main` makes an [`App`] of a configuration and runs it until it is asked to stop.
//!
//! # Invariants
//! - The process listens at once and waits for neither a token nor Redis.
//! - Every task has an owner here and stops before `run` returns.
//! - No wait is unbounded.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use axum::Router;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    config::{Auth, Config, Drain},
    http::{self, Context, Limits, RedisCheck, Server},
    lifecycle::{Lifecycle, Phase},
    telemetry::{self, LogFilter, Metrics, Telemetry},
};

use entra_redis::{
    identity::{self, AzureCredential},
    pool::{self, Pool},
};

/// Time for background tasks to stop: they only sleep or wait.
const TASKS_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the pool's connections to close: each does when what was sent on it is answered.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// Installs the recorder for everything that the service measures; with a `telemetry` that exports metrics, they are
/// exported too.
///
/// # Errors
/// Another recorder is installed in this process.
pub fn install_metrics(telemetry: Option<&Telemetry>) -> Result<Metrics, telemetry::MetricsError> {
    let buckets = [
        http::instruments::BUCKETS,
        identity::instruments::BUCKETS,
        pool::instruments::BUCKETS,
    ];
    let conventions = [
        http::instruments::CONVENTIONS,
        pool::instruments::CONVENTIONS,
    ];
    let metrics = Metrics::install(
        telemetry,
        buckets.into_iter().flatten(),
        conventions.into_iter().flatten(),
    )?;
    http::instruments::describe();
    identity::instruments::describe();
    pool::instruments::describe();
    Ok(metrics)
}

/// An error that keeps the service from starting, or stops it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listener cannot be bound.
    #[error("cannot listen on {address}, set by {variable}")]
    Bind {
        /// The variable that sets the address: `PORT` or `ADMIN_PORT`.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The credential cannot be set up.
    #[error("cannot set up the credential")]
    Credential(#[from] identity::Error),
    /// The pool cannot be set up.
    #[error("cannot set up the pool")]
    Pool(#[from] pool::BuildError),
    /// A task that must outlive the service exited: a bug.
    #[error("a background task exited unexpectedly")]
    TaskExited,
}

/// The service, bound and not started.
#[derive(Debug)]
pub struct App {
    config: Config,
    metrics: Metrics,
    public: Server,
    admin: Option<Server>,
    routes: Router<Pool>,
    log_filter: Option<LogFilter>,
}

impl App {
    /// Binds the listeners; nothing is served and no token requested until [`App::run`].
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn bind(config: Config, metrics: Metrics) -> Result<Self, Error> {
        let bind = async |variable, address| {
            Server::bind(address).await.map_err(|source| Error::Bind {
                variable,
                address,
                source,
            })
        };
        let public = bind("PORT", config.http.public).await?;
        let admin = match config.http.admin {
            // Some of its routes answer this machine only.
            Some(address) => Some(bind("ADMIN_PORT", address).await?.with_connect_info()),
            None => None,
        };
        Ok(Self {
            config,
            metrics,
            public,
            admin,
            routes: Router::new(),
            log_filter: None,
        })
    }

    /// Allows processes of this machine to change the log filter while the service runs, on the admin port.
    #[must_use]
    pub fn log_filter(mut self, filter: LogFilter) -> Self {
        self.log_filter = Some(filter);
        self
    }

    /// Adds routes of your own to the public listener; they get the same limits, layers and errors, and the pool as their
    /// state. With [`http::Problem`] as a handler's error, `?` on an error of the pool answers as `/sample` would.
    ///
    /// ```
    /// use axum::{Router, extract::State, routing::post};
    /// use entra_redis::pool::Pool;
    /// use entra_redis_service::http::Problem;
    ///
    /// async fn visit(State(pool): State<Pool>) -> Result<String, Problem> {
    ///     let visits: u64 = pool.query(redis::cmd("INCR").arg("visits")).await?;
    ///     Ok(visits.to_string())
    /// }
    ///
    /// let routes: Router<Pool> = Router::new().route("/visits", post(visit));
    /// ```
    ///
    /// # Panics
    /// A path was added before.
    #[must_use]
    pub fn routes(mut self, routes: Router<Pool>) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Returns the public listener's address.
    pub fn public_address(&self) -> SocketAddr {
        self.public.address()
    }

    /// Returns the admin listener's address, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Server::address)
    }

    /// Serves until `stop`, then stops in order: not ready, wait for load balancers to notice, accept no more, finish
    /// open requests, stop the tasks, close the pool.
    ///
    /// # Errors
    /// TLS or the credential cannot be set up, or a background task exited.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let running = self.build()?;
        let result = running.serve(stop).await;
        running.stop(result.is_ok()).await;
        result
    }

    /// Puts the parts together and starts them.
    fn build(self) -> Result<Running, Error> {
        let Self { config, .. } = self;
        let pool = pool(&config)?;
        for warning in &config.warnings {
            warn!(config.warning = %warning, "configuration warning");
        }
        info!(server.address = %config.redis.endpoint, "connecting to Redis");
        let lifecycle = Lifecycle::default();
        let tasks = Tasks::default();
        let (check, redis) = RedisCheck::new(pool.clone());
        tasks.spawn(check.run());
        tasks.spawn(self.metrics.clone().upkeep());
        let context = Context {
            pool: pool.clone(),
            sample_key: config.sample.key,
            clustering_policy: config.redis.clustering_policy,
            lifecycle: lifecycle.clone(),
            redis,
            metrics: self.metrics,
            visits: AtomicU64::new(0),
            started: Instant::now(),
            log_filter: self.log_filter,
        };
        let limits = Limits {
            timeout: config.http.request_timeout,
            concurrency: config.http.max_concurrent_requests,
        };
        let routes = self.routes.with_state(pool.clone());
        let routers = http::routers(Arc::new(context), &limits, self.admin.is_some(), routes);
        info!(
            server.address = %self.public.address(),
            admin.address = self.admin.as_ref().map(|admin| admin.address().to_string()),
            "listening"
        );
        let admin = self.admin.zip(routers.admin);
        Ok(Running {
            public: Listener::start(self.public, routers.public, &tasks),
            admin: admin.map(|(server, router)| Listener::start(server, router, &tasks)),
            drain: config.drain,
            pool,
            lifecycle,
            tasks,
        })
    }
}

/// Builds the pool with the credential that the configuration names.
fn pool(config: &Config) -> Result<Pool, Error> {
    let mut pool = entra_redis::pool::Builder::from(config.redis.clone());
    if config.redis.auth == Auth::Entra {
        pool = pool.token_source(Arc::new(AzureCredential::new(config.identity.clone())?));
    }
    Ok(pool.build()?)
}

/// The service while it runs.
struct Running {
    public: Listener,
    admin: Option<Listener>,
    drain: Drain,
    pool: Pool,
    lifecycle: Lifecycle,
    tasks: Tasks,
}

impl Running {
    /// Serves until `stop`, or until a task exits that must not.
    async fn serve(&self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        self.lifecycle.enter(Phase::Serving);
        tokio::select! {
            () = stop => Ok(()),
            () = self.tasks.exited.cancelled() => Err(Error::TaskExited),
            () = self.pool.ended() => Err(Error::TaskExited),
        }
    }

    /// Stops in order. Only a service that works waits until load balancers notice.
    async fn stop(self, works: bool) {
        self.lifecycle.enter(Phase::Draining);
        if works {
            let delay = self.drain.delay;
            info!(drain.delay_s = delay.as_secs_f64(), "draining");
            tokio::time::sleep(delay).await;
        }
        if !self.public.stop(self.drain.timeout).await {
            warn!(
                drain.timeout_s = self.drain.timeout.as_secs_f64(),
                "drain timeout reached; closing connections with open requests"
            );
        }
        // Probes are answered until the public listener has stopped.
        let rest = async {
            let admin = async {
                if let Some(admin) = self.admin {
                    admin.stop(TASKS_TIMEOUT / 2).await;
                }
            };
            tokio::join!(admin, self.tasks.stop());
        };
        if timeout(TASKS_TIMEOUT, rest).await.is_err() {
            warn!("a background task did not stop in time");
        }
        if timeout(POOL_TIMEOUT, self.pool.close()).await.is_err() {
            warn!("connections to Redis still busy; closing them");
        }
        if works {
            info!("stopped");
        }
    }
}

/// The tasks that must outlive the service.
#[derive(Default)]
struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Cancelled when a task exits.
    exited: CancellationToken,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = Infallible> + Send + 'static) {
        let guard = self.exited.clone().drop_guard();
        let task = async move {
            let _guard = guard;
            match task.await {}
        };
        let stop = self.stop.clone();
        self.tracker.spawn(stop.run_until_cancelled_owned(task));
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A server in a task of its own.
struct Listener {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Listener {
    /// Starts a server; an exit before [`Listener::stop`] is noticed as one of `tasks`.
    fn start(server: Server, router: Router, tasks: &Tasks) -> Self {
        let guard = tasks.exited.clone().drop_guard();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            let _guard = guard;
            server.run(router, stopped).await;
        });
        Self { task, stop }
    }

    /// Accepts no more connections and waits for open requests; returns whether they completed within `limit`.
    async fn stop(mut self, limit: Duration) -> bool {
        self.stop.cancel();
        let stopped = timeout(limit, &mut self.task).await.is_ok();
        if !stopped {
            self.task.abort();
        }
        stopped
    }
}
