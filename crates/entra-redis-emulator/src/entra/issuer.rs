//! The trusted issuer of federated assertions.
//!
//! It is the emulator itself, which then writes an assertion for its clients, or a Kubernetes cluster with its keys.
//!
//! # Invariants
//!
//! - Keys are read again only when an assertion names an unknown one, at most every [`REREAD_PAUSE`], by one request at a
//!   time and within [`READ_TIMEOUT`].
//! - If reading fails, the known keys stay valid.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::jwt::Jwt;
use super::token::Signer;
use crate::Error;
use keys::KeySet;

mod keys;

/// Pause between two reads of the keys: assertions with invented key ids must not become load for the cluster.
const REREAD_PAUSE: Duration = Duration::from_secs(3);

/// Timeout for reading the keys, shorter than the SDKs' timeouts.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The subject of the assertions that the emulator writes.
const SUBJECT: &str = "system:serviceaccount:default:entra-redis";

/// A federated identity credential of the application: the issuer and subject whose assertions authenticate it.
///
/// The audience is always `api://AzureADTokenExchange`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedCredential {
    /// The exact `iss` of the assertions: for a Kubernetes cluster its `--service-account-issuer`.
    pub issuer: String,
    /// The `sub` of the assertions: `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    /// The issuer's public keys, RS256 or ES256.
    pub keys: KeySource,
}

/// The place of an issuer's public keys: a JSON Web Key Set, as `kubectl get --raw /openid/v1/jwks` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file, which is read by [`Emulator::bind`](crate::Emulator::bind) for the first time.
    File(PathBuf),
    /// A URL, HTTP or HTTPS (with the system's roots), which is read when the first assertion arrives.
    Url(String),
}

impl From<String> for KeySource {
    /// A text that starts with `http://` or `https://` is a URL, any other one a file.
    fn from(text: String) -> Self {
        if text.starts_with("http://") || text.starts_with("https://") {
            Self::Url(text)
        } else {
            Self::File(text.into())
        }
    }
}

/// A reason for which an assertion is not signed by the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// The issuer has no such key.
    KeyNotFound,
    /// The signature is not one of the key.
    Signature,
    /// The keys cannot be read.
    KeysUnavailable,
}

/// An issuer with its keys.
pub(crate) struct TrustedIssuer {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// `None` for the emulator itself, whose key never changes.
    source: Option<Source>,
    known: Mutex<Known>,
}

/// The keys that were read last.
struct Known {
    keys: KeySet,
    /// Earliest time of the next read.
    next_read: Instant,
    /// The last read succeeded.
    available: bool,
}

enum Source {
    File(PathBuf),
    Url(String, reqwest::Client),
}

/// An error of reading keys.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("cannot read the file")]
    File(#[from] io::Error),
    #[error("cannot fetch the URL")]
    Http(#[from] reqwest::Error),
    #[error("not a JSON Web Key Set")]
    Json(#[from] serde_json::Error),
}

impl TrustedIssuer {
    /// The emulator itself as issuer.
    pub(crate) fn own(signer: &Signer, authority: &str) -> Self {
        let keys = KeySet::parse(signer.key_set().to_string().as_bytes());
        let keys = keys.expect("the emulator writes a valid key set");
        Self::new(
            format!("{authority}cluster"),
            SUBJECT.to_owned(),
            None,
            keys,
        )
    }

    /// The issuer of a federated credential. A file of keys is read at once, so that a wrong path is found at the start.
    pub(crate) fn of(credential: FederatedCredential) -> Result<Self, Error> {
        let (source, keys) = match credential.keys {
            KeySource::File(path) => {
                let keys = read_file(&path);
                let keys = keys.map_err(|source| Error::KeyFile {
                    path: path.clone(),
                    source,
                })?;
                (Source::File(path), keys)
            }
            KeySource::Url(url) => (Source::Url(url, client()?), KeySet::default()),
        };
        Ok(Self::new(
            credential.issuer,
            credential.subject,
            Some(source),
            keys,
        ))
    }

    fn new(issuer: String, subject: String, source: Option<Source>, keys: KeySet) -> Self {
        let known = Known {
            keys,
            next_read: Instant::now(),
            available: true,
        };
        Self {
            issuer,
            subject,
            source,
            known: Mutex::new(known),
        }
    }

    /// Checks that this issuer signed an assertion. Dropping the future leaves the keys as they are.
    pub(crate) async fn check_signature(&self, jwt: &Jwt<'_>) -> Result<(), Unsigned> {
        let mut known = self.known.lock().await;
        if known.keys.of(jwt).is_none()
            && let Some(source) = &self.source
            && known.next_read <= Instant::now()
        {
            known.next_read = Instant::now() + REREAD_PAUSE;
            let read = source.read().await;
            known.available = read.is_ok();
            match read {
                Ok(keys) => known.keys = keys,
                Err(error) => tracing::warn!(
                    token.issuer = self.issuer,
                    error = &error as &dyn std::error::Error,
                    "could not read the issuer's keys"
                ),
            }
        }
        match known.keys.of(jwt) {
            Some(key) if key.signed(jwt) => Ok(()),
            Some(_) => Err(Unsigned::Signature),
            None if known.available => Err(Unsigned::KeyNotFound),
            None => Err(Unsigned::KeysUnavailable),
        }
    }
}

impl Source {
    async fn read(&self) -> Result<KeySet, ReadError> {
        match self {
            Self::File(path) => Ok(read_file(path)?),
            Self::Url(url, client) => {
                let answer = client.get(url).send().await?.error_for_status()?;
                Ok(KeySet::parse(&answer.bytes().await?)?)
            }
        }
    }
}

fn read_file(path: &Path) -> io::Result<KeySet> {
    Ok(KeySet::parse(&std::fs::read(path)?)?)
}

/// Returns an HTTP client that trusts the system's roots, with a crypto provider of its own.
fn client() -> Result<reqwest::Client, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::HttpClient(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(READ_TIMEOUT)
        .build()
        .map_err(|error| Error::HttpClient(error.into()))
}
