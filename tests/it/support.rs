//! The test environment: the service as a child process, a real redis-server, an emulated Azure, and load.

mod collector;
mod increment_load;
mod load;
mod monitored_service;
mod port;
mod process;
mod proxy;
#[expect(dead_code, reason = "the emulator's tests share this file")]
mod redis_cluster;
mod redis_server;
mod service;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use entra_redis_emulator::{Controls, Emulator, Options};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::{
    collector::{Collector, attribute, hexadecimal, text},
    increment_load::{IncrementLoad, ReadLoad},
    load::{Failure, Load, Record},
    monitored_service::MonitoredService,
    port::Port,
    process::{in_own_process, raise_file_limit, write_program},
    proxy::{Fault, Proxy},
    redis_cluster::{RedisCluster, SLOTS},
    redis_server::RedisServer,
    service::{Service, client, client_trusting, command, example, metric},
};

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

/// An emulator that runs until dropped.
pub(crate) struct Azure {
    pub(crate) controls: Controls,
    pub(crate) variables: Vec<(&'static str, String)>,
    _stop: DropGuard,
}

impl Azure {
    pub(crate) async fn start(options: Options) -> Self {
        let emulator = Emulator::bind(options)
            .await
            .expect("free ports were asked for");
        let stop = CancellationToken::new();
        let azure = Self {
            controls: emulator.controls(),
            variables: emulator.variables(),
            _stop: stop.clone().drop_guard(),
        };
        tokio::spawn(emulator.run(stop));
        azure
    }

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

    /// The environment of a service that authenticates by this credential.
    pub(crate) fn environment(&self, credential: &str) -> Vec<(String, String)> {
        let mut pairs: Vec<_> = self
            .variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        pairs.push(("AZURE_TOKEN_CREDENTIALS".to_owned(), credential.to_owned()));
        pairs
    }
}

/// A directory of certificates: an authority and what it signed, for a name.
pub(crate) struct Certificates {
    pub(crate) directory: tempfile::TempDir,
    authority: Arc<Authority>,
}

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Certificates {
    /// `ca.pem`, `server.pem` and `server.key`.
    pub(crate) fn for_name(name: &str) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let key = KeyPair::generate().expect("ring makes keys");
        let mut parameters = CertificateParams::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, format!("authority for {name}"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters
            .self_signed(&key)
            .expect("the parameters are fine");
        let authority = Authority {
            issuer: Issuer::new(parameters, key),
            pem: certificate.pem(),
        };
        Self::signed(Arc::new(authority), name, |_| {})
    }

    /// The same authority's certificate for another name.
    pub(crate) fn another(&self, name: &str) -> Self {
        self.but(name, |_| {})
    }

    /// The same authority's certificate for a name, changed.
    pub(crate) fn but(
        &self,
        name: &str,
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> Self {
        Self::signed(self.authority.clone(), name, change)
    }

    /// The same authority's certificate for a name, expired.
    pub(crate) fn expired(&self, name: &str) -> Self {
        self.but(name, |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1))
    }

    fn signed(
        authority: Arc<Authority>,
        name: &str,
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let write = |file: &str, text: &str| {
            std::fs::write(directory.path().join(file), text).expect("there is room");
        };
        let key = rcgen::KeyPair::generate().expect("ring makes keys");
        let mut server = rcgen::CertificateParams::new([name.to_owned()]).expect("it is a name");
        change(&mut server);
        let certificate = server
            .signed_by(&key, &authority.issuer)
            .expect("the parameters are fine");
        write("ca.pem", &authority.pem);
        write("server.pem", &certificate.pem());
        write("server.key", &key.serialize_pem());
        Self {
            directory,
            authority,
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }
}

/// An error with its sources, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The repository's root.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
