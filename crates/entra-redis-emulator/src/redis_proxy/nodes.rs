//! The nodes of a cluster: which front stands before which.
//!
//! `gate` asks for the front of each node that a server names; the first time, one is opened. `Emulator::run` takes the
//! new listeners and serves them, `front` asks which servers are known when the endpoint's own is gone. What always
//! holds: a node keeps its front, on one port, as long as the emulator runs, whatever becomes of the node.
//!
//! How a reply names a node is not known here.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::address;

/// Where Azure Managed Redis has its nodes.
const PORTS: RangeInclusive<u16> = 8500..=8599;

/// A front just opened.
pub(crate) struct NodeProxy {
    pub(crate) listener: TcpListener,
    /// The server's `host:port`.
    pub(crate) node: String,
}

/// The nodes known and the proxies before them.
pub(crate) struct Nodes {
    host: IpAddr,
    /// By the server's `host:port`.
    proxies: Mutex<BTreeMap<String, SocketAddr>>,
    opened: mpsc::UnboundedSender<NodeProxy>,
}

impl Nodes {
    /// Knows no node yet; proxies will be bound to `host`, and come out of the receiver.
    pub(crate) fn new(host: IpAddr) -> (Self, mpsc::UnboundedReceiver<NodeProxy>) {
        let (opened, proxies) = mpsc::unbounded_channel();
        let nodes = Self {
            host,
            proxies: Mutex::default(),
            opened,
        };
        (nodes, proxies)
    }

    /// The address of the front before the node at `host` and `port`, as a client finds it. A server that leaves the
    /// host out means its own, `sender`. `None` for a node without an address yet, or if there is no port left.
    pub(super) fn proxy_of(&self, host: &str, port: u16, sender: IpAddr) -> Option<SocketAddr> {
        if port == 0 {
            return None;
        }
        let node = match host {
            "" | "?" => SocketAddr::new(sender, port).to_string(),
            host if host.contains(':') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        };
        let mut proxies = self.lock();
        if let Some(proxy) = proxies.get(&node) {
            return Some(*proxy);
        }
        match self.open(&node) {
            Ok(proxy) => {
                proxies.insert(node, proxy);
                Some(proxy)
            }
            Err(error) => {
                tracing::warn!(server.address = node, %error, "no port available for the proxy of a cluster node");
                None
            }
        }
    }

    /// The servers known, each as `host:port`.
    pub(super) fn known(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn open(&self, node: &str) -> io::Result<SocketAddr> {
        let bind = |port| StdListener::bind((self.host, port));
        let listener = PORTS.into_iter().find_map(|port| bind(port).ok());
        let listener = listener.map_or_else(|| bind(0), Ok)?;
        listener.set_nonblocking(true)?;
        let mut address = listener.local_addr()?;
        address.set_ip(address::reachable(address.ip()));
        let proxy = NodeProxy {
            listener: TcpListener::from_std(listener)?,
            node: node.to_owned(),
        };
        // Nobody takes it any more when the emulator ends, and then no client is left to be told of it.
        _ = self.opened.send(proxy);
        tracing::info!(server.address = node, proxy.address = %address, "proxy opened for a cluster node");
        Ok(address)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SocketAddr>> {
        // Whatever panicked, each entry is true by itself.
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
