//! Azure's front before Redis: TLS, sign-in by token, and the end of a connection with its token.
//!
//! `Emulator::run` serves every client with [`connection`], at the endpoint and at each node of a cluster. Here bytes move:
//! between the client, `gate`, which decides about each command, and a real Redis server if there is one (one plain
//! connection for each client's). What always holds: no connection outlives the token it is signed in with, and reading
//! never waits for writing, so that a pipeline of any length works. What the bytes mean is not known here.

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
pub(super) mod nodes;
mod reply_order;

/// A client or server that has not finished connecting by then never will.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What a client that is done has not yet been sent, and the end of TLS, get this long.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// Room made for each read: two TLS records.
const READ_SIZE: usize = 32 * 1024;

/// With more than this unsent to the server, the client is not read from; the server's replies always are.
const UNSENT_LIMIT: usize = 1024 * 1024;

/// What all connections share.
pub(super) struct RedisProxy {
    pub(super) signer: Arc<Signer>,
    pub(super) controls: Controls,
    pub(super) tls: Arc<ServerConfig>,
    /// A real server's `host:port`.
    pub(super) redis: Option<String>,
    /// The other servers, if it is a cluster's.
    pub(super) nodes: Nodes,
    pub(super) store: Arc<Store>,
    pub(super) clustering_policy: ClusteringPolicy,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("its token ended")]
    Expired,
    #[error("the emulator was told to close it")]
    Told,
    #[error("the client left")]
    Left,
    #[error("no Redis server can be reached")]
    NoServer,
    #[error("the Redis server left")]
    ServerLeft,
    #[error("the Redis server does not speak its protocol")]
    ServerBroken,
    #[error("something took too long")]
    TooSlow,
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Serves one client of `node` (`host:port`), or of the endpoint, until it leaves, its token ends, the server leaves, or
/// `shutdown` or `Controls` closes it.
pub(super) async fn connection(
    proxy: Arc<RedisProxy>,
    socket: TcpStream,
    node: Option<String>,
    shutdown: CancellationToken,
) {
    if proxy.controls.redis() == RedisFault::Refuse {
        return;
    }
    let mut disconnects = proxy.controls.disconnects();
    let told = async {
        tokio::select! {
            _ = disconnects.changed() => {}
            () = shutdown.cancelled() => {}
        }
    };
    tokio::pin!(told);
    let opened = tokio::select! {
        opened = open(&proxy, socket, node) => opened,
        () = &mut told => Err(End::Told),
    };
    let end = match opened {
        Err(end) => end,
        Ok((client, server)) => {
            let (mut input, mut output) = tokio::io::split(client);
            let end = tokio::select! {
                end = talk(&proxy, &mut input, &mut output, server) => end.err().unwrap_or(End::Left),
                () = told => End::Told,
            };
            // A peer that is gone, or does not read, makes no difference any more.
            _ = timeout(CLOSE_LIMIT, output.shutdown()).await;
            end
        }
    };
    if matches!(end, End::Expired) {
        proxy.controls.counters().connections_expired.add();
    }
    tracing::debug!(reason = %end, "a connection to the emulated Redis was closed");
}

/// Connects to the server if there is one, then shakes hands with the client: one that comes to a dead node is reset at
/// once, as by the dead node itself.
async fn open(
    proxy: &RedisProxy,
    socket: TcpStream,
    node: Option<String>,
) -> Result<(TlsStream<TcpStream>, Option<TcpStream>), End> {
    socket.set_nodelay(true)?;
    let server = match &proxy.redis {
        None => None,
        Some(endpoint) => {
            let server = reach(proxy, endpoint, node).await;
            if server.is_none() {
                SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
                return Err(End::NoServer);
            }
            server
        }
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&proxy.tls));
    let client = timeout(CONNECT_LIMIT, acceptor.accept(socket)).await;
    let client = client.map_err(|_| End::TooSlow)??;
    proxy.controls.counters().connections_opened.add();
    Ok((client, server))
}

/// Connects to `node`. Azure's endpoint is a name that any living node answers to: without a node, to the server given,
/// or else to the first that accepts of those it named.
async fn reach(proxy: &RedisProxy, endpoint: &str, node: Option<String>) -> Option<TcpStream> {
    let candidates = match node {
        Some(node) => vec![node],
        None => [vec![endpoint.to_owned()], proxy.nodes.known()].concat(),
    };
    for address in candidates {
        let server = timeout(CONNECT_LIMIT, TcpStream::connect(&address)).await;
        let server = server.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match server.and_then(|server| server.set_nodelay(true).map(|()| server)) {
            Ok(server) => return Some(server),
            Err(error) => tracing::warn!(
                redis.address = address,
                %error,
                "a Redis server behind the emulator cannot be reached"
            ),
        }
    }
    None
}

/// Moves bytes until the conversation is over. Only one side at a time is acted upon, so that no lock is needed.
async fn talk(
    proxy: &RedisProxy,
    mut from_client: impl AsyncRead + Unpin,
    mut to_client: impl AsyncWrite + Unpin,
    server: Option<TcpStream>,
) -> Result<(), End> {
    let address = server.as_ref().map(TcpStream::peer_addr).transpose()?;
    let mut gate = AuthGate::new(proxy, address.map(|address| address.ip()));
    let (mut from_server, mut to_server) = server.map(TcpStream::into_split).unzip();
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    let mut leave_at = None;
    loop {
        let reading = leave_at.is_none() && gate.to_server.len() < UNSENT_LIMIT;
        let signed_in_until = gate.signed_in_until();
        tokio::select! {
            read = read(Some(&mut from_client), &mut commands), if reading => {
                let left = read? == 0;
                gate.take_commands(&mut commands);
                if left || gate.is_ending() {
                    leave_at = Some(Instant::now() + CLOSE_LIMIT);
                }
            }
            read = read(from_server.as_mut(), &mut replies) => {
                if read? == 0 {
                    return Err(End::ServerLeft);
                }
                gate.take_replies(&replies).map_err(|_| End::ServerBroken)?;
                replies.clear();
            }
            sent = gate.to_client.send(Some(&mut to_client)), if gate.to_client.is_waiting() => sent?,
            sent = gate.to_server.send(to_server.as_mut()), if gate.to_server.is_waiting() => sent?,
            () = until(signed_in_until) => return Err(End::Expired),
            () = until(leave_at) => return Err(End::TooSlow),
        }
        if leave_at.is_some() && gate.is_idle() {
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

/// Bytes on their way to one peer.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// Written, but perhaps still inside the TLS layer.
    unflushed: bool,
}

impl Outbox {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn is_waiting(&self) -> bool {
        self.len() > 0 || self.unflushed
    }

    /// Sends a part of what is waiting. Nothing is lost when the future is dropped.
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
