//! The trusted issuer: whose assertions may be exchanged for a token?
//!
//! `Emulator::bind` makes one [`TrustedIssuer`]: the emulator itself, which then writes an assertion for its clients, or
//! a Kubernetes cluster that is named with its keys. `entra` asks it whether an assertion is signed. What always holds:
//! keys are read again only when an assertion names one that is not known, at most every [`REREAD_PAUSE`], by one
//! request at a time and within [`READ_LIMIT`]; the keys known stay good when that fails. Claims are `entra`'s business.

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

/// Pause between two readings of the keys: assertions with made-up key ids must not become load for the cluster.
const REREAD_PAUSE: Duration = Duration::from_secs(3);

/// Limit for reading the keys: less than SDKs wait for an answer.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The subject of the assertions that the emulator writes.
const SUBJECT: &str = "system:serviceaccount:default:entra-redis";

/// Whose assertions the application takes for its own: a federated identity credential, as Entra ID has it.
///
/// The audience is always `api://AzureADTokenExchange`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedCredential {
    /// The `iss` of the assertions, to the letter: for a Kubernetes cluster its `--service-account-issuer`.
    pub issuer: String,
    /// The `sub` of the assertions: `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    /// The issuer's public keys, RS256 or ES256.
    pub keys: KeySource,
}

/// Where an issuer's public keys are: a JSON Web Key Set, what `kubectl get --raw /openid/v1/jwks` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file; it must be there at the start.
    File(PathBuf),
    /// An address, http or https (the system's roots); asked when the first assertion comes.
    Url(String),
}

impl From<String> for KeySource {
    /// What starts with `http://` or `https://` is an address.
    fn from(text: String) -> Self {
        if text.starts_with("http://") || text.starts_with("https://") {
            Self::Url(text)
        } else {
            Self::File(text.into())
        }
    }
}

/// Why an assertion counts as not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// The issuer has no such key.
    KeyNotFound,
    /// The key says no.
    Signature,
    /// The keys cannot be read.
    KeysUnavailable,
}

/// Who may vouch for the application, and with which keys.
pub(crate) struct TrustedIssuer {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// None for the emulator itself, whose key never changes.
    source: Option<Source>,
    known: Mutex<Known>,
}

/// What is known of the keys.
struct Known {
    keys: KeySet,
    /// When they may be read again.
    next: Instant,
    /// Whether the last reading succeeded.
    available: bool,
}

enum Source {
    File(PathBuf),
    Url(String, reqwest::Client),
}

/// Why keys cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the file cannot be read")]
    File(#[from] io::Error),
    #[error("the address does not answer")]
    Http(#[from] reqwest::Error),
    #[error("it is not a JSON Web Key Set")]
    Json(#[from] serde_json::Error),
}

impl TrustedIssuer {
    /// The emulator itself.
    pub(crate) fn own(signer: &Signer, authority: &str) -> Self {
        let keys = KeySet::parse(signer.key_set().to_string().as_bytes());
        let keys = keys.expect("the emulator's own key set is one");
        Self::new(
            format!("{authority}cluster"),
            SUBJECT.to_owned(),
            None,
            keys,
        )
    }

    /// The issuer of a federated credential. A file of keys is read at once, so that a wrong path shows at the start.
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
            next: Instant::now(),
            available: true,
        };
        Self {
            issuer,
            subject,
            source,
            known: Mutex::new(known),
        }
    }

    /// Whether this issuer signed an assertion. A dropped future leaves the keys as they were.
    pub(crate) async fn check_signature(&self, jwt: &Jwt<'_>) -> Result<(), Unsigned> {
        let mut known = self.known.lock().await;
        if known.keys.of(jwt).is_none()
            && let Some(source) = &self.source
            && known.next <= Instant::now()
        {
            known.next = Instant::now() + REREAD_PAUSE;
            let read = source.read().await;
            known.available = read.is_ok();
            match read {
                Ok(keys) => known.keys = keys,
                Err(error) => tracing::warn!(
                    issuer = self.issuer,
                    error = &error as &dyn std::error::Error,
                    "the issuer's keys cannot be read: its assertions are refused"
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

/// A client that trusts the system's roots. The process-wide crypto provider is neither read nor installed.
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
        .timeout(READ_LIMIT)
        .build()
        .map_err(|error| Error::HttpClient(error.into()))
}
