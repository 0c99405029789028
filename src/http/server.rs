//! Speaks HTTP/1 and HTTP/2 over one listener, with limits, and stops in order.
//!
//! hyper-util's server and not `axum::serve`: header limits and time-outs, HTTP/2 limits and a graceful end of each
//! connection are only there.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use super::{
    layers::fold_case,
    log_level,
    unread::{Lingering, Unread},
};

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
/// A client that takes nothing of its answer for this long, or whose machine acknowledges nothing, is given up
/// (`TCP_USER_TIMEOUT`); without it, one that stops reading is kept for ever.
#[cfg(target_os = "linux")]
const UNREAD_LIMIT: Duration = Duration::from_secs(15);
/// Connections that wait in the kernel to be accepted; it takes no more than its own limit (`somaxconn`). The standard library's
/// 128 are too few for a burst: whoever comes then is made to wait a second and longer.
const MOST_WAITING: u32 = 4096;
/// Files that clients' connections leave free: for connections to Redis and Entra ID, probes, and the log. Of a limit that
/// is lower than twice that, half.
const FILES_LEFT_FREE: usize = 128;
/// When no connection can be accepted (too many open files), wait for some to close.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A connection accepted at the last moment gets this long to bring its request.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_millis(250);

/// A bound listener and what it serves.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds; connections wait in the kernel until [`Server::run`].
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        #[cfg(unix)] // elsewhere it would let two listen on one port
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(MOST_WAITING)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address it listens on, with the port that was free where 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then accepts no more, lets open requests finish and closes idle connections.
    ///
    /// Returns when all connections are closed; put a deadline around it. Dropping the future ends them at once.
    pub(crate) async fn run(self, router: Router, stop: impl Future<Output = ()>) {
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
            let brought_request = Arc::new(AtomicBool::new(false));
            let brings_request = brought_request.clone();
            let unread = Unread::default();
            let (of_request, of_response) = (unread.clone(), unread.clone());
            let service = router.clone().map_request(move |request| {
                brings_request.store(true, Ordering::Relaxed);
                let mut request = of_request.watch(fold_case(request));
                // One route alone wants it, and an extension is an allocation.
                if request.uri().path() == log_level::PATH {
                    request.extensions_mut().insert(ConnectInfo(peer));
                }
                request
            });
            let service = service.map_response(move |response| of_response.tell(response));
            let service = TowerToHyperService::new(service);
            let (watcher, end_silent) = (open.watcher(), end_silent.clone());
            connections.spawn(async move {
                if let Err(error) = tune(&stream) {
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
                let connection =
                    http.serve_connection(TokioIo::new(Lingering::new(stream, unread)), service);
                // hyper's limit of headers begins once it is known to be HTTP/1 or HTTP/2, for which the first bytes may not
                // be enough, and holds for HTTP/1 alone.
                let nothing_brought = async {
                    sleep(HEADER_LIMIT).await;
                    if brought_request.load(Ordering::Relaxed) {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    served = watcher.watch(connection) => if let Err(error) = served {
                        debug!(error, "a connection ended with an error");
                    },
                    () = nothing_brought => debug!("a connection brought no request in time"),
                }
            });
        };
        tokio::pin!(stop);
        let most = most_connections();
        let mut is_full = false;
        loop {
            if is_full != (connections.len() >= most) {
                is_full = !is_full;
                match is_full {
                    true => warn!(
                        connections = most,
                        "as many connections are open as the limit of open files allows: the next wait for one to end"
                    ),
                    false => info!("connections are accepted again"),
                }
            }
            tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept(), if !is_full => match accepted {
                    Ok((stream, peer)) => serve(stream, peer, &mut connections),
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_AGAIN_AFTER).await;
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

/// How many connections may be open so that connections to Redis can be opened beside them.
fn most_connections() -> usize {
    #[cfg(unix)]
    if let Ok(files) = rlimit::Resource::NOFILE.get_soft() {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        return files - FILES_LEFT_FREE.min(files / 2);
    }
    usize::MAX
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_LIMIT))?;
    Ok(())
}

/// Accept errors that say something of one connection only.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionAborted | ConnectionReset
    )
}
