//! From the name to an encrypted connection: DNS, TCP, TLS.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ProtocolVersion;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::Error;
use crate::{
    env,
    pool::{self, ConnectError, ConnectStep},
    tls,
};

/// The result of [`resolve`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Resolved {
    /// The addresses in the order in which they are tried; at least one.
    pub addresses: Vec<SocketAddr>,
    /// Duration of the step.
    pub duration: Duration,
}

/// The result of [`connect`]: an open TCP connection. Dropping it closes the connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// The address that accepted the connection.
    pub peer: SocketAddr,
    /// Duration of the step, addresses that did not accept included.
    pub duration: Duration,
    stream: TcpStream,
}

/// The result of [`tls_handshake`]. The connection is closed already.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsSession {
    /// The negotiated version.
    pub version: TlsVersion,
    /// The negotiated cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: Option<&'static str>,
    /// The certificates that the server sent, in DER, its own first.
    pub certificates: Vec<Vec<u8>>,
    /// Duration of the step.
    pub duration: Duration,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}

/// Resolves the name of the endpoint, within `connect_timeout`.
///
/// # Errors
/// DNS returns an error or no address, or does not answer in time. Dropping the future stops waiting; the resolution goes
/// on in a thread of the runtime until DNS gives up.
pub async fn resolve(config: &env::Redis) -> Result<Resolved, Error> {
    let started = Instant::now();
    let addresses = within(
        config,
        ConnectStep::Resolve,
        pool::resolve(&config.endpoint),
    )
    .await?;
    Ok(Resolved {
        addresses,
        duration: started.elapsed(),
    })
}

/// Opens a TCP connection to the first of `addresses` that accepts one, within `connect_timeout`.
///
/// # Errors
/// No address accepts a connection in time. Dropping the future closes the socket.
pub async fn connect(config: &env::Redis, addresses: &[SocketAddr]) -> Result<Connected, Error> {
    let started = Instant::now();
    let dialled = pool::dial(&config.endpoint, addresses);
    let stream = within(config, ConnectStep::Dial, dialled).await?;
    let peer = stream.peer_addr().map_err(|source| ConnectError::Dial {
        endpoint: config.endpoint.clone(),
        source,
    })?;
    Ok(Connected {
        peer,
        duration: started.elapsed(),
        stream,
    })
}

/// Performs the TLS handshake and verifies the certificate against the name of the endpoint, within `connect_timeout`.
/// Trusted are the system's certificate authorities, or those of `roots`, and those in `ca_file`.
///
/// # Errors
/// No certificate authority can be loaded, the certificate is not accepted, or the handshake fails or does not complete in
/// time. Dropping the future closes the connection.
pub async fn tls_handshake(config: &env::Redis, connected: Connected) -> Result<TlsSession, Error> {
    let started = Instant::now();
    let tls = tls::client_config(&config.roots, config.ca_file.as_ref());
    let tls = Arc::new(tls.map_err(Error::trusted_roots)?);
    let endpoint = &config.endpoint;
    let handshake = pool::handshake(endpoint, endpoint, &tls, connected.stream);
    let stream = within(config, ConnectStep::Tls, handshake).await?;
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().unwrap_or_default();
    let cipher_suite = session.negotiated_cipher_suite();
    Ok(TlsSession {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        },
        cipher_suite: cipher_suite.and_then(|suite| suite.suite().as_str()),
        certificates: certificates.iter().map(|one| one.to_vec()).collect(),
        duration: started.elapsed(),
    })
}

async fn within<T>(
    config: &env::Redis,
    step: ConnectStep,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, Error> {
    let limit = config.connect_timeout;
    let result = timeout(limit, work).await.unwrap_or_else(|_| {
        Err(ConnectError::TimedOut {
            step,
            endpoint: config.endpoint.clone(),
            limit,
        })
    });
    result.map_err(Error::from)
}
