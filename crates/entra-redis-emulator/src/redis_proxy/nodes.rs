//! The nodes of a cluster, each with a proxy of its own.
//!
//! A proxy is opened when a reply first names its node. `Emulator::run` receives the new listeners and serves them.
//!
//! # Invariants
//!
//! - A node keeps its proxy, on one port, as long as the emulator runs, whatever becomes of the node.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::address;

/// The ports of nodes in Azure Managed Redis.
const PORTS: RangeInclusive<u16> = 8500..=8599;

/// A newly opened proxy.
pub(crate) struct NodeProxy {
    pub(crate) listener: TcpListener,
    /// The server's `host:port`.
    pub(crate) node: String,
}

/// The known nodes and the addresses of their proxies.
pub(crate) struct Nodes {
    host: IpAddr,
    /// By the server's `host:port`.
    proxies: Mutex<BTreeMap<String, SocketAddr>>,
    opened: mpsc::UnboundedSender<NodeProxy>,
}

impl Nodes {
    /// No nodes yet. Proxies will be bound to `host`, and new ones are sent to the receiver.
    pub(crate) fn new(host: IpAddr) -> (Self, mpsc::UnboundedReceiver<NodeProxy>) {
        let (opened, proxies) = mpsc::unbounded_channel();
        let nodes = Self {
            host,
            proxies: Mutex::default(),
            opened,
        };
        (nodes, proxies)
    }

    /// Returns the address at which clients reach the proxy of the node at `host` and `port`. An empty host, or `?`, is that
    /// of the server that sent the reply, `sender`. `None` for a node without an address yet, or if no port is free.
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

    /// Returns the known servers, each as `host:port`.
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
        // The receiver is gone when the emulator stops, and then no client is left that could use the address.
        _ = self.opened.send(proxy);
        tracing::info!(server.address = node, proxy.address = %address, "proxy opened for a cluster node");
        Ok(address)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SocketAddr>> {
        // A panic leaves a valid map: each entry stands for itself.
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
