//! A TCP proxy that makes faults, between the service and Redis or between the service and Entra ID.
//!
//! It passes bytes, TLS included, without a change. A fault applies to the connections that are
//! open and to new ones, until another takes its place; bytes that were delayed are then forwarded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A fault on the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Each piece takes this much longer, in each direction.
    Delay(Duration),
    /// No more than this many bytes a second pass, in each direction.
    Throttle(u32),
    /// A connection is closed in good order once this many further bytes of the server have passed on it.
    CutAfter(u64),
    /// Nothing passes and nothing is closed; connections are accepted. To the peers, everything was sent.
    BlackHole,
    /// Bytes of the client reach the server; the server's bytes, and its close, do not reach the client.
    HalfOpen,
    /// New connections are reset; those that are open stay.
    Refuse,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    target: String,
    fault: watch::Sender<Fault>,
    /// Changes when all connections are to be reset.
    reset: watch::Sender<()>,
    /// The first so many connections are forgotten.
    forgotten: watch::Sender<u64>,
    accepted: AtomicU64,
    /// The number of new connections to reset as soon as the client has sent something.
    to_reset: AtomicU64,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes everything to `target`, `host:port`.
    pub(crate) async fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            fault: watch::Sender::new(Fault::None),
            reset: watch::Sender::default(),
            forgotten: watch::Sender::default(),
            accepted: AtomicU64::new(0),
            to_reset: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(accept(listener, shared.clone())),
        );
        Self {
            port,
            shared,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Resets every connection at once, as a firewall does that has forgotten them.
    pub(crate) fn reset_all(&self) {
        self.shared.reset.send_replace(());
    }

    /// Resets the next connection as soon as its client has sent something.
    pub(crate) fn reset_next(&self) {
        self.shared.to_reset.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing passes any more on the first `count` connections, and they are not closed; the others stay usable.
    pub(crate) fn forget(&self, count: u64) {
        self.shared.forgotten.send_replace(count);
    }

    /// The number of connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        if *shared.fault.borrow() == Fault::Refuse {
            reset(&client);
            continue;
        }
        while connections.try_join_next().is_some() {}
        if shared.to_reset.load(Ordering::Relaxed) > 0 {
            shared.to_reset.fetch_sub(1, Ordering::Relaxed);
            connections.spawn(async move {
                let _ = client.readable().await;
                reset(&client);
            });
            continue;
        }
        let shared = shared.clone();
        connections.spawn(async move {
            let mut resets = shared.reset.subscribe();
            let mut forgotten = shared.forgotten.subscribe();
            let mut client = client;
            let Ok(mut server) = TcpStream::connect(&shared.target).await else {
                return reset(&client); // as if nothing listened here
            };
            let is_reset = {
                let (from_client, to_client) = client.split();
                let (from_server, to_server) = server.split();
                let asked = pass(from_client, to_server, shared.fault.subscribe(), false);
                let answered = pass(from_server, to_client, shared.fault.subscribe(), true);
                tokio::select! {
                    biased;
                    _ = resets.changed() => true,
                    () = is_forgotten(number, &mut forgotten) => std::future::pending().await,
                    _ = async { tokio::join!(asked, answered) } => false,
                }
            };
            if is_reset {
                reset(&client);
                reset(&server);
            }
        });
    }
}

async fn is_forgotten(number: u64, forgotten: &mut watch::Receiver<u64>) {
    let counted = forgotten.wait_for(|count| number < *count).await;
    counted.expect("the sender is among what is shared");
}

/// One direction of a connection, until it is closed.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut fault: watch::Receiver<Fault>,
    answers: bool,
) {
    let mut piece = vec![0; 16 * 1024];
    let mut passed_since = (Fault::None, 0_u64);
    'pieces: loop {
        let mut length = from.read(&mut piece).await.unwrap_or(0);
        // Delayed bytes are forwarded when the fault is over.
        let now = loop {
            let now = *fault.borrow_and_update();
            match now {
                Fault::BlackHole => {}
                Fault::HalfOpen if answers => {}
                Fault::Delay(by) => {
                    sleep(by).await;
                    break now;
                }
                Fault::Throttle(bytes) => {
                    sleep(Duration::from_secs_f64(length as f64 / f64::from(bytes))).await;
                    break now;
                }
                _ => break now,
            }
            if fault.changed().await.is_err() {
                break 'pieces;
            }
        };
        if passed_since.0 != now {
            passed_since = (now, 0);
        }
        let mut cut = false;
        if let Fault::CutAfter(bytes) = now
            && answers
        {
            let left = bytes.saturating_sub(passed_since.1);
            cut = length as u64 >= left;
            length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        passed_since.1 += length as u64;
        if to.write_all(&piece[..length]).await.is_err() || length == 0 || cut {
            break;
        }
    }
    let _ = to.shutdown().await;
}

fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
