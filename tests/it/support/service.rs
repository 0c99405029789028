//! The service as its users run it: a process configured by variables, observed by its log and its ports.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use super::{LIMIT, eventually, raise_file_limit};

pub(crate) struct Service {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// The tasks that read its output to the end.
    readers: Vec<JoinHandle<()>>,
    pub(crate) public: String,
    pub(crate) admin: Option<String>,
    pub(crate) client: reqwest::Client,
}

impl Service {
    /// Starts `entra-redis` with `arguments` and nothing in its environment but `pairs` and PATH, and waits until it
    /// listens.
    pub(crate) async fn start<N: AsRef<str>, V: AsRef<str>>(
        arguments: &[&str],
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self::run(command(arguments), pairs).await
    }

    /// The same with another program built on [`entra_redis_service::app::App`], or a command that executes one.
    pub(crate) async fn run<N: AsRef<str>, V: AsRef<str>>(
        mut command: Command,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        command
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .env("LOG_FORMAT", "json")
            .env("DRAIN_DELAY", "0s");
        for (name, value) in pairs {
            command.env(name.as_ref(), value.as_ref());
        }
        raise_file_limit();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary was built");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let readers = vec![
            collect(child.stdout.take().expect("it is piped"), lines.clone()),
            collect(child.stderr.take().expect("it is piped"), lines.clone()),
        ];
        let mut service = Self {
            child,
            lines,
            readers,
            public: String::new(),
            admin: None,
            client: client(),
        };
        let listening = service.event("listening").await;
        let address = |name: &str| {
            listening[name]
                .as_str()
                .map(|text| format!("http://{text}"))
        };
        service.public = address("server.address").expect("it logs its address");
        service.admin = address("admin.address");
        service
    }

    /// The first log event with this message.
    pub(crate) async fn event(&mut self, message: &str) -> Value {
        let find = |lines: &[String]| {
            lines
                .iter()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|event| event["message"] == message)
        };
        for _ in 0..LIMIT.as_millis() / 20 {
            if let Some(event) = find(&self.lines.lock().expect("no panic under the lock")) {
                return event;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it exited with {status}, log:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no event {message:?} in:\n{}", self.log());
    }

    /// Its output so far.
    pub(crate) fn log(&self) -> String {
        self.lines
            .lock()
            .expect("no panic under the lock")
            .join("\n")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.public)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        let request = self.client.get(self.url(path));
        request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{error:?}, log:\n{}", self.log()))
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.get(path)
            .await
            .text()
            .await
            .expect("the body is whole")
    }

    /// Status and body of a whole URL.
    pub(crate) async fn at(&self, url: &str) -> (u16, String) {
        let answer = self.client.get(url).send().await.expect("it answers");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("the body is whole"))
    }

    /// Its resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let id = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux has it");
        let mut lines = status.lines();
        let resident = lines.find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix(" kB"));
        1024 * kib.expect("it has some").parse::<u64>().expect("a number")
    }

    /// The names of its threads, each cut to 15 letters.
    pub(crate) fn threads(&self) -> Vec<String> {
        let id = self.child.id().expect("it runs");
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("Linux has it");
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok())
            .collect()
    }

    pub(crate) async fn readiness(&self) -> (u16, Value) {
        let response = self.get("/readyz").await;
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_str(&response.text().await.expect("the body is whole"))
                .expect("it is JSON"),
        )
    }

    pub(crate) async fn ready(&self) {
        eventually("ready", async || self.readiness().await.0 == 200).await;
    }

    /// The same where the probes have a port of their own.
    pub(crate) async fn ready_at_admin(&self) {
        let url = format!("{}/readyz", self.admin.as_ref().expect("it has one"));
        eventually("ready", async || self.at(&url).await.0 == 200).await;
    }

    /// Sum over all series of a metric whose labels contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(&self.text("/metrics").await, name, labels)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill")
            .args([signal, &id])
            .status();
        assert!(sent.expect("kill is everywhere").success());
    }

    /// Waits until it has exited.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        match timeout(LIMIT * 2, self.child.wait()).await {
            Ok(status) => {
                for reader in self.readers.drain(..) {
                    reader.await.expect("no panic"); // what it printed last is in the log, too
                }
                status.expect("it is our child")
            }
            Err(_) => panic!("it did not exit, log:\n{}", self.log()),
        }
    }
}

/// `entra-redis` with these arguments and an environment with nothing but PATH.
pub(crate) fn command(arguments: &[&str]) -> Command {
    raise_file_limit();
    let mut command = Command::new(env!("CARGO_BIN_EXE_entra-redis"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(std::env::vars_os().filter(|(name, _)| is_of_the_clock(name)))
        .stdin(Stdio::null());
    command
}

/// The variables of libfaketime, under whose clock all processes of a test are, or none.
fn is_of_the_clock(name: &std::ffi::OsStr) -> bool {
    name == "LD_PRELOAD" || name.as_encoded_bytes().starts_with(b"FAKETIME")
}

/// The path of the example of this name.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("it runs");
    let built = test.ancestors().nth(2).expect("target/debug/deps/it");
    let example = built.join("examples").join(name);
    assert!(
        example.exists(),
        "run `cargo build --examples` first, as `tests/run` does"
    );
    example
}

/// An HTTP client without proxies.
pub(crate) fn client() -> reqwest::Client {
    let client = client_trusting(&[]).build();
    client.expect("a client without TLS files")
}

/// A builder of HTTP clients without proxies that trust these certificates alone.
///
/// It names its crypto provider: one installed for the process would hide that the library needs one.
pub(crate) fn client_trusting(pem: &[u8]) -> reqwest::ClientBuilder {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = roots.add(certificate.expect("it is PEM"));
        added.expect("it is a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls)
}

/// Sum over all series of a metric in Prometheus' text whose labels contain `labels`.
pub(crate) fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn collect(
    output: impl AsyncRead + Unpin + Send + 'static,
    into: Arc<Mutex<Vec<String>>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            into.lock().expect("no panic under the lock").push(line);
        }
    })
}
