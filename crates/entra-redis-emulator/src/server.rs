//! Listeners and HTTP connections while the emulator runs.
//!
//! # Invariants
//!
//! - Every connection belongs to the listener that accepted it, and is closed within [`STOP_TIMEOUT`] after the stop signal.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::redis_proxy::nodes::NodeProxy;
use crate::redis_proxy::{self, RedisProxy};

/// Timeout of a client's TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for connections to close when the emulator stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a failed `accept`. Mostly the process is out of file descriptors, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `shutdown`; then waits until they are closed, within a timeout.
pub(crate) async fn accept<C>(
    listener: TcpListener,
    shutdown: &CancellationToken,
    serve: impl Fn(TcpStream) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => _ = connections.spawn(serve(socket)),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Accepts connections at the proxy of each node of a cluster, from when it is opened until `shutdown`.
pub(crate) async fn accept_nodes(
    proxy: &Arc<RedisProxy>,
    mut opened: UnboundedReceiver<NodeProxy>,
    shutdown: &CancellationToken,
) {
    let mut accepting = JoinSet::new();
    while let Some(Some(opened)) = shutdown.run_until_cancelled(opened.recv()).await {
        let (proxy, shutdown) = (Arc::clone(proxy), shutdown.clone());
        accepting.spawn(async move {
            let serve = |socket| {
                let node = Some(opened.node.clone());
                redis_proxy::connection(Arc::clone(&proxy), socket, node, shutdown.clone())
            };
            accept(opened.listener, &shutdown, serve).await;
        });
    }
    // Each ends by itself, within its own timeout.
    while accepting.join_next().await.is_some() {}
}

/// Serves HTTP/1.1 on one connection. HTTP/2 would spawn a task for each request, outside the listener's ownership.
pub(crate) async fn http<S>(socket: S, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = auto::Builder::new(TokioExecutor::new()).http1_only();
    let service = TowerToHyperService::new(router);
    let connection = server.serve_connection(TokioIo::new(socket), service);
    if let Some(Err(error)) = shutdown.run_until_cancelled(connection).await {
        tracing::debug!(error, "HTTP connection failed");
    }
}

/// Performs the TLS handshake, then serves HTTP/1.1 on one connection.
pub(crate) async fn https(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    router: Router,
    shutdown: CancellationToken,
) {
    let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket));
    match shutdown.run_until_cancelled(handshake).await {
        Some(Ok(Ok(socket))) => http(socket, router, shutdown).await,
        Some(Ok(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
        Some(Err(_)) | None => {}
    }
}
