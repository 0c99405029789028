//! The server: HTTP/1 and HTTP/2 on one listener, with limits and a graceful stop.
//!
//! hyper-util's server and not `axum::serve`: only it has limits and timeouts for headers, limits for HTTP/2, and a
//! graceful shutdown of each connection.

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
    unread::{Lingering, Unread},
};

/// Timeout of a request's headers. hyper counts the wait for a connection's next request as part of it, so it must be
/// longer than load balancers keep idle connections (60 s with most), or they would send into a connection just closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(65);
/// Largest headers of a request; larger ones are answered 431.
const LARGEST_HEADERS_BYTES: usize = 32 * 1024;
/// Requests in progress on one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 250;
/// An idle HTTP/2 connection is sent a PING, and closed when that is not answered.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that reads nothing of its response for this long, or whose machine acknowledges nothing, is disconnected
/// (`TCP_USER_TIMEOUT`); without it, the connection of one that stops reading stays open forever.
#[cfg(target_os = "linux")]
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections that wait in the kernel to be accepted; it allows no more than its own limit (`somaxconn`). The standard
/// library's 128 are too few for a burst: clients beyond it wait a second and longer.
const BACKLOG: u32 = 4096;
/// Files that client connections leave free: for connections to Redis and Entra ID, probes, and the log. With a limit of
/// less than twice that, half of it.
const RESERVED_FILES: usize = 128;
/// Pause after a failed accept (too many open files), until some are closed.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A connection accepted at the last moment has this long to send its request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    with_peer: bool,
}

impl Server {
    /// Binds; connections wait in the kernel until [`Server::run`].
    ///
    /// # Errors
    /// The address is in use, or does not belong to this machine.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        #[cfg(unix)] // elsewhere it would let two processes listen on one port
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            with_peer: false,
        })
    }

    /// Gives handlers the client's address as [`ConnectInfo`]. Not the default: it is an allocation for each request.
    #[must_use]
    pub(crate) fn with_connect_info(mut self) -> Self {
        self.with_peer = true;
        self
    }

    /// Returns the address it listens on; where port 0 was requested, with the port that was assigned.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then accepts no more connections, lets open requests finish and closes idle connections.
    ///
    /// Returns when all connections are closed; put a deadline around it. Dropping the future closes them at once.
    pub(crate) async fn run(self, router: Router, stop: impl Future<Output = ()>) {
        let mut connections = Connections::new(router, self.with_peer);
        accept_loop(&self.listener, &mut connections, stop).await;
        // Connections that the kernel has accepted already are served: to their clients they are open.
        if let Ok(listener) = self.listener.into_std() {
            while let Ok((stream, peer)) = listener.accept() {
                if let Ok(stream) = stream
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(stream))
                {
                    connections.serve(stream, peer);
                }
            }
        }
        connections.drain().await;
    }
}

/// An event that ends the accept loop's wait.
#[derive(Debug)]
enum Event {
    /// A connection was opened or closed, or a back-off is over.
    Progress,
    AcceptFailed(io::Error),
    StopRequested,
}

/// The accept loop's next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Accept,
    /// As many connections are open as may be.
    WaitForClose,
    /// The system cannot accept a connection now, mostly because too many files are open.
    BackOff,
    Drain,
}

/// Decides the accept loop's next step, after `event`, with `open` of at most `limit` connections open.
fn next_step(event: &Event, open: usize, limit: usize) -> Step {
    match event {
        Event::StopRequested => Step::Drain,
        Event::AcceptFailed(error) if !is_of_one_connection(error) => Step::BackOff,
        Event::Progress | Event::AcceptFailed(_) if open >= limit => Step::WaitForClose,
        Event::Progress | Event::AcceptFailed(_) => Step::Accept,
    }
}

/// Accepts connections until `stop`.
async fn accept_loop(
    listener: &TcpListener,
    connections: &mut Connections,
    stop: impl Future<Output = ()>,
) {
    tokio::pin!(stop);
    let limit = connection_limit();
    let mut event = Event::Progress;
    let mut is_full = false;
    loop {
        let step = next_step(&event, connections.tasks.len(), limit);
        match (step, &event) {
            (Step::WaitForClose, _) if !is_full => warn!(
                connections.limit = limit,
                "connection limit reached; not accepting until one closes"
            ),
            (Step::Accept, _) if is_full => info!("accepting connections again"),
            (Step::BackOff, Event::AcceptFailed(error)) => {
                warn!(%error, "could not accept a connection");
            }
            _ => {}
        }
        is_full = step == Step::WaitForClose;
        event = match step {
            Step::Accept => tokio::select! {
                () = &mut stop => Event::StopRequested,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        connections.serve(stream, peer);
                        Event::Progress
                    }
                    Err(error) => Event::AcceptFailed(error),
                },
                Some(_) = connections.tasks.join_next() => Event::Progress,
            },
            Step::WaitForClose => tokio::select! {
                () = &mut stop => Event::StopRequested,
                Some(_) = connections.tasks.join_next() => Event::Progress,
            },
            Step::BackOff => tokio::select! {
                () = &mut stop => Event::StopRequested,
                () = sleep(ACCEPT_BACKOFF) => Event::Progress,
            },
            Step::Drain => return,
        };
    }
}

/// The open connections of a listener, each with a task of its own.
struct Connections {
    http: auto::Builder<TokioExecutor>,
    router: Router,
    with_peer: bool,
    graceful: GracefulShutdown,
    tasks: JoinSet<()>,
    /// Closes connections that have not sent anything yet.
    close_silent: CancellationToken,
}

impl Connections {
    fn new(router: Router, with_peer: bool) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(LARGEST_HEADERS_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(LARGEST_HEADERS_BYTES as u32)
            .max_concurrent_streams(HTTP2_STREAMS)
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT);
        Self {
            http,
            router,
            with_peer,
            graceful: GracefulShutdown::new(),
            tasks: JoinSet::new(),
            close_silent: CancellationToken::new(),
        }
    }

    /// Serves one connection in a task of its own.
    fn serve(&mut self, stream: TcpStream, peer: SocketAddr) {
        let unread = Unread::default();
        let got_request = Arc::new(AtomicBool::new(false));
        let (of_request, of_response) = (unread.clone(), unread.clone());
        let gets_request = got_request.clone();
        let peer = self.with_peer.then_some(ConnectInfo(peer));
        let service = self.router.clone().map_request(move |request| {
            gets_request.store(true, Ordering::Relaxed);
            let mut request = of_request.watch(fold_case(request));
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            request
        });
        let service = service.map_response(move |response| of_response.close_if_left(response));
        let service = TowerToHyperService::new(service);
        let http = self.http.clone();
        let (watcher, close_silent) = (self.graceful.watcher(), self.close_silent.clone());
        self.tasks.spawn(async move {
            if let Err(error) = tune(&stream) {
                debug!(%error, "could not configure accepted socket");
            }
            let has_bytes = close_silent.run_until_cancelled(has_first_bytes(&stream));
            if has_bytes.await != Some(true) {
                return;
            }
            let stream = TokioIo::new(Lingering::new(stream, unread));
            let connection = watcher.watch(http.serve_connection(stream, service));
            tokio::select! {
                served = connection => if let Err(error) = served {
                    debug!(error, "connection failed");
                },
                () = no_request_in_time(&got_request) => debug!("no request in time; closing connection"),
            }
        });
    }

    /// Waits until all connections are closed.
    ///
    /// Busy ones close by themselves, because their responses carry `Connection: close`, and those accepted last may still
    /// send their first request; after a short time what is left is idle, and is closed.
    async fn drain(mut self) {
        let all_closed = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(FIRST_REQUEST_TIMEOUT, all_closed).await.is_err() {
            self.close_silent.cancel();
            self.graceful.shutdown().await;
            while self.tasks.join_next().await.is_some() {}
        }
    }
}

/// Returns whether a connection's first bytes came in time.
///
/// hyper-util waits for them without a limit, and drops a connection without any when it is asked to shut down: so a
/// connection is handed over only once they are there.
async fn has_first_bytes(stream: &TcpStream) -> bool {
    let mut first = [0];
    let peeked = timeout(HEADER_TIMEOUT, stream.peek(&mut first)).await;
    matches!(peeked, Ok(Ok(1..)))
}

/// Returns when a connection has not sent a whole request head in time, else never.
///
/// hyper's own limit begins once it is known to be HTTP/1 or HTTP/2, for which the first bytes may not be enough, and
/// applies to HTTP/1 alone.
async fn no_request_in_time(got_request: &AtomicBool) {
    sleep(HEADER_TIMEOUT).await;
    if got_request.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Returns the number of client connections that leaves enough files for connections to Redis.
fn connection_limit() -> usize {
    #[cfg(unix)]
    if let Ok(files) = rlimit::Resource::NOFILE.get_soft() {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        return files - RESERVED_FILES.min(files / 2);
    }
    usize::MAX
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT))?;
    Ok(())
}

/// Returns whether an accept error concerns one connection only.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionAborted | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_loop_stops_backs_off_and_respects_the_limit() {
        use io::ErrorKind::{ConnectionAborted, Other};
        let failed = |kind| Event::AcceptFailed(io::Error::from(kind));
        for (event, open, step) in [
            (Event::Progress, 0, Step::Accept),
            (Event::Progress, 9, Step::Accept),
            (Event::Progress, 10, Step::WaitForClose),
            (Event::Progress, 11, Step::WaitForClose),
            (failed(ConnectionAborted), 9, Step::Accept),
            (failed(ConnectionAborted), 10, Step::WaitForClose),
            (failed(Other), 0, Step::BackOff),
            (failed(Other), 10, Step::BackOff),
            (Event::StopRequested, 0, Step::Drain),
            (Event::StopRequested, 10, Step::Drain),
        ] {
            assert_eq!(next_step(&event, open, 10), step, "{event:?}, {open} open");
        }
    }
}
