//! Asks the service that runs on this machine with the same variables, as `healthcheck` and `doctor` do.
//!
//! Over a plain socket: a client that could do more would read certificate authorities first, and fail where those are
//! broken. What is asked answers at once or not at all, so that the limit is short.

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

const LIMIT: Duration = Duration::from_secs(2);

/// Where probes and metrics are, as this machine reaches it.
pub(crate) fn address(http: &Http) -> SocketAddr {
    let mut address = http.admin.unwrap_or(http.public);
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Status and body of one answer. Dropping the future closes the connection.
///
/// # Errors
/// Nobody listens, or the answer does not come within 2 seconds or is no HTTP.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let asked = async {
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
        let status = status.ok_or_else(|| io::Error::other("the answer is no HTTP"))?;
        Ok((status, body.to_owned()))
    };
    let late = |_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer within 2 s",
        ))
    };
    timeout(LIMIT, asked).await.unwrap_or_else(late)
}
