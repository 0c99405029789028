//! A client of the service that runs on this machine with the same environment, for `doctor` and `healthcheck`.
//!
//! It uses a plain socket: a full HTTP client would load certificate authorities first, and fail where those are broken.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::config::Http;

/// The probes answer immediately or not at all.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the address of probes and metrics as this machine reaches it.
pub(crate) fn address(http: &Http) -> SocketAddr {
    loopback_if_unspecified(http.admin.unwrap_or(http.public))
}

/// Replaces an unspecified address, such as 0.0.0.0, by the loopback address of the same family.
pub(crate) fn loopback_if_unspecified(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Sends a GET request and returns status and body of the response. Dropping the future closes the connection.
///
/// # Errors
/// The connection is refused, or the response does not arrive within 2 seconds or is not HTTP.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        connection.read_to_string(&mut response).await?;
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("the response is not HTTP"))?;
        Ok((status, body.to_owned()))
    };
    let late = |_| {
        let text = format!("no response within {} s", RESPONSE_TIMEOUT.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    };
    timeout(RESPONSE_TIMEOUT, exchange)
        .await
        .unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unspecified_address_is_replaced() {
        for (listener, reached) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:9090", "[::1]:9090"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("10.1.2.3:8080", "10.1.2.3:8080"),
        ] {
            let listener = listener.parse().expect("an address");
            assert_eq!(loopback_if_unspecified(listener).to_string(), reached);
        }
    }
}
