//! Opens one connection: resolve, dial, TLS and authenticate, within one timeout.

use std::{sync::Arc, time::Duration};

use futures_util::future::OptionFuture;
use redis::{
    AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::{
    super::error::{ConnectError, ConnectStep, Refusal},
    auth,
    connection::{CloseReason, ConnectionState, NodeConnection},
    reauth::{ReauthQueue, Reauthenticator},
    silence,
    transport::{dial, handshake, resolve},
};
use crate::{
    env::Endpoint,
    identity::{Token, Tokens},
    secret::Secret,
};

/// The settings that all connections of a pool share.
pub(in crate::pool) struct Access {
    /// The cache's endpoint. Certificates are checked against its name, also those of a cluster's nodes: Azure announces
    /// nodes by IP address, and they present the endpoint's certificate.
    pub(in crate::pool) endpoint: Endpoint,
    /// `None` without TLS.
    pub(in crate::pool) tls: Option<Arc<ClientConfig>>,
    pub(in crate::pool) credentials: Credentials,
    pub(in crate::pool) connect_timeout: Duration,
    pub(in crate::pool) command_timeout: Duration,
    /// Tracks all tasks of connections, so that closing the pool can wait for them.
    pub(in crate::pool) tasks: TaskTracker,
}

/// Opens connections to one node.
pub(super) struct Connector {
    pub(super) access: Arc<Access>,
    /// The address to dial: the endpoint itself, or the one that a cluster announced for its node.
    pub(super) address: Endpoint,
    /// Notified when a connection's state changes.
    pub(super) wake_maintainer: Arc<Notify>,
    /// Shared by the node's connections, which re-authenticate one at a time.
    pub(super) reauth_queue: Arc<ReauthQueue>,
}

/// The credentials that connections authenticate with.
pub(in crate::pool) enum Credentials {
    Entra(Tokens),
    Key(Secret),
    None,
}

impl Connector {
    /// Opens a connection that is authenticated with the newest token and re-authenticates itself with each later one.
    ///
    /// # Errors
    /// The step that failed and the reason. Without a live token nothing is tried. Dropping the future closes the socket.
    pub(super) async fn connect(&self) -> Result<NodeConnection, ConnectError> {
        let started = Instant::now();
        // The token comes first: without one there is no use in dialing.
        let (mut tokens, token) = self.newest_token()?;
        let resolving = resolve(&self.address);
        let addresses = self
            .within_timeout(started, ConnectStep::Resolve, resolving)
            .await?;
        let dialing = dial(&self.address, &addresses);
        let tcp = self
            .within_timeout(started, ConnectStep::Dial, dialing)
            .await?;
        let connection = match &self.access.tls {
            None => {
                let opening = self.open_session(tcp, token.as_deref());
                self.within_timeout(started, ConnectStep::Authenticate, opening)
                    .await?
            }
            Some(config) => {
                let handshake = handshake(&self.access.endpoint, &self.address, config, tcp);
                let stream = self
                    .within_timeout(started, ConnectStep::Tls, handshake)
                    .await?;
                // The handshake took time, in which the token may have expired or a newer one arrived.
                let token = match &mut tokens {
                    Some(tokens) => Some(tokens.newest().ok_or(ConnectError::NoToken)?),
                    None => token,
                };
                let opening = self.open_session(stream, token.as_deref());
                self.within_timeout(started, ConnectStep::Authenticate, opening)
                    .await?
            }
        };
        self.start_task(&connection, tokens);
        self.reauth_queue.restore();
        info!(
            server.address = %self.address,
            token.expires_in_s = connection.state.remaining().map(|left| left.as_secs()),
            "Redis connection opened"
        );
        Ok(connection)
    }

    /// Runs a step within the rest of the timeout that all steps share.
    async fn within_timeout<T>(
        &self,
        started: Instant,
        step: ConnectStep,
        work: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let limit = self.access.connect_timeout;
        let result = timeout(limit.saturating_sub(started.elapsed()), work).await;
        result.unwrap_or_else(|_| {
            Err(ConnectError::TimedOut {
                step,
                endpoint: self.address.clone(),
                limit,
            })
        })
    }

    /// Starts the task of an open connection: it detects a silent peer and re-authenticates.
    fn start_task(&self, connection: &NodeConnection, tokens: Option<Tokens>) {
        let NodeConnection { session, state } = connection;
        let watch = silence::watch(
            session.clone(),
            Arc::downgrade(state),
            state.unresponsive.clone(),
        );
        let reauthenticate = tokens.map(|tokens| {
            let reauthenticator = Reauthenticator {
                session: session.clone(),
                state: Arc::downgrade(state),
                tokens,
                address: self.address.clone(),
                timeout: self.access.connect_timeout,
                queue: self.reauth_queue.clone(),
            };
            reauthenticator.run()
        });
        let task = self.access.tasks.spawn(async move {
            tokio::join!(watch, OptionFuture::from(reauthenticate));
        });
        state.set_task(task.abort_handle());
    }

    fn newest_token(&self) -> Result<(Option<Tokens>, Option<Arc<Token>>), ConnectError> {
        match &self.access.credentials {
            Credentials::Entra(tokens) => {
                let mut tokens = tokens.clone();
                let token = tokens.newest().ok_or(ConnectError::NoToken)?;
                Ok((Some(tokens), Some(token)))
            }
            Credentials::Key(_) | Credentials::None => Ok((None, None)),
        }
    }

    /// Opens a Redis session over `stream` and authenticates it.
    async fn open_session<S>(
        &self,
        stream: S,
        token: Option<&Token>,
    ) -> Result<NodeConnection, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let auth = self.auth_command(token)?;
        // redis-rs gets no credentials: it would hide Redis' own words behind "Password authentication failed".
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config =
            AsyncConnectionConfig::new().set_response_timeout(Some(self.access.command_timeout));
        let (session, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| self.auth_error(&error))?;
        let state = Arc::new(ConnectionState::new(
            self.address.clone(),
            token,
            self.wake_maintainer.clone(),
        ));
        // The driver ends by itself once the last clone of the session is dropped. Its reference to the state is weak: the
        // state must be dropped with the connection's last user.
        let watched = Arc::downgrade(&state);
        self.access.tasks.spawn(async move {
            driver.await;
            if let Some(state) = watched.upgrade() {
                state.close(CloseReason::Lost);
            }
        });
        self.authenticate(session.clone(), auth)
            .await
            .map_err(|error| self.auth_error(&error))?;
        state.mark_opened();
        Ok(NodeConnection { session, state })
    }

    /// Returns the AUTH command for the pool's credentials; `None` without any.
    fn auth_command(&self, token: Option<&Token>) -> Result<Option<Cmd>, ConnectError> {
        match (&self.access.credentials, token) {
            (Credentials::Entra(_), Some(token)) => Ok(Some(auth::auth_with_token(token))),
            (Credentials::Entra(_), None) => Err(ConnectError::NoToken),
            (Credentials::Key(key), _) => Ok(Some(auth::auth_with_key(key))),
            (Credentials::None, _) => Ok(None),
        }
    }

    async fn authenticate(
        &self,
        mut session: MultiplexedConnection,
        auth: Option<Cmd>,
    ) -> RedisResult<()> {
        if let Some(auth) = auth {
            let (address, timeout) = (&self.address, self.access.connect_timeout);
            let answer =
                auth::authenticate(session.clone(), address, &auth, "connect", timeout).await;
            if let (Err(error), Credentials::Entra(tokens)) = (&answer, &self.access.credentials)
                && error.code() == Some("WRONGPASS")
            {
                tokens.report_rejected();
            }
            answer?;
        } else {
            requires_no_auth(&mut session).await?;
        }
        set_client_name(&mut session).await
    }

    fn auth_error(&self, error: &RedisError) -> ConnectError {
        ConnectError::Authenticate {
            endpoint: self.address.clone(),
            source: Refusal::from(error),
        }
    }
}

/// Checks that Redis requires no authentication: otherwise each command would fail with NOAUTH on a connection that seems
/// open.
async fn requires_no_auth(session: &mut MultiplexedConnection) -> RedisResult<()> {
    match session.send_packed_command(&redis::cmd("PING")).await? {
        redis::Value::ServerError(error) if error.code() == "NOAUTH" => Err(error.into()),
        _ => Ok(()),
    }
}

/// Sets the client's name and version, for `CLIENT LIST`. The error reply of servers before 7.2, which do not know the
/// command, is ignored; a lost connection is not.
async fn set_client_name(session: &mut MultiplexedConnection) -> RedisResult<()> {
    let attributes = [
        ("LIB-NAME", env!("CARGO_PKG_NAME")),
        ("LIB-VER", env!("CARGO_PKG_VERSION")),
    ];
    for (attribute, value) in attributes {
        let mut command = redis::cmd("CLIENT");
        command.arg("SETINFO").arg(attribute).arg(value);
        session.send_packed_command(&command).await?; // an error reply is an `Ok` value
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::sleep;

    use super::*;

    fn endpoint(address: SocketAddr) -> Endpoint {
        address.to_string().parse().expect("an endpoint")
    }

    fn connector(address: SocketAddr, connect_timeout: Duration) -> Connector {
        Connector {
            access: Arc::new(Access {
                endpoint: endpoint(address),
                tls: None,
                credentials: Credentials::None,
                connect_timeout,
                command_timeout: Duration::from_secs(60),
                tasks: TaskTracker::new(),
            }),
            address: endpoint(address),
            wake_maintainer: Arc::default(),
            reauth_queue: Arc::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_steps_share_one_timeout() {
        let limit = Duration::from_secs(5);
        let connector = connector(([127, 0, 0, 1], 6379).into(), limit);
        let started = Instant::now();
        let step = async |step, seconds| {
            let work = async {
                sleep(Duration::from_secs(seconds)).await;
                Ok(())
            };
            connector.within_timeout(started, step, work).await
        };
        assert!(step(ConnectStep::Resolve, 3).await.is_ok());
        let error = step(ConnectStep::Dial, 3).await;
        let is_named = matches!(
            error,
            Err(ConnectError::TimedOut { step: ConnectStep::Dial, limit: of_all, .. }) if of_all == limit
        );
        assert!(is_named, "{error:?}");
        assert_eq!(started.elapsed(), limit);
    }

    #[tokio::test]
    async fn a_server_that_does_not_respond_is_an_authentication_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let limit = Duration::from_millis(300);
        let error = connector(address, limit).connect().await;
        let is_named = matches!(
            error,
            Err(ConnectError::TimedOut {
                step: ConnectStep::Authenticate,
                ..
            })
        );
        assert!(is_named, "{error:?}");
    }
}
