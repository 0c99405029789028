//! A real redis-server on a port of its own.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};

use super::{Certificates, LIMIT, Port, eventually, raise_file_limit};

pub(crate) struct RedisServer {
    child: Child,
    /// Plain text; for administration, and for the emulator's proxy.
    pub(crate) port: u16,
    /// TLS, where certificates were given.
    pub(crate) tls_port: u16,
    arguments: Vec<String>,
    _reserved: [Port; 2],
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::with_arguments(&[]).await
    }

    pub(crate) async fn with_arguments(more: &[&str]) -> Self {
        Self::start_with(None, more).await
    }

    pub(crate) async fn with_tls(certificates: &Certificates) -> Self {
        Self::start_with(Some(certificates), &[]).await
    }

    /// Starts one on a port that the test has known before.
    pub(crate) async fn start_on(port: Port) -> Self {
        Self::launch(port, None, &[]).await
    }

    pub(crate) async fn start_with(certificates: Option<&Certificates>, more: &[&str]) -> Self {
        Self::launch(Port::reserve(), certificates, more).await
    }

    async fn launch(port: Port, certificates: Option<&Certificates>, more: &[&str]) -> Self {
        let tls_port = Port::reserve();
        let mut arguments: Vec<String> = ["--save", "", "--bind", "127.0.0.1", "--port"]
            .map(str::to_owned)
            .to_vec();
        arguments.push(port.to_string());
        if let Some(certificates) = certificates {
            let file = |name| certificates.path(name).display().to_string();
            let tls = [
                ("--tls-port", tls_port.to_string()),
                ("--tls-cert-file", file("server.pem")),
                ("--tls-key-file", file("server.key")),
                ("--tls-ca-cert-file", file("ca.pem")),
                ("--tls-auth-clients", "no".to_owned()),
                ("--tls-protocols", "TLSv1.3".to_owned()),
            ];
            arguments.extend(
                tls.into_iter()
                    .flat_map(|(name, value)| [name.to_owned(), value]),
            );
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let mut server = Self {
            child: spawn(&arguments),
            port: port.number,
            tls_port: tls_port.number,
            arguments,
            _reserved: [port, tls_port],
        };
        server.answers().await;
        server
    }

    /// Stops it as a machine's loss does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Suspends it until it is resumed or killed: to its peers, a machine that is gone.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill is everywhere").success());
    }

    /// Starts it again on the same ports.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.arguments);
        self.answers().await;
    }

    async fn answers(&mut self) {
        eventually("redis-server answers", async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("redis-server exited with {status}");
            }
            match self.try_admin().await {
                Ok(mut admin) => redis::cmd("PING")
                    .query_async::<()>(&mut admin)
                    .await
                    .is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    pub(super) async fn try_admin(&self) -> redis::RedisResult<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        // The client's own half second for a reply is too little for MIGRATE where the machine is busy.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(LIMIT))
            .set_response_timeout(Some(LIMIT));
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// A connection of its own, as the administrator.
    pub(crate) async fn admin(&self) -> MultiplexedConnection {
        self.try_admin().await.expect("it answers")
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(arguments: &[String]) -> Child {
    raise_file_limit();
    Command::new("redis-server")
        .args(arguments)
        .current_dir(Path::new("/"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed; `tests/run` sees to it")
}
