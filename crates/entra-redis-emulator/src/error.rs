//! Errors of the start: why can there be no emulator?
//!
//! `Emulator::bind` and the modules it calls return them. Once bound, an emulator has no errors of its own; those that it
//! plays are in `entra`, `front` and `store`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::pki_types::pem;

/// Why an emulator cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port is taken, or the address is not this machine's.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused the certificate made.
    #[error("cannot use the certificate made")]
    Tls(#[from] rustls::Error),
    /// There is no directory for the files.
    #[error("cannot make a temporary directory")]
    Directory(#[source] io::Error),
    /// The client certificate could not be read.
    #[error("cannot read a certificate from {}", path.display())]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The client certificate has a key that Entra ID does not take.
    #[error("the certificate in {} is not one with an RSA key", path.display())]
    ClientCertificateKey {
        /// The file.
        path: PathBuf,
    },
    /// The trusted issuer's keys could not be read.
    #[error("cannot read a JSON Web Key Set from {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no client to ask for the trusted issuer's keys.
    #[error("cannot set up an HTTP client")]
    HttpClient(#[source] reqwest::Error),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
