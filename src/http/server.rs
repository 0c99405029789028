//! Speaks HTTP/1 and HTTP/2 over one listener, with limits, and stops in order.
//!
//! hyper-util's server and not `axum::serve`: header limits and time-outs, HTTP/2 limits and a graceful end of each
//! connection are only there.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::{layers::fold_case, log_level};

/// hyper counts the wait for a connection's next request as part of the time its headers take, so this must be longer
/// than load balancers keep idle connections (60 s with most), or they would send into a connection just closed.
const HEADER_LIMIT: Duration = Duration::from_secs(65);
/// More header bytes than this are answered 431.
const LARGEST_HEADERS_BYTES: usize = 32 * 1024;
/// Requests in progress on one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 250;
/// A silent HTTP/2 connection is asked, and closed when it does not answer.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(30);
const HTTP2_PING_LIMIT: Duration = Duration::from_secs(10);
/// When no connection can be accepted (too many open files), wait for some to close.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A connection accepted at the last moment gets this long to bring its request.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_millis(250);

/// A bound listener and what it serves.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds; connections wait in the kernel until [`Server::run`].
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address it listens on, with the port that was free where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then accepts no more, lets open requests finish and closes idle connections.
    ///
    /// Returns when all connections are closed; put a deadline around it. Dropping the future ends them at once.
    pub async fn run(self, router: Router, stop: impl Future<Output = ()>) {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_LIMIT)
            .max_buf_size(LARGEST_HEADERS_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(LARGEST_HEADERS_BYTES as u32)
            .max_concurrent_streams(HTTP2_STREAMS)
            .keep_alive_interval(HTTP2_PING_EVERY)
            .keep_alive_timeout(HTTP2_PING_LIMIT);
        let open = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let end_silent = CancellationToken::new();
        let serve = |stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>| {
            let http = http.clone();
            let service = router.clone().map_request(move |request| {
                let mut request = fold_case(request);
                // One route alone wants it, and an extension is an allocation.
                if request.uri().path() == log_level::PATH {
                    request.extensions_mut().insert(ConnectInfo(peer));
                }
                request
            });
            let service = TowerToHyperService::new(service);
            let (watcher, end_silent) = (open.watcher(), end_silent.clone());
            connections.spawn(async move {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a connection ended before it began");
                }
                // hyper-util waits for the first bytes without a limit, and gives a connection up that has not sent any
                // when it is told to end: so it is handed over only once they are there.
                let mut first = [0];
                tokio::select! {
                    first = timeout(HEADER_LIMIT, stream.peek(&mut first)) => match first {
                        Ok(Ok(1..)) => {}
                        Ok(Ok(0) | Err(_)) | Err(_) => return,
                    },
                    () = end_silent.cancelled() => return,
                }
                let connection = http.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection).await {
                    debug!(error, "a connection ended with an error");
                }
            });
        };
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => serve(stream, peer, &mut connections),
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        // Those whom the kernel has let in already are served: to them the connection is open.
        if let Ok(listener) = self.listener.into_std() {
            while let Ok((stream, peer)) = listener.accept() {
                if let Ok(stream) = stream
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(stream))
                {
                    serve(stream, peer, &mut connections);
                }
            }
        }
        // Busy connections end by themselves, because their answers say `Connection: close`, and those accepted last may
        // bring their first request; after this time what is left is idle.
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(FIRST_REQUEST_LIMIT, all_ended).await.is_err() {
            end_silent.cancel();
            open.shutdown().await;
            while connections.join_next().await.is_some() {}
        }
    }
}

/// Accept errors that say something of one connection only.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionAborted | ConnectionReset
    )
}
