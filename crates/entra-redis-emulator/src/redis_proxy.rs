//! Azure's proxy before Redis: TLS, authentication by token, and connections that are closed when their token expires.
//!
//! [`connection`] serves one client, at the endpoint or at a node of a cluster. Here bytes move between the client,
//! [`AuthGate`], which decides about each command, and a real Redis server if there is one (one plain connection for each
//! client).
//!
//! # Invariants
//!
//! - No connection outlives its token.
//! - Reading never waits for writing, so that a pipeline of any length works.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::ClusteringPolicy;
use crate::control::{Controls, RedisFault};
use crate::entra::token::Signer;
use crate::store::Store;
use auth_gate::AuthGate;
use nodes::Nodes;

mod addresses;
mod auth_gate;
pub(crate) mod nodes;
mod reply_order;

/// Timeout for connecting to the server, and for the client's TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for the replies that a leaving client has not been sent yet, and for the end of TLS.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Buffer space for each read: two TLS records.
const READ_SIZE: usize = 32 * 1024;

/// Limit of bytes not sent to the server yet, above which the client is not read from. The server's replies always are.
const UNSENT_LIMIT: usize = 1024 * 1024;

/// The state that all connections share.
pub(crate) struct RedisProxy {
    pub(crate) signer: Arc<Signer>,
    pub(crate) controls: Controls,
    pub(crate) tls: Arc<ServerConfig>,
    /// The real server's `host:port`; `None` for the store.
    pub(crate) redis: Option<String>,
    /// The other servers, if the real one is a node of a cluster.
    pub(crate) nodes: Nodes,
    pub(crate) store: Arc<Store>,
    pub(crate) clustering_policy: ClusteringPolicy,
}

/// A reason for closing a connection.
#[derive(Debug, thiserror::Error)]
enum CloseReason {
    #[error("the token expired")]
    Expired,
    #[error("closed by a fault or the end of the emulator")]
    Requested,
    #[error("closed by the client")]
    ByClient,
    #[error("no Redis server is reachable")]
    NoServer,
    #[error("closed by the Redis server")]
    ByServer,
    #[error("malformed reply from the Redis server")]
    MalformedReply,
    #[error("timed out")]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves one client of `node` (`host:port`), or of the endpoint, until it leaves, its token expires, the server closes the
/// connection, or `shutdown` or `Controls` does.
pub(crate) async fn connection(
    proxy: Arc<RedisProxy>,
    socket: TcpStream,
    node: Option<String>,
    shutdown: CancellationToken,
) {
    if proxy.controls.redis() == RedisFault::Refuse {
        return;
    }
    let server = node.clone().or_else(|| proxy.redis.clone());
    let mut disconnects = proxy.controls.disconnects();
    let requested = async {
        tokio::select! {
            _ = disconnects.changed() => {}
            () = shutdown.cancelled() => {}
        }
    };
    tokio::pin!(requested);
    let opened = tokio::select! {
        opened = open(&proxy, socket, node) => opened,
        () = &mut requested => Err(CloseReason::Requested),
    };
    let end = match opened {
        Err(end) => end,
        Ok((client, server)) => {
            let (mut input, mut output) = tokio::io::split(client);
            let end = tokio::select! {
                end = relay(&proxy, &mut input, &mut output, server) => end.err().unwrap_or(CloseReason::ByClient),
                () = requested => CloseReason::Requested,
            };
            // The result does not matter any more: the peer may be gone, or not read.
            _ = timeout(CLOSE_TIMEOUT, output.shutdown()).await;
            end
        }
    };
    if matches!(end, CloseReason::Expired) {
        proxy.controls.counters().connections_expired.add();
    }
    tracing::debug!(server.address = server, reason = %end, "Redis connection closed");
}

/// Connects to the server if there is one, then performs the TLS handshake with the client. The connection of a client to
/// a dead node is reset at once, as by the dead node itself.
async fn open(
    proxy: &RedisProxy,
    socket: TcpStream,
    node: Option<String>,
) -> Result<(TlsStream<TcpStream>, Option<TcpStream>), CloseReason> {
    socket.set_nodelay(true)?;
    let server = match &proxy.redis {
        None => None,
        Some(endpoint) => {
            let server = connect(proxy, endpoint, node).await;
            if server.is_none() {
                SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
                return Err(CloseReason::NoServer);
            }
            server
        }
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&proxy.tls));
    let client = timeout(CONNECT_TIMEOUT, acceptor.accept(socket)).await;
    let client = client.map_err(|_| CloseReason::TimedOut)??;
    proxy.controls.counters().connections_opened.add();
    Ok((client, server))
}

/// Connects to `node`. Without a node, connects to the configured server or else to the first of the known nodes that
/// accepts: Azure's endpoint is a name behind which any live node may be.
async fn connect(proxy: &RedisProxy, endpoint: &str, node: Option<String>) -> Option<TcpStream> {
    let candidates = match node {
        Some(node) => vec![node],
        None => [vec![endpoint.to_owned()], proxy.nodes.known()].concat(),
    };
    for address in candidates {
        let server = timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await;
        let server = server.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match server.and_then(|server| server.set_nodelay(true).map(|()| server)) {
            Ok(server) => return Some(server),
            Err(error) => tracing::warn!(
                server.address = address,
                %error,
                "could not connect to the Redis server"
            ),
        }
    }
    None
}

/// Moves bytes until the client is done. Only one side is served at a time, so that no lock is needed.
async fn relay(
    proxy: &RedisProxy,
    mut from_client: impl AsyncRead + Unpin,
    mut to_client: impl AsyncWrite + Unpin,
    server: Option<TcpStream>,
) -> Result<(), CloseReason> {
    let address = server.as_ref().map(TcpStream::peer_addr).transpose()?;
    let mut gate = AuthGate::new(proxy, address.map(|address| address.ip()));
    let (mut from_server, mut to_server) = server.map(TcpStream::into_split).unzip();
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    let mut close_by = None;
    loop {
        let reading = close_by.is_none() && gate.to_server.len() < UNSENT_LIMIT;
        let expires_at = gate.expires_at();
        tokio::select! {
            read = read(Some(&mut from_client), &mut commands), if reading => {
                let is_end = read? == 0;
                gate.take_commands(&mut commands);
                if is_end || gate.is_closing() {
                    close_by = Some(Instant::now() + CLOSE_TIMEOUT);
                }
            }
            read = read(from_server.as_mut(), &mut replies) => {
                if read? == 0 {
                    return Err(CloseReason::ByServer);
                }
                gate.take_replies(&replies).map_err(|_| CloseReason::MalformedReply)?;
                replies.clear();
            }
            sent = gate.to_client.send(Some(&mut to_client)), if gate.to_client.is_waiting() => sent?,
            sent = gate.to_server.send(to_server.as_mut()), if gate.to_server.is_waiting() => sent?,
            () = until(expires_at) => return Err(CloseReason::Expired),
            () = until(close_by) => return Err(CloseReason::TimedOut),
        }
        if close_by.is_some() && gate.is_idle() {
            return Ok(());
        }
    }
}

async fn read(
    from: Option<&mut (impl AsyncRead + Unpin)>,
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    match from {
        Some(from) => {
            buffer.reserve(READ_SIZE);
            from.read_buf(buffer).await
        }
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Bytes to send to one peer.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// Some are written, but may still be in the TLS layer.
    unflushed: bool,
}

impl Outbox {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn is_waiting(&self) -> bool {
        self.len() > 0 || self.unflushed
    }

    /// Sends some of the bytes. Nothing is lost if the future is dropped.
    async fn send(&mut self, to: Option<&mut (impl AsyncWrite + Unpin)>) -> io::Result<()> {
        let Some(to) = to else {
            return std::future::pending().await;
        };
        if self.len() == 0 {
            to.flush().await?;
            self.unflushed = false;
            return Ok(());
        }
        let sent = to.write(&self.bytes[self.sent..]).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent += sent;
        self.unflushed = true;
        if self.len() == 0 {
            self.bytes.clear();
            self.sent = 0;
        }
        Ok(())
    }
}
