//! The builder of a pool: settings, their validation, the start of the tasks.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    handle::{Inner, Pool},
    measure::Durations,
    node::{
        NodeFactory, NodeRegistry,
        connector::{Access, Credentials},
    },
    policy,
    topology::Topology,
};
use crate::{
    env::{self, Auth, ClusteringPolicy},
    identity::{Refresher, TokenSource},
    secret::Secret,
    tls,
};

/// A builder of a [`Pool`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    config: env::Redis,
    source: Option<Arc<dyn TokenSource>>,
    ca_file: Option<PathBuf>,
}

/// A builder with these settings, such as those of [`env::Settings`]. If they ask for tokens, it still needs their source.
impl From<env::Redis> for Builder {
    fn from(config: env::Redis) -> Self {
        Self {
            config,
            source: None,
            ca_file: None,
        }
    }
}

impl Builder {
    /// Authenticates with tokens from this source, which is asked again before each token expires.
    pub fn token_source(mut self, source: Arc<dyn TokenSource>) -> Self {
        self.config.auth = Auth::Entra;
        self.source = Some(source);
        self
    }

    /// Authenticates with an access key, as the default user.
    pub fn access_key(mut self, key: Secret) -> Self {
        self.config.auth = Auth::Key(key);
        self
    }

    /// Does not authenticate.
    pub fn no_authentication(mut self) -> Self {
        self.config.auth = Auth::None;
        self
    }

    /// Trusts the certificate authorities in this PEM file in addition to the system's.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Connects without TLS. Not allowed together with tokens, which are never sent unencrypted.
    pub fn plain_text(mut self) -> Self {
        self.config.tls = false;
        self
    }

    /// Sets Azure's clustering policy; by default the server is asked.
    pub fn clustering_policy(mut self, policy: ClusteringPolicy) -> Self {
        self.config.clustering_policy = policy;
        self
    }

    /// Sets the number of shared connections (in a cluster: to each primary), 1 to 256; default 2. A number outside this range
    /// is replaced by the nearest bound.
    pub fn size(mut self, connections: usize) -> Self {
        self.config.pool_size = connections.clamp(1, 256);
        self
    }

    /// Sets the timeout for TCP, TLS and authentication of one connection together; default 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// Sets the timeout of one command, and of its wait for a connection; default 1 s.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.config.command_timeout = timeout;
        self
    }

    /// Starts the pool's tasks. Connections open in the background; nothing is waited for.
    ///
    /// # Errors
    /// TLS cannot be set up, a token would be sent unencrypted, or there is no source of tokens.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Pool, BuildError> {
        Ok(self.validate()?.start())
    }

    fn validate(self) -> Result<Validated, BuildError> {
        let config = self.config;
        if !config.tls && config.auth == Auth::Entra {
            return Err(BuildError::TokenInTheClear);
        }
        let tls = if config.tls {
            let named = self.ca_file.map(tls::CaCertificates::from_file);
            let named = named.transpose()?;
            let additional = named.as_ref().or(config.ca_file.as_ref());
            Some(Arc::new(tls::client_config(&config.roots, additional)?))
        } else {
            None
        };
        let (credentials, refresher) = match (&config.auth, self.source) {
            (Auth::Entra, Some(source)) => {
                let (refresher, tokens) = Refresher::new(source);
                (Credentials::Entra(tokens), Some(refresher))
            }
            (Auth::Entra, None) => return Err(BuildError::NoCredentials),
            (Auth::Key(key), _) => (Credentials::Key(key.clone()), None),
            (Auth::None, _) => (Credentials::None, None),
        };
        Ok(Validated {
            config,
            tls,
            credentials,
            refresher,
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("source", &self.source.as_ref().map(|source| source.name()))
            .finish_non_exhaustive()
    }
}

/// The parts of a pool that can be started without a failure.
struct Validated {
    config: env::Redis,
    tls: Option<Arc<ClientConfig>>,
    credentials: Credentials,
    refresher: Option<Refresher>,
}

impl Validated {
    fn start(self) -> Pool {
        let config = self.config;
        let tasks = Tasks::default();
        if let Some(refresher) = self.refresher {
            tasks.spawn(async move { match refresher.run().await {} });
        }
        let tokens = match &self.credentials {
            Credentials::Entra(tokens) => Some(tokens.clone()),
            Credentials::Key(_) | Credentials::None => None,
        };
        let access = Access {
            endpoint: config.endpoint.clone(),
            tls: self.tls,
            credentials: self.credentials,
            connect_timeout: config.connect_timeout,
            command_timeout: config.command_timeout,
            tasks: tasks.tracker.clone(),
        };
        let registry = Arc::<NodeRegistry>::default();
        let nodes = NodeFactory {
            access: Arc::new(access),
            size: config.pool_size,
            stop: tasks.stop.clone(),
            ended: tasks.ended.clone(),
            registry: registry.clone(),
        };
        let clustering = policy::configured(config.clustering_policy);
        // One connection is enough to detect the policy; in a cluster it stays as the way back to the endpoint.
        let connections = clustering.as_ref().map_or(1, |_| config.pool_size);
        let seed = nodes.start(config.endpoint, connections);
        let topology = Arc::new(Topology::new(seed.node.clone()));
        match clustering {
            Some(clustering) => topology.resolve(clustering, None),
            None => {
                let detected = topology.clone().detect(config.clustering_policy, nodes);
                let guard = tasks.ended.clone().drop_guard();
                let stop = tasks.stop.clone();
                tasks.tracker.spawn(async move {
                    stop.run_until_cancelled(detected).await;
                    guard.disarm(); // it may exit, but not panic
                });
            }
        }
        Pool(Arc::new(Inner {
            topology,
            _seed: seed,
            size: config.pool_size,
            registry,
            acquire_timeout: config.command_timeout,
            tokens,
            durations: Durations::default(),
            tasks: tasks.tracker,
            ended: tasks.ended,
            _stop: tasks.stop.clone().drop_guard(),
            stop: tasks.stop,
        }))
    }
}

/// The tasks of a pool.
#[derive(Default)]
struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Cancelled when a task exits that must not.
    ended: CancellationToken,
}

impl Tasks {
    /// Spawns a task that must not exit before the pool is stopped.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let guard = self.ended.clone().drop_guard();
        let stop = self.stop.clone();
        self.tracker
            .spawn(stop.run_until_cancelled_owned(async move {
                let _guard = guard;
                task.await;
            }));
    }
}

/// A failure to build a pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// TLS cannot be set up.
    #[error("cannot set up TLS for Redis")]
    Tls(#[from] tls::Error),
    /// There is no source of tokens, and no other authentication was chosen.
    #[error("no credentials: call `token_source`, `access_key` or `no_authentication`")]
    NoCredentials,
    /// Tokens were chosen together with `plain_text`.
    #[error("tokens require TLS: remove `plain_text`, or use `access_key` or `no_authentication`")]
    TokenInTheClear,
}
