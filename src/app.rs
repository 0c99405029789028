//! How do the parts become a service? Binds, starts, and stops in order.
//!
//! `main` makes an [`App`] of a configuration and runs it until told to stop. What always holds: the process listens at
//! once and waits for neither token nor Redis; every task has an owner here and ends before `run` returns; no wait is
//! unbounded.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use axum::Router;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    config::{Auth, Config},
    http::{self, Context, Limits, RedisCheck, Server},
    identity::{self, AzureCredential},
    lifecycle::{Lifecycle, Phase},
    redis::{self, Pool},
    telemetry::{self, LogFilter, Metrics, Telemetry},
};

/// Background tasks only sleep or wait: they end at once.
const TASKS_LIMIT: Duration = Duration::from_secs(1);
/// Connections close when what was sent on them is answered.
const POOL_LIMIT: Duration = Duration::from_secs(1);

/// Installs the recorder with everything that the service measures; with a `telemetry` that exports metrics, they leave
/// by that way too.
///
/// # Errors
/// Another recorder was installed in this process by somebody else.
pub fn install_metrics(telemetry: Option<&Telemetry>) -> Result<Metrics, telemetry::MetricsError> {
    let buckets = [
        http::instruments::BUCKETS,
        identity::instruments::BUCKETS,
        redis::instruments::BUCKETS,
    ];
    let metrics = Metrics::install(telemetry, buckets.into_iter().flatten())?;
    http::instruments::describe();
    identity::instruments::describe();
    redis::instruments::describe();
    Ok(metrics)
}

/// Why the service could not start or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listener cannot be bound.
    #[error("cannot listen on {address}, as {variable} says")]
    Bind {
        /// Which says so: `PORT` or `ADMIN_PORT`.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The credential cannot be set up.
    #[error("cannot set up the credential")]
    Credential(#[from] identity::Error),
    /// The pool cannot be set up.
    #[error("cannot set up the pool")]
    Pool(#[from] redis::BuildError),
    /// A task that must outlive the service ended: a bug.
    #[error("a task that must not end has ended")]
    TaskEnded,
}

/// The service, put together and bound, not started.
pub struct App {
    config: Config,
    metrics: Metrics,
    public: Server,
    admin: Option<Server>,
    routes: Router<Pool>,
    log_filter: Option<LogFilter>,
}

impl App {
    /// Binds the listeners; nothing is served and nothing is asked until [`App::run`].
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

    /// Lets this machine change what is logged while the service runs, on the admin port.
    pub fn log_filter(mut self, filter: LogFilter) -> Self {
        self.log_filter = Some(filter);
        self
    }

    /// Adds routes of your own to the public listener; they get the same limits, layers and errors, and the pool as their
    /// state. With [`http::Problem`] as a handler's error, `?` on the pool's answers what `/sample` would.
    ///
    /// ```
    /// use axum::{Router, extract::State, routing::post};
    /// use entra_redis::{http::Problem, redis::Pool};
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
    /// A path is there already among those that were added before.
    pub fn routes(mut self, routes: Router<Pool>) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Where the public listener is.
    pub fn public_address(&self) -> SocketAddr {
        self.public.address()
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Server::address)
    }

    /// Serves until `stop`, then stops in order: not ready, wait for load balancers to notice, accept no more, finish
    /// open requests, stop the tasks, close the pool.
    ///
    /// # Errors
    /// TLS or the credential cannot be set up, or a task that must not end did.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let Self {
            config,
            metrics,
            public,
            admin,
            routes,
            log_filter,
        } = self;
        let mut pool = Pool::from_config(config.redis.clone());
        if config.redis.auth == Auth::Entra {
            pool = pool.token_source(Arc::new(AzureCredential::new(config.identity.clone())?));
        }
        let pool = pool.build()?;
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let lifecycle = Lifecycle::default();
        let (check, redis) = RedisCheck::new(pool.clone());

        let tasks = TaskTracker::new();
        let stop_tasks = CancellationToken::new();
        let task_ended = CancellationToken::new();
        let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let guard = task_ended.clone().drop_guard();
            tasks.spawn(stop_tasks.clone().run_until_cancelled_owned(async move {
                let _guard = guard;
                task.await;
            }));
        };
        spawn(Box::pin(async move { match check.run().await {} }));
        let upkeep = metrics.clone().upkeep();
        spawn(Box::pin(async move { match upkeep.await {} }));

        let routers = http::routers(
            Arc::new(Context {
                pool: pool.clone(),
                sample_key: config.sample.key.clone(),
                lifecycle: lifecycle.clone(),
                redis,
                metrics,
                visits: AtomicU64::new(0),
                log_filter,
            }),
            &Limits {
                timeout: config.http.request_timeout,
                concurrency: config.http.max_concurrent_requests,
            },
            admin.is_some(),
            routes.with_state(pool.clone()),
        );
        info!(
            server.address = %public.address(),
            admin.address = admin.as_ref().map(|admin| admin.address().to_string()),
            redis.endpoint = %config.redis.endpoint,
            "listening"
        );
        // Probes go on until requests have ended; the admin listener closes after the public one.
        let accept_no_more = CancellationToken::new();
        let serve = |server: Server, router, stop: &CancellationToken| {
            let guard = task_ended.clone().drop_guard();
            let stop = stop.clone().cancelled_owned();
            tokio::spawn(async move {
                let _guard = guard;
                server.run(router, stop).await;
            })
        };
        let public = serve(public, routers.public, &accept_no_more);
        let end_admin = CancellationToken::new();
        let admin = admin
            .zip(routers.admin)
            .map(|(server, router)| serve(server, router, &end_admin));
        lifecycle.enter(Phase::Serving);

        let ended_well = tokio::select! {
            () = stop => true,
            () = task_ended.cancelled() => false,
            () = pool.ended() => false,
        };
        lifecycle.enter(Phase::Draining);
        if ended_well {
            info!(drain.delay_s = config.drain.delay.as_secs_f64(), "draining");
            tokio::time::sleep(config.drain.delay).await;
        }
        accept_no_more.cancel();
        let public_abort = public.abort_handle();
        if timeout(config.drain.timeout, public).await.is_err() {
            warn!("requests were still open at the end of DRAIN_TIMEOUT and are given up");
            public_abort.abort();
        }
        end_admin.cancel();
        stop_tasks.cancel();
        tasks.close();
        let rest = async {
            if let Some(admin) = admin {
                let abort = admin.abort_handle();
                if timeout(TASKS_LIMIT / 2, admin).await.is_err() {
                    abort.abort();
                }
            }
            tasks.wait().await;
        };
        if timeout(TASKS_LIMIT, rest).await.is_err() {
            warn!("a background task did not end in time");
        }
        if timeout(POOL_LIMIT, pool.close()).await.is_err() {
            warn!("connections to Redis were still busy and are given up");
        }
        match ended_well {
            true => {
                info!("stopped");
                Ok(())
            }
            false => Err(Error::TaskEnded),
        }
    }
}
