//! Opens the transport of one connection: resolve, dial and TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::error::ConnectError;
use crate::env::Endpoint;

/// Azure closes connections that were idle for 10 minutes, and a lost node does not respond: keep-alive probes after half
/// a minute without traffic prevent the former and detect the latter.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// The limit for unacknowledged data, after which the kernel closes the connection (`TCP_USER_TIMEOUT`); without it Linux
/// retransmits for about 15 minutes.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(10);

/// Resolves a name to at least one address.
pub(crate) async fn resolve(address: &Endpoint) -> Result<Vec<SocketAddr>, ConnectError> {
    let resolve_error = |source| ConnectError::Resolve {
        endpoint: address.clone(),
        source,
    };
    let found = lookup_host((address.host(), address.port())).await;
    let found: Vec<_> = found.map_err(resolve_error)?.collect();
    if found.is_empty() {
        return Err(resolve_error(io::Error::other("the name has no address")));
    }
    Ok(found)
}

/// Connects to the first of the addresses that accepts; otherwise returns the last one's error.
pub(crate) async fn dial(
    address: &Endpoint,
    addresses: &[SocketAddr],
) -> Result<TcpStream, ConnectError> {
    let mut latest = io::Error::other("the name has no address");
    for candidate in addresses {
        match TcpStream::connect(candidate)
            .await
            .and_then(with_socket_options)
        {
            Ok(stream) => return Ok(stream),
            Err(error) => latest = error,
        }
    }
    Err(ConnectError::Dial {
        endpoint: address.clone(),
        source: latest,
    })
}

/// Performs the TLS handshake with the server at `address`, whose certificate must be for the name of `endpoint`.
pub(crate) async fn handshake(
    endpoint: &Endpoint,
    address: &Endpoint,
    config: &Arc<ClientConfig>,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tls_error = |source| ConnectError::Tls {
        endpoint: address.clone(),
        source,
    };
    let name = ServerName::try_from(endpoint.host().to_owned())
        .map_err(|error| tls_error(io::Error::other(error)))?;
    TlsConnector::from(config.clone())
        .connect(name, tcp)
        .await
        .map_err(tls_error)
}

fn with_socket_options(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_PROBES),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No test loses packets, so the socket's options are checked here.
    #[tokio::test]
    async fn sockets_probe_a_silent_peer_and_bound_unacknowledged_data() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let endpoint = address.to_string().parse().expect("an endpoint");
        let stream = dial(&endpoint, &[address]).await.expect("a listener");
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().expect("open"));
        assert_eq!(socket.tcp_keepalive_time().expect("open"), KEEPALIVE_AFTER);
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().expect("open"),
            Some(UNACKNOWLEDGED_LIMIT)
        );
        assert!(stream.nodelay().expect("open"));
    }
}
