//! Puts a pool together and starts its tasks.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connector::{Connector, Credentials},
    maintainer::{Availability, Ending, Maintainer, Shared},
    manager::{Manager, Objects},
    pool::{Inner, OPERATIONS, Pool},
};
use crate::{
    config::{self, Auth},
    identity::{Refresher, TokenSource},
    secret::Secret,
    tls,
};

/// Puts a [`Pool`] together.
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    config: config::Redis,
    source: Option<Arc<dyn TokenSource>>,
}

impl Builder {
    pub(super) fn new(config: config::Redis) -> Self {
        Self {
            config,
            source: None,
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
    pub fn ca_file(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.config.ca_file = Some(path.into());
        self
    }

    /// Connects without TLS. Refused together with tokens, which never travel in the clear.
    pub fn plain_text(mut self) -> Self {
        self.config.tls = false;
        self
    }

    /// Shared connections, 1 to 256; default 2. A number outside is taken as the nearest inside.
    pub fn size(mut self, connections: usize) -> Self {
        self.config.pool_size = connections.clamp(1, 256);
        self
    }

    /// Limit for TCP, TLS and sign-in of one connection together; default 5 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.config.connect_timeout = limit;
        self
    }

    /// Limit for one command; default 1 s.
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
        let Self { config, source } = self;
        if !config.tls && config.auth == Auth::Entra {
            return Err(BuildError::TokenInTheClear);
        }
        let tls = match config.tls {
            true => Some(Arc::new(tls::client_config(
                &config.roots,
                config.ca_file.as_deref(),
            )?)),
            false => None,
        };
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let tasks = TaskTracker::new();
        let attention = Arc::new(Notify::new());

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
        let connector = Connector {
            endpoint: config.endpoint.clone(),
            tls,
            credentials,
            connect_timeout: config.connect_timeout,
            command_timeout: config.command_timeout,
            tasks: tasks.clone(),
            attention: attention.clone(),
        };
        let objects = Objects::builder(Manager(connector))
            .max_size(config.pool_size)
            .build()
            .expect("deadpool refuses time-outs without a runtime, and none is set");
        let shared = Arc::new(Shared {
            open: ArcSwap::default(),
            availability: watch::Sender::new(Availability::Opening),
        });
        let maintainer = Maintainer {
            endpoint: config.endpoint,
            objects: objects.clone(),
            size: config.pool_size,
            shared: shared.clone(),
            attention,
            tokens: tokens.clone(),
        };
        let guard = ended.clone().drop_guard();
        let cancelled = stop.clone();
        let ending = Ending {
            shared: shared.clone(),
            objects,
        };
        tasks.spawn(async move {
            // In this order: first the maintainer ends, then what it published.
            let _guard = guard;
            let _ending = ending;
            cancelled.run_until_cancelled(maintainer.run()).await;
        });
        Ok(Pool(Arc::new(Inner {
            shared,
            size: config.pool_size,
            patience: config.command_timeout,
            next: AtomicUsize::new(0),
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
