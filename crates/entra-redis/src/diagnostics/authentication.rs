//! Authentication on a connection of a pool, and re-authentication on the same connection.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    Error, Fault,
    topology::{POLL_INTERVAL, poll},
};
use crate::{
    env::{self, Auth},
    identity::{self, AccessToken, TokenSource},
    pool::{Builder, ConnectError, ConnectStep, Error as PoolError, Pool},
};

/// The result of [`authenticate`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Authenticated {
    /// The way in which Redis knows the client.
    pub authentication: Authentication,
    /// A pool with an authenticated connection, for the steps that follow. It uses the given token until that expires, and
    /// no other.
    pub pool: Pool,
    /// Duration of the step: DNS, TCP and TLS of the connection included.
    pub duration: Duration,
}

/// The way in which Redis knows the client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authentication {
    /// As this user, by a token.
    User(String),
    /// As the default user, by the access key.
    AccessKey,
    /// As the default user; Redis requires no authentication.
    NotRequired,
}

/// Returns one token again and again: the one that the caller has looked at.
struct FixedToken(AccessToken);

#[async_trait]
impl TokenSource for FixedToken {
    fn name(&self) -> &'static str {
        "fixed"
    }

    async fn fetch(&self) -> Result<AccessToken, identity::Error> {
        Ok(self.0.clone())
    }
}

/// Builds a pool and waits until one of its connections is authenticated, at most `connect_timeout`.
///
/// `token` is the token to authenticate with; `None` where `auth` is an access key or none.
///
/// # Errors
/// The pool cannot be built, a connection cannot be opened, or Redis refuses the authentication or does not reply in time.
/// Dropping the future closes the pool.
pub async fn authenticate(
    config: &env::Redis,
    token: Option<AccessToken>,
) -> Result<Authenticated, Error> {
    let started = Instant::now();
    let authentication = match (&token, &config.auth) {
        (Some(token), _) => Authentication::User(token.username.clone()),
        (None, Auth::Key(_)) => Authentication::AccessKey,
        (None, _) => Authentication::NotRequired,
    };
    let mut builder = Builder::from(config.clone());
    if let Some(token) = token {
        builder = builder.token_source(Arc::new(FixedToken(token)));
    }
    let pool = builder.build()?;
    // The pool notices a timeout itself, and names the step: it gets a moment longer.
    let limit = config.connect_timeout + POLL_INTERVAL;
    let opened = poll(limit, async || is_open(&pool).await).await;
    opened.unwrap_or_else(|| {
        Err(ConnectError::TimedOut {
            step: ConnectStep::Authenticate,
            endpoint: config.endpoint.clone(),
            limit: config.connect_timeout,
        }
        .into())
    })?;
    Ok(Authenticated {
        authentication,
        pool,
        duration: started.elapsed(),
    })
}

/// Returns `None` while neither an open connection nor an error is known.
async fn is_open(pool: &Pool) -> Option<Result<(), Error>> {
    if pool.status().open > 0 {
        return Some(Ok(()));
    }
    let error = match pool.get().await {
        Ok(_) | Err(PoolError::Opening | PoolError::NoToken) => return None,
        Err(error) => Error::from(error),
    };
    match error.fault() {
        // The connection is authenticated: the clustering policy is another step.
        Fault::NotACluster | Fault::NoPrimary | Fault::ClusteringUndecided { .. } => Some(Ok(())),
        _ => Some(Err(error)),
    }
}

/// Authenticates once more on an open connection of `pool`, with the current token, as the pool does with each new token.
/// Does nothing without a token or an open connection.
///
/// # Errors
/// Redis refuses, or does not reply within `limit`. Dropping the future does not take back what was sent.
pub async fn reauthenticate(pool: &Pool, limit: Duration) -> Result<(), Error> {
    match pool.reauthenticate(limit).await {
        Err(PoolError::TimedOut(_)) => Err(Error::no_reply("AUTH", limit)),
        result => result.map_err(Error::from),
    }
}
