//! Puts a pool together and starts its tasks.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    handle::{Inner, OPERATIONS, Pool, Site},
    node::{
        NodeFactory, NodeRegistry,
        connector::{Access, Credentials},
    },
    policy,
};
use crate::{
    config::{self, Auth, ClusteringPolicy},
    identity::{Refresher, TokenSource},
    secret::Secret,
    tls,
};

/// Puts a [`Pool`] together.
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    config: config::Redis,
    source: Option<Arc<dyn TokenSource>>,
    ca_file: Option<PathBuf>,
}

impl Builder {
    pub(super) fn new(config: config::Redis) -> Self {
        Self {
            config,
            source: None,
            ca_file: None,
        }
    }

    /// Signs in with tokens from this source, refreshed and renewed in place.
    pub fn token_source(mut self, source: Arc<dyn TokenSource>) -> Self {
        self.config.auth = Auth::Entra;
        self.source = Some(source);
        self
    }

    /// Signs in with an access key, as the default user.
    pub fn access_key(mut self, key: Secret) -> Self {
        self.config.auth = Auth::Key(key);
        self
    }

    /// Does not sign in.
    pub fn no_sign_in(mut self) -> Self {
        self.config.auth = Auth::None;
        self
    }

    /// A PEM file of certificate authorities to trust in addition to the system's.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Connects without TLS. Refused together with tokens, which never travel in the clear.
    pub fn plain_text(mut self) -> Self {
        self.config.tls = false;
        self
    }

    /// Azure's clustering policy; by default the server is asked.
    pub fn clustering_policy(mut self, policy: ClusteringPolicy) -> Self {
        self.config.clustering_policy = policy;
        self
    }

    /// Shared connections, with a cluster to each of its masters, 1 to 256; default 2. A number outside is taken as the
    /// nearest inside.
    pub fn size(mut self, connections: usize) -> Self {
        self.config.pool_size = connections.clamp(1, 256);
        self
    }

    /// Limit for TCP, TLS and sign-in of one connection together; default 5 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.config.connect_timeout = limit;
        self
    }

    /// Limit for one command, and for how long it waits to be sent; default 1 s.
    pub fn command_timeout(mut self, limit: Duration) -> Self {
        self.config.command_timeout = limit;
        self
    }

    /// Starts the pool's tasks; connections open in the background, nothing is waited for.
    ///
    /// # Errors
    /// TLS cannot be set up, a token would travel in the clear, or tokens are to be used and nobody was named who has
    /// them.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Pool, BuildError> {
        let Self {
            config,
            source,
            ca_file,
        } = self;
        if !config.tls && config.auth == Auth::Entra {
            return Err(BuildError::TokenInTheClear);
        }
        let tls = match config.tls {
            true => {
                let named = ca_file.map(tls::CaCertificates::from_file).transpose()?;
                let additional = named.as_ref().or(config.ca_file.as_ref());
                Some(Arc::new(tls::client_config(&config.roots, additional)?))
            }
            false => None,
        };
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let tasks = TaskTracker::new();

        let (credentials, tokens) = match (config.auth, source) {
            (Auth::Entra, Some(source)) => {
                let (refresher, tokens) = Refresher::new(source);
                let guard = ended.clone().drop_guard();
                tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                    let _guard = guard;
                    refresher.run().await;
                }));
                (Credentials::Entra(tokens.clone()), Some(tokens))
            }
            (Auth::Entra, None) => return Err(BuildError::NoTokenSource),
            (Auth::Key(key), _) => (Credentials::Key(key), None),
            (Auth::None, _) => (Credentials::None, None),
        };
        let access = Access {
            endpoint: config.endpoint.clone(),
            tls,
            credentials,
            connect_timeout: config.connect_timeout,
            command_timeout: config.command_timeout,
            tasks: tasks.clone(),
        };
        let census = Arc::<NodeRegistry>::default();
        let nodes = NodeFactory {
            access: Arc::new(access),
            size: config.pool_size,
            stop: stop.clone(),
            ended: ended.clone(),
            registry: census.clone(),
        };
        let clustering = policy::configured(config.clustering_policy);
        // One is enough to ask the server who it is; should it be a cluster, that one stays as the way back to it.
        let seed = nodes.start(
            config.endpoint,
            match clustering {
                Some(_) => config.pool_size,
                None => 1,
            },
        );
        let site = Arc::new(Site::new(seed.node.clone()));
        match clustering {
            Some(clustering) => site.settle(clustering, None),
            None => {
                let settled = site.clone().settling(config.clustering_policy, nodes);
                let guard = ended.clone().drop_guard();
                let stop = stop.clone();
                tasks.spawn(async move {
                    stop.run_until_cancelled(settled).await;
                    guard.disarm(); // only a panic is a fault
                });
            }
        }
        Ok(Pool(Arc::new(Inner {
            site,
            _seed: seed,
            size: config.pool_size,
            census,
            patience: config.command_timeout,
            tokens,
            durations: [const { OnceLock::new() }; OPERATIONS.len()],
            tasks,
            ended,
            _stop: stop.clone().drop_guard(),
            stop,
        })))
    }
}

/// Why a pool could not be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// TLS cannot be set up.
    #[error("cannot set up TLS for Redis")]
    Tls(#[from] tls::Error),
    /// Sign-in is by token and no source of tokens was given.
    #[error("no token source: name one, or sign in with an access key or not at all")]
    NoTokenSource,
    /// TLS is off and the sign-in is by token.
    #[error("a token never travels in the clear: sign in with tokens only over TLS")]
    TokenInTheClear,
}
