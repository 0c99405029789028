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
    maintainer::{Availability, Maintainer, Shared},
    manager::{Manager, Objects},
    pool::{Inner, OPERATIONS, Pool},
};
use crate::{
    config,
    identity::{Refresher, TokenSource},
    secret::Secret,
    tls,
};

/// How connections sign in.
pub enum SignIn {
    /// With tokens from this source, refreshed and renewed in place.
    Entra(Arc<dyn TokenSource>),
    /// With an access key, as the default user.
    Key(Secret),
    /// Not at all.
    None,
}

/// Puts a [`Pool`] together.
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    pub(super) config: config::Redis,
    pub(super) sign_in: SignIn,
}

impl Builder {
    /// How connections sign in; without it they do not.
    pub fn sign_in(mut self, sign_in: SignIn) -> Self {
        self.sign_in = sign_in;
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

    /// Shared connections, at least one; default 2.
    pub fn size(mut self, connections: usize) -> Self {
        self.config.pool_size = connections.max(1);
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
    /// TLS cannot be set up, or a token would travel in the clear.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Pool, BuildError> {
        let Self { config, sign_in } = self;
        if let (false, SignIn::Entra(_)) = (config.tls, &sign_in) {
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

        let (credentials, tokens) = match sign_in {
            SignIn::Entra(source) => {
                let (refresher, tokens) = Refresher::new(source);
                let guard = ended.clone().drop_guard();
                tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                    let _guard = guard;
                    refresher.run().await;
                }));
                (Credentials::Entra(tokens.clone()), Some(tokens))
            }
            SignIn::Key(key) => (Credentials::Key(key), None),
            SignIn::None => (Credentials::None, None),
        };
        let connector = Connector {
            endpoint: config.endpoint,
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
            objects: objects.clone(),
            size: config.pool_size,
            shared: shared.clone(),
            attention,
            tokens: tokens.clone(),
        };
        let guard = ended.clone().drop_guard();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            let _guard = guard;
            maintainer.run().await;
        }));
        Ok(Pool(Arc::new(Inner {
            shared,
            objects,
            size: config.pool_size,
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
    /// TLS is off and the sign-in is by token.
    #[error("a token never travels in the clear: sign in with tokens only over TLS")]
    TokenInTheClear,
}
