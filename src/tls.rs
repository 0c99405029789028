//! Whom do we trust? One `rustls` configuration for a set of certificate authorities.
//!
//! `identity` and `redis` each ask for one at start and use it for every connection they open: the roots are parsed
//! once and session tickets are shared. What always holds: verification is never switched off, and the crypto provider
//! is named here (ring), so that a host program's process-wide provider is neither read nor set.

use std::{path::Path, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use crate::config::Roots;

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
                let from = path.is_dir();
                let certificates = load(
                    (!from).then_some(path.as_path()),
                    from.then_some(path.as_path()),
                )?;
                store.add_parsable_certificates(certificates);
            }
        }
    }
    if let Some(path) = additional {
        for certificate in load(Some(path), None)? {
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
fn load(
    file: Option<&Path>,
    directory: Option<&Path>,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let path = || file.or(directory).unwrap_or(Path::new("")).to_owned();
    let mut found = rustls_native_certs::load_certs_from_paths(file, directory);
    match (found.certs.is_empty(), found.errors.pop()) {
        (false, _) => Ok(found.certs),
        (true, Some(source)) => Err(Error::Unreadable {
            path: path(),
            source,
        }),
        (true, None) => Err(Error::NoCertificate { path: path() }),
    }
}
