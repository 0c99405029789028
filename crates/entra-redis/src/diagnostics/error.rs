//! The errors of all steps, and their classification.

use std::{error::Error as StdError, fmt, io, sync::Arc, time::Duration};

use rustls::CertificateError;

use crate::pool::{BuildError, ConnectError, ConnectStep, Error as PoolError, Refusal};

/// The error of one step. Its text names the operation, its sources are the reasons, [`Error::fault`] classifies it.
#[derive(Debug)]
pub struct Error(Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Connect(Arc<ConnectError>),
    TrustedRoots(Box<dyn StdError + Send + Sync>),
    Build(BuildError),
    Pool(PoolError),
    NoReply {
        command: &'static str,
        limit: Duration,
    },
}

/// The causes of failure that a program can distinguish.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// DNS returned an error, or no address.
    NameNotResolved,
    /// The step did not complete within `connect_timeout`.
    TimedOut(ConnectStep),
    /// The host is up and nothing listens on the port.
    ConnectionRefused,
    /// No address could be connected to, for another reason.
    Unreachable,
    /// No trusted certificate authority could be loaded.
    NoTrustedRoots,
    /// The certificate is not valid for the name of the endpoint.
    CertificateName,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate is not valid yet.
    CertificateNotYetValid,
    /// The certificate is not signed by a trusted certificate authority, or is damaged.
    CertificateUntrusted,
    /// Client and server have no TLS version or cipher suite in common.
    NoCommonTls,
    /// The server does not speak TLS.
    NotTls,
    /// The connection closed during the TLS handshake, or the handshake failed for another reason.
    HandshakeFailed,
    /// Redis has reached its connection limit.
    ConnectionLimit,
    /// Redis refused the authentication, or a command before it, with this error code, such as `WRONGPASS`.
    AuthenticationRefused {
        /// The error code as Redis writes it.
        code: String,
    },
    /// Redis accepted the connection and did not reply to the authentication.
    AuthenticationNotAnswered,
    /// The connection closed before Redis replied to the authentication, or the reply was not Redis'.
    AuthenticationInterrupted,
    /// `clustering_policy` is `OSSCluster`, and the server is not a cluster.
    NotACluster,
    /// The cluster has no primary for a slot.
    NoPrimary,
    /// Redis answers `CLUSTER SLOTS` with an error code that means "not now", such as `BUSY` or `LOADING`.
    ClusteringUndecided {
        /// The error code as Redis writes it.
        code: String,
    },
    /// Redis refused a command with this error code, such as `NOPERM`.
    CommandRefused {
        /// The error code as Redis writes it; empty where the reply is not an error but of an unexpected kind.
        code: String,
    },
    /// Redis did not reply to a command within the timeout.
    NotAnswered,
    /// The pool cannot be built from its configuration.
    Configuration,
    /// Any other failure.
    Other,
}

impl Error {
    /// Returns the cause of the failure.
    pub fn fault(&self) -> Fault {
        match &self.0 {
            Kind::Connect(error) => of_connection(error),
            Kind::TrustedRoots(_) => Fault::NoTrustedRoots,
            Kind::Build(_) => Fault::Configuration,
            Kind::Pool(PoolError::TimedOut(_)) | Kind::NoReply { .. } => Fault::NotAnswered,
            Kind::Pool(PoolError::Command(error)) => Fault::CommandRefused {
                code: error.code().unwrap_or_default().to_owned(),
            },
            Kind::Pool(_) => Fault::Other,
        }
    }

    pub(super) fn trusted_roots(error: impl StdError + Send + Sync + 'static) -> Self {
        Self(Kind::TrustedRoots(Box::new(error)))
    }

    pub(super) fn no_reply(command: &'static str, limit: Duration) -> Self {
        Self(Kind::NoReply { command, limit })
    }
}

fn of_connection(error: &ConnectError) -> Fault {
    match error {
        ConnectError::Resolve { .. } => Fault::NameNotResolved,
        ConnectError::TimedOut { step, .. } => Fault::TimedOut(*step),
        ConnectError::Dial { source, .. } => match source.kind() {
            io::ErrorKind::ConnectionRefused => Fault::ConnectionRefused,
            _ => Fault::Unreachable,
        },
        ConnectError::Tls { source, .. } => of_handshake(source),
        ConnectError::Authenticate { source, .. } => of_authentication(source),
        ConnectError::NotACluster { .. } => Fault::NotACluster,
        ConnectError::NoPrimary { .. } => Fault::NoPrimary,
        ConnectError::Undecided { source, .. } => Fault::ClusteringUndecided {
            code: source.code().unwrap_or_default().to_owned(),
        },
        _ => Fault::Other,
    }
}

fn of_handshake(error: &io::Error) -> Fault {
    use CertificateError::*;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(fault)) => match fault {
            NotValidForName | NotValidForNameContext { .. } => Fault::CertificateName,
            Expired | ExpiredContext { .. } => Fault::CertificateExpired,
            NotValidYet | NotValidYetContext { .. } => Fault::CertificateNotYetValid,
            _ => Fault::CertificateUntrusted,
        },
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::AlertReceived(_)) => {
            Fault::NoCommonTls
        }
        Some(rustls::Error::InvalidMessage(_)) => Fault::NotTls,
        _ => Fault::HandshakeFailed,
    }
}

fn of_authentication(refusal: &Refusal) -> Fault {
    if refusal.is_connection_limit() {
        return Fault::ConnectionLimit;
    }
    if refusal.is_timeout() {
        return Fault::AuthenticationNotAnswered;
    }
    match refusal.code() {
        Some(code) => Fault::AuthenticationRefused {
            code: code.to_owned(),
        },
        None => Fault::AuthenticationInterrupted,
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Arc::new(error).into()
    }
}

impl From<Arc<ConnectError>> for Error {
    fn from(error: Arc<ConnectError>) -> Self {
        Self(Kind::Connect(error))
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        Self(Kind::Build(error))
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Unavailable(error) => error.into(),
            other => Self(Kind::Pool(other)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Connect(error) => error.fmt(f),
            Kind::TrustedRoots(_) => f.write_str("cannot load trusted certificate authorities"),
            Kind::Build(error) => error.fmt(f),
            Kind::Pool(error) => error.fmt(f),
            Kind::NoReply { command, limit } => {
                write!(f, "no reply to {command} within {}s", limit.as_secs_f64())
            }
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Kind::Connect(error) => error.source(),
            Kind::TrustedRoots(error) => Some(&**error),
            Kind::Build(error) => error.source(),
            Kind::Pool(error) => error.source(),
            Kind::NoReply { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, InvalidMessage, PeerIncompatible};

    use super::*;
    use crate::env::Endpoint;

    fn endpoint() -> Endpoint {
        "localhost:1".parse().expect("an endpoint")
    }

    #[test]
    fn a_handshake_error_is_classified_by_its_type() {
        use CertificateError as Fails;
        for (error, expected) in [
            (
                rustls::Error::InvalidCertificate(Fails::NotValidForName),
                Fault::CertificateName,
            ),
            (
                rustls::Error::InvalidCertificate(Fails::Expired),
                Fault::CertificateExpired,
            ),
            (
                rustls::Error::InvalidCertificate(Fails::NotValidYet),
                Fault::CertificateNotYetValid,
            ),
            (
                rustls::Error::InvalidCertificate(Fails::UnknownIssuer),
                Fault::CertificateUntrusted,
            ),
            (
                rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                Fault::NoCommonTls,
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::HandshakeFailure),
                Fault::NoCommonTls,
            ),
            (
                rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
                Fault::NotTls,
            ),
        ] {
            let source = io::Error::other(error);
            let endpoint = endpoint();
            let error = Error::from(ConnectError::Tls { endpoint, source });
            assert_eq!(error.fault(), expected, "{error}");
        }
        let source = io::ErrorKind::UnexpectedEof.into();
        let endpoint = endpoint();
        let error = Error::from(ConnectError::Tls { endpoint, source });
        assert_eq!(error.fault(), Fault::HandshakeFailed);
    }

    #[test]
    fn a_refused_connection_differs_from_an_unreachable_host() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, Fault::ConnectionRefused),
            (io::ErrorKind::HostUnreachable, Fault::Unreachable),
            (io::ErrorKind::NetworkUnreachable, Fault::Unreachable),
        ] {
            let source = kind.into();
            let endpoint = endpoint();
            let error = Error::from(ConnectError::Dial { endpoint, source });
            assert_eq!(error.fault(), expected, "{error}");
        }
    }

    #[test]
    fn a_refused_authentication_keeps_its_code() {
        let refused = |code: &str, words: &str| {
            let reply = redis::parse_redis_value(format!("-{code} {words}\r\n").as_bytes());
            let error = match reply.expect("an error reply is a value") {
                redis::Value::ServerError(error) => redis::RedisError::from(error),
                other => panic!("not an error: {other:?}"),
            };
            Error::from(ConnectError::Authenticate {
                endpoint: endpoint(),
                source: Refusal::from(&error),
            })
        };
        let wrong = refused("WRONGPASS", "invalid username-password pair");
        let code = "WRONGPASS".to_owned();
        assert_eq!(wrong.fault(), Fault::AuthenticationRefused { code });
        let full = refused("ERR", "max number of clients reached");
        assert_eq!(full.fault(), Fault::ConnectionLimit);
        let closed = redis::RedisError::from(io::Error::from(io::ErrorKind::UnexpectedEof));
        let closed = Error::from(ConnectError::Authenticate {
            endpoint: endpoint(),
            source: Refusal::from(&closed),
        });
        assert_eq!(closed.fault(), Fault::AuthenticationInterrupted);
        let late = redis::RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
        let late = Error::from(ConnectError::Authenticate {
            endpoint: endpoint(),
            source: Refusal::from(&late),
        });
        assert_eq!(late.fault(), Fault::AuthenticationNotAnswered);
    }
}
