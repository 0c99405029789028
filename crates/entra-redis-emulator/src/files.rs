//! The files that clients read.
//!
//! # Invariants
//!
//! - They are in a directory that only this user can enter, and are removed when [`Files`] is dropped.
//! - No private key is among them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::certificate::Certificates;
use crate::entra::{Tenant, token};

/// Lifetime of the assertion in the federated token file: the longest of Kubernetes.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The assertion, as Kubernetes projects it into a pod.
pub(crate) const ASSERTION: &str = "azure-identity-token";
/// The system's roots and the emulator's authority, for variables that replace a client's roots.
pub(crate) const BUNDLE: &str = "bundle.pem";
/// The emulator's authority, for variables that add to a client's roots.
pub(crate) const CA: &str = "ca.pem";

/// The directory of the files, removed on drop.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    pub(crate) fn write(certificates: &Certificates) -> Result<Self, Error> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("entra-redis-");
        // The crate's default is a directory that every user can enter.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let directory = builder.tempdir().map_err(Error::Directory)?;
        let files = Self { directory };
        files.replace(CA, &certificates.authority_pem)?;
        files.replace(BUNDLE, &certificates.bundle())?;
        Ok(files)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces a file in one step for its readers, as the kubelet does.
    fn replace(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path(name);
        let new = self.path(&format!("{name}.new"));
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path));
        written.map_err(|source| Error::File { path, source })
    }

    /// Writes an assertion, as Kubernetes projects it into a pod.
    pub(crate) fn write_assertion(&self, tenant: &Tenant) -> Result<(), Error> {
        let now = token::now();
        let assertion = tenant.signer.sign(&json!({
            "iss": tenant.issuer.issuer,
            "sub": tenant.issuer.subject,
            "aud": [token::EXCHANGE_AUDIENCE],
            "iat": now,
            "nbf": now,
            "exp": now + ASSERTION_LIFETIME.as_secs(),
            "jti": tenant.signer.guid(),
        }));
        self.replace(ASSERTION, &assertion)
    }

    /// Renews the assertion long before it expires, until `shutdown`.
    pub(crate) async fn renew_assertion(&self, tenant: &Tenant, shutdown: &CancellationToken) {
        let pause = ASSERTION_LIFETIME / 2;
        while shutdown.run_until_cancelled(sleep(pause)).await.is_some() {
            if let Err(error) = self.write_assertion(tenant) {
                tracing::warn!(%error, "could not renew the federated token file");
            }
        }
    }
}
