//! TLS for clients: certificate authorities, and one `rustls` configuration for a set of them.
//!
//! A file or directory of certificate authorities is read and parsed once, where its name is read; afterwards only the
//! parsed [`CaCertificates`] travel. `identity` and `redis` each take one configuration at start and use it for every
//! connection they open, so that session tickets are shared.
//!
//! # Invariants
//! - Verification is never switched off.
//! - The crypto provider is named here (ring): a host program's process-wide provider is neither read nor set.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::file;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failure to set up TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No certificate authority is trusted: every handshake would fail.
    #[error(
        "no certificate authority found: install the ca-certificates package, or set SSL_CERT_FILE"
    )]
    NoRoots,
    /// A file or directory of certificate authorities cannot be read.
    #[error("cannot read certificate authorities from {}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Source,
    },
    /// A file was read, and one of its certificates cannot be parsed.
    #[error("cannot parse a certificate in {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Source,
    },
    /// A file or directory was read and contains no certificate.
    #[error("no PEM certificate in {}", path.display())]
    NoCertificate {
        /// The file or directory.
        path: PathBuf,
    },
    /// rustls rejected the configuration.
    #[error("cannot set up TLS")]
    Setup(#[source] Source),
}

/// A set of certificate authorities, read and parsed.
#[derive(Clone)]
pub struct CaCertificates(Arc<RootCertStore>);

impl CaCertificates {
    /// Reads a PEM file of certificates.
    ///
    /// # Errors
    /// The file cannot be read, contains no certificate, or contains one that cannot be parsed.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let malformed = |source| Error::Malformed {
            path: path.to_owned(),
            source,
        };
        let bytes = file::read(path).map_err(|source| Error::Unreadable {
            path: path.to_owned(),
            source: source.into(),
        })?;
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|source| malformed(source.into()))?;
            let added = store.add(certificate);
            added.map_err(|source| malformed(source.into()))?;
        }
        Self::unless_empty(store, path)
    }

    /// Reads every PEM file of a directory. A single file that cannot be read or parsed is ignored, because a directory of
    /// the system's may contain anything.
    ///
    /// # Errors
    /// The directory cannot be read, or no file in it contains a certificate.
    pub fn from_directory(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut found = rustls_native_certs::load_certs_from_paths(None, Some(path));
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(found.certs);
        match found.errors.pop() {
            Some(source) if store.is_empty() => Err(Error::Unreadable {
                path: path.to_owned(),
                source: source.into(),
            }),
            _ => Self::unless_empty(store, path),
        }
    }

    fn unless_empty(store: RootCertStore, path: &Path) -> Result<Self, Error> {
        if store.is_empty() {
            return Err(Error::NoCertificate {
                path: path.to_owned(),
            });
        }
        Ok(Self(Arc::new(store)))
    }
}

impl fmt::Debug for CaCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaCertificates")
            .field("count", &self.0.len())
            .finish()
    }
}

/// Certificate authorities that replace the system's; both unset means the system's.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// `SSL_CERT_FILE`.
    pub file: Option<CaCertificates>,
    /// `SSL_CERT_DIR`.
    pub directory: Option<CaCertificates>,
}

/// Returns a client configuration that trusts `roots` and the authorities in `additional`.
///
/// # Errors
/// No certificate authority is trusted at all.
#[doc(hidden)] // for entra-redis-service, which exports telemetry over https
pub fn client_config(
    roots: &Roots,
    additional: Option<&CaCertificates>,
) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    if let (None, None) = (&roots.file, &roots.directory) {
        // A single unreadable certificate among the system's is no error here; having none at all is, below.
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
    }
    let named = [roots.file.as_ref(), roots.directory.as_ref(), additional];
    for certificates in named.into_iter().flatten() {
        store.extend(certificates.0.roots.iter().cloned());
    }
    if store.is_empty() {
        return Err(Error::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Setup(source.into()))?
        .with_root_certificates(store)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> String {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]);
        made.expect("ring makes keys").cert.pem()
    }

    #[test]
    fn a_file_yields_all_its_certificates_or_an_error_by_cause() {
        let directory = tempfile::tempdir().expect("there is room");
        let read = |text: &str| {
            let path = directory.path().join("ca.pem");
            std::fs::write(&path, text).expect("there is room");
            CaCertificates::from_file(&path)
        };
        let (one, two) = (certificate("one"), certificate("two"));
        let both = read(&format!("# a comment\n{one}\n{two}")).expect("both are valid");
        assert_eq!(format!("{both:?}"), "CaCertificates { count: 2 }");

        let cut_off = &one[..one.len() / 2];
        let not_a_certificate =
            "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
        for malformed in [cut_off, not_a_certificate] {
            let error = read(&format!("{two}\n{malformed}")).expect_err("one is malformed");
            assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
        }
        for without in ["", "text"] {
            let error = read(without).expect_err("it has no certificate");
            assert!(matches!(error, Error::NoCertificate { .. }), "{error:?}");
        }
        for unreadable in [
            directory.path(),
            Path::new("/dev/zero"),
            Path::new("absent"),
        ] {
            let error = CaCertificates::from_file(unreadable).expect_err("it is unreadable");
            assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_directory_yields_what_can_be_parsed_and_needs_one_certificate() {
        let directory = tempfile::tempdir().expect("there is room");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("there is room");
        };
        let read = || CaCertificates::from_directory(directory.path());
        write("README", "no certificate");
        let error = read().expect_err("it has no certificate");
        assert!(matches!(error, Error::NoCertificate { .. }), "{error:?}");
        write("one.pem", &certificate("one"));
        assert_eq!(read().expect("it has one").0.len(), 1);
        let error = CaCertificates::from_directory("absent").expect_err("it is absent");
        assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    }

    #[test]
    fn roots_replace_the_systems_and_additional_certificates_join_them() {
        let directory = tempfile::tempdir().expect("there is room");
        let parsed = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, certificate(name)).expect("there is room");
            CaCertificates::from_file(&path).expect("it is valid")
        };
        let roots = Roots {
            file: Some(parsed("file")),
            directory: Some(parsed("directory")),
        };
        let additional = parsed("additional");
        // Everything was parsed above: the files are not needed any more.
        drop(directory);
        client_config(&roots, Some(&additional)).expect("three authorities");
    }
}
