//! Files: what a client reads from disk.
//!
//! `Emulator::bind` writes them into a directory only this user can enter, `Emulator::run` renews the one that ages.
//! They go when [`Files`] is dropped. No private key is among them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::certificate::Certificates;
use crate::entra::{Tenant, token};

/// Life of the assertion in the federated token file: Kubernetes' longest.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The assertion, as Kubernetes projects it into a pod.
pub(super) const ASSERTION: &str = "azure-identity-token";
/// The system's roots and the emulator's authority, for variables that replace a client's roots.
pub(super) const BUNDLE: &str = "bundle.pem";
/// The emulator's authority, for variables that add to a client's roots.
pub(super) const CA: &str = "ca.pem";

/// The directory, which goes with this.
pub(super) struct Files {
    directory: TempDir,
}

impl Files {
    pub(super) fn write(certificates: &Certificates) -> Result<Self, Error> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("entra-redis-");
        // Left to itself the crate makes a directory that everyone may enter.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let directory = builder.tempdir().map_err(Error::Directory)?;
        let files = Self { directory };
        files.replace(CA, &certificates.authority_pem)?;
        files.replace(BUNDLE, &certificates.bundle())?;
        Ok(files)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in one step for its readers, as the kubelet does.
    fn replace(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path(name);
        let new = self.path(&format!("{name}.new"));
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path));
        written.map_err(|source| Error::File { path, source })
    }

    /// Writes what Kubernetes projects into a pod: the assertion that it is who it is.
    pub(super) fn write_assertion(&self, tenant: &Tenant) -> Result<(), Error> {
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

    /// Renews the assertion long before it ends, until `shutdown`.
    pub(super) async fn renew_assertion(&self, tenant: &Tenant, shutdown: &CancellationToken) {
        let pause = ASSERTION_LIFETIME / 2;
        while shutdown.run_until_cancelled(sleep(pause)).await.is_some() {
            if let Err(error) = self.write_assertion(tenant) {
                tracing::warn!(%error, "the emulator cannot renew the federated token file");
            }
        }
    }
}
