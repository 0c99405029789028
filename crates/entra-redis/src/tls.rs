//! Whom do we trust? One `rustls` configuration for a set of certificate authorities.
//!
//! `identity` and `redis` each ask for one at start and use it for every connection they open: the roots are parsed
//! once and session tickets are shared. What always holds: verification is never switched off, and the crypto provider
//! is named here (ring), so that a host program's process-wide provider is neither read nor set.

use std::{path::Path, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_native_certs::{CertificateResult, ErrorKind};

use crate::{config::Roots, file};

/// Why no trust could be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing to trust: every handshake would fail.
    #[error(
        "no certificate authority found: install the ca-certificates package, or set SSL_CERT_FILE"
    )]
    NoRoots,
    /// A file or directory of certificate authorities could not be used.
    #[error("cannot read certificate authorities from {}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_native_certs::Error,
    },
    /// A file was read and has no certificate in it.
    #[error("no PEM certificate in {}", path.display())]
    NoCertificate {
        /// The file or directory.
        path: PathBuf,
    },
    /// rustls refused the parts.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// A client configuration that trusts `roots` (the system's where both parts are unset) and the authorities in
/// `additional`.
///
/// # Errors
/// A named file that cannot be read or holds no certificate, or nothing to trust at all.
pub fn client_config(roots: &Roots, additional: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    match (&roots.file, &roots.directory) {
        (None, None) => {
            // Single unreadable certificates among the system's are not our concern; none at all is, below.
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
        (file, directory) => {
            for path in [file, directory].into_iter().flatten() {
                store.add_parsable_certificates(load(path)?);
            }
        }
    }
    if let Some(path) = additional {
        for certificate in load(path)? {
            store.add(certificate)?;
        }
    }
    if store.is_empty() {
        return Err(Error::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth())
}

/// Certificates of one file or one directory.
fn load(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut found = match path.is_dir() {
        true => rustls_native_certs::load_certs_from_paths(None, Some(path)),
        false => load_file(path),
    };
    let path = path.to_owned();
    match (found.certs.is_empty(), found.errors.pop()) {
        (false, _) => Ok(found.certs),
        (true, Some(source)) => Err(Error::Unreadable { path, source }),
        (true, None) => Err(Error::NoCertificate { path }),
    }
}

/// As rustls-native-certs would, but for a file without an end.
fn load_file(path: &Path) -> CertificateResult {
    let mut found = CertificateResult::default();
    let mut fail = |kind| {
        let context = "failed to read PEM file";
        found
            .errors
            .push(rustls_native_certs::Error { context, kind });
    };
    match file::read(path) {
        Err(inner) => fail(ErrorKind::Io {
            inner,
            path: path.to_owned(),
        }),
        Ok(bytes) => {
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                match certificate {
                    Ok(certificate) => found.certs.push(certificate),
                    Err(error) => fail(ErrorKind::Pem(error)),
                }
            }
        }
    }
    found
}
