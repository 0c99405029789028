//! A client of the service that runs on this machine with the same variables, for `healthcheck` and `doctor`.
//!
//! Over a plain socket: a full client would read certificate authorities first, and fail where those are broken. These
//! routes answer at once or not at all, so the timeout is short.

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

const TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the address of probes and metrics, as this machine reaches it.
pub fn address(http: &Http) -> SocketAddr {
    let mut address = http.admin.unwrap_or(http.public);
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Requests `path`; returns status and body. Dropping the future closes the connection.
///
/// # Errors
/// No process listens, or there is no response within 2 seconds, or it is not HTTP.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("the response is not HTTP"))?;
        Ok((status, body.to_owned()))
    };
    let late = |_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no response within 2 s",
        ))
    };
    timeout(TIMEOUT, exchange).await.unwrap_or_else(late)
}
