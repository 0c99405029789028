//! The errors of binding an emulator. A bound one has no errors of its own.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error of [`Emulator::bind`](crate::Emulator::bind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port is in use, or the address is not one of this machine.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address of the listener.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The emulator's certificates could not be made.
    #[error("cannot create the emulator's certificates")]
    Certificate(#[source] Source),
    /// The directory of the emulator's files could not be created.
    #[error("cannot create a temporary directory")]
    Directory(#[source] io::Error),
    /// The application's certificate could not be read.
    #[error("cannot read a certificate from {}", path.display())]
    ClientCertificate {
        /// The file of [`Options::client_certificate`](crate::Options::client_certificate).
        path: PathBuf,
        /// The reason.
        source: Source,
    },
    /// The application's certificate has a key that Entra ID does not accept.
    #[error("the certificate in {} has no RSA key", path.display())]
    ClientCertificateKey {
        /// The file of [`Options::client_certificate`](crate::Options::client_certificate).
        path: PathBuf,
    },
    /// The trusted issuer's keys could not be read.
    #[error("cannot read a JSON Web Key Set from {}", path.display())]
    KeyFile {
        /// The file of [`KeySource::File`](crate::KeySource::File).
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The HTTP client that reads the trusted issuer's keys could not be set up.
    #[error("cannot set up an HTTP client")]
    HttpClient(#[source] Source),
    /// A file of the emulator could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
