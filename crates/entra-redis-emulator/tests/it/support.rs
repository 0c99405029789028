//! The test environment: an emulator that runs until dropped, its clients, and real redis-servers.

mod client;
// The servers are those of the service's tests, which use the rest of these files.
#[path = "../../../../tests/it/support/port.rs"]
mod port;
#[path = "../../../../tests/it/support/process.rs"]
#[expect(dead_code, reason = "shared with the service's tests")]
mod process;
#[path = "../../../../tests/it/support/redis_cluster.rs"]
#[expect(dead_code, reason = "shared with the service's tests")]
mod redis_cluster;
#[path = "../../../../tests/it/support/redis_server.rs"]
#[expect(dead_code, reason = "shared with the service's tests")]
mod redis_server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use entra_redis_emulator::{Controls, Emulator, Options};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use client::{Client, command, connect};
use port::Port;
use process::raise_file_limit;
pub(crate) use redis_cluster::RedisCluster;
pub(crate) use redis_server::RedisServer;

/// The limit for anything that must happen "within seconds". Not a benchmark: a machine may be slow.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Asks until the answer is true.
pub(crate) async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !ask().await {
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The certificates of a server with TLS, of which these tests start none.
pub(crate) enum Certificates {}

impl Certificates {
    fn path(&self, _: &str) -> PathBuf {
        match *self {}
    }
}

/// An emulator that runs until dropped.
pub(crate) struct Azure {
    pub(crate) controls: Controls,
    pub(crate) variables: Vec<(&'static str, String)>,
    _stop: DropGuard,
}

/// An access token with the claims in it.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) claims: Value,
}

impl Azure {
    pub(crate) async fn start(options: Options) -> Self {
        let emulator = Emulator::bind(options).await.expect("free ports");
        Self::run(emulator).0
    }

    /// Runs an emulator; returns its stop signal and its task too.
    pub(crate) fn run(emulator: Emulator) -> (Self, CancellationToken, JoinHandle<()>) {
        let stop = CancellationToken::new();
        let azure = Self {
            controls: emulator.controls(),
            variables: emulator.variables(),
            _stop: stop.clone().drop_guard(),
        };
        let running = tokio::spawn(emulator.run(stop.clone()));
        (azure, stop, running)
    }

    /// One whose tokens have this lifetime, before the store.
    pub(crate) async fn with_lifetime(seconds: u64) -> Self {
        Self::start(Options {
            token_lifetime: Duration::from_secs(seconds),
            ..Options::default()
        })
        .await
    }

    pub(crate) fn variable(&self, name: &str) -> &str {
        let found = self.variables.iter().find(|(known, _)| *known == name);
        &found
            .unwrap_or_else(|| panic!("the emulator gives {name}"))
            .1
    }

    /// Gets a new token as the user-assigned managed identity.
    pub(crate) async fn token(&self) -> Token {
        let response = http(&[])
            .get(format!(
                "{}?api-version=2019-08-01&resource=https://redis.azure.com&client_id={}",
                self.variable("IDENTITY_ENDPOINT"),
                self.variable("AZURE_CLIENT_ID"),
            ))
            .header("x-identity-header", self.variable("IDENTITY_HEADER"))
            .send()
            .await
            .expect("the emulator responds");
        let body = response.text().await.expect("a complete body");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let text = body["access_token"].as_str().expect("a token").to_owned();
        let claims = text.split('.').nth(1).expect("a token has three parts");
        let claims = BASE64URL.decode(claims).expect("base64");
        let claims = serde_json::from_slice(&claims).expect("claims are JSON");
        Token { text, claims }
    }

    /// `AUTH` with a new token.
    pub(crate) async fn auth(&self) -> String {
        let token = self.token().await;
        command(&["AUTH", token.object_id(), &token.text])
    }

    /// `HELLO 3` with a new token and one more option.
    pub(crate) async fn hello(&self, option: &str, value: &str) -> String {
        let token = self.token().await;
        let hello = ["HELLO", "3", "AUTH", token.object_id(), &token.text];
        command(&[&hello[..], &[option, value]].concat())
    }

    /// A client at the endpoint.
    pub(crate) async fn client(&self) -> Client {
        Client::open(self, self.variable("REDIS_ENDPOINT")).await
    }

    /// A client at the endpoint that authenticated with a new token.
    pub(crate) async fn authenticated(&self) -> Client {
        Client::authenticated(self, self.variable("REDIS_ENDPOINT")).await
    }

    /// An HTTP client that trusts the emulator.
    pub(crate) fn http(&self) -> reqwest::Client {
        let authority = std::fs::read(self.variable("REDIS_CA_FILE"));
        http(&authority.expect("the emulator wrote it"))
    }
}

impl Token {
    pub(crate) fn claim(&self, name: &str) -> &str {
        let claim = self.claims[name].as_str();
        claim.unwrap_or_else(|| panic!("the token has the claim {name}"))
    }

    pub(crate) fn object_id(&self) -> &str {
        self.claim("oid")
    }
}

/// A TLS configuration that trusts these certificates alone. Names its crypto provider: the emulator must not need one
/// that is installed for the process.
fn trusting(pem: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = roots.add(certificate.expect("PEM"));
        added.expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn http(pem: &[u8]) -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(trusting(pem))
        .build()
        .expect("a valid configuration")
}

/// The directory of these tests.
pub(crate) fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it"))
}
