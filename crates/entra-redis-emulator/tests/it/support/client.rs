//! A client of the emulated Redis that sees the exact bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Azure, LIMIT, trusting};

pub(crate) struct Client<S = TlsStream<TcpStream>> {
    pub(crate) stream: S,
}

/// Connects to `address` with TLS and verifies that the certificate is good for `name`.
pub(crate) async fn connect(
    azure: &Azure,
    address: &str,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let authority = std::fs::read(azure.variable("REDIS_CA_FILE"));
    let config = trusting(&authority.expect("the emulator wrote it"));
    let name = ServerName::try_from(name.to_owned()).expect("a valid name");
    let socket = TcpStream::connect(address).await?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, socket);
    timeout(LIMIT, connected).await.expect("within the limit")
}

/// Writes a command as clients do.
pub(crate) fn command(arguments: &[&str]) -> String {
    let mut text = format!("*{}\r\n", arguments.len());
    for argument in arguments {
        text += &format!("${}\r\n{argument}\r\n", argument.len());
    }
    text
}

impl Client {
    pub(crate) async fn open(azure: &Azure, address: &str) -> Self {
        let stream = connect(azure, address, "localhost").await;
        Self {
            stream: stream.unwrap_or_else(|error| panic!("{address}: {error}")),
        }
    }

    pub(crate) async fn authenticated(azure: &Azure, address: &str) -> Self {
        let mut client = Self::open(azure, address).await;
        client.ask(&azure.auth().await, "+OK\r\n").await;
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn send(&mut self, text: &str) {
        let sent = self.stream.write_all(text.as_bytes()).await;
        sent.expect("an open connection");
        // TLS may keep bytes back until the next write, and there is none.
        self.stream.flush().await.expect("an open connection");
    }

    /// Reads exactly what is expected.
    pub(crate) async fn expect(&mut self, expected: &str) {
        let mut reply = vec![0; expected.len()];
        let read = timeout(LIMIT, self.stream.read_exact(&mut reply)).await;
        let reply = String::from_utf8_lossy(&reply);
        assert!(matches!(read, Ok(Ok(_))), "{read:?} after {reply:?}");
        assert_eq!(reply, expected);
    }

    /// Sends commands, whose replies must be these.
    pub(crate) async fn ask(&mut self, commands: &str, expected: &str) {
        self.send(commands).await;
        self.expect(expected).await;
    }

    /// Reads up to the end of the connection, which must be a proper end of TLS.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(LIMIT, self.stream.read_to_end(&mut rest)).await;
        assert!(
            matches!(read, Ok(Ok(_))),
            "closed by close_notify: {read:?}"
        );
        String::from_utf8_lossy(&rest).into()
    }

    /// Asserts that nothing arrives for a while.
    pub(crate) async fn is_silent(&mut self) {
        let read = timeout(Duration::from_millis(200), self.stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }

    /// Reads a line and returns it without its end.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            let read = timeout(LIMIT, self.stream.read_u8()).await;
            line.push(read.expect("in time").expect("open").into());
        }
        line.truncate(line.len() - 2);
        line
    }

    /// Sends an inline command and returns its reply.
    pub(crate) async fn value(&mut self, command: &str) -> Value {
        self.send(&format!("{command}\r\n")).await;
        let mut bytes = Vec::new();
        loop {
            let read = timeout(LIMIT, self.stream.read_buf(&mut bytes)).await;
            let read = read.expect("in time").expect("open");
            assert_ne!(read, 0, "{command}: closed");
            if let Ok(value) = redis::parse_redis_value(&bytes) {
                return value;
            }
        }
    }

    /// Sends a command and a mark after it; returns everything up to the mark's reply.
    pub(crate) async fn up_to_mark(&mut self, command: &str) -> String {
        let mark = "$6\r\n|mark|\r\n";
        self.send(&format!("{command}*2\r\n$4\r\nECHO\r\n{mark}"))
            .await;
        let mut reply = String::new();
        while !reply.ends_with(mark) {
            let byte = timeout(LIMIT, self.stream.read_u8()).await;
            reply.push(byte.expect("in time").expect("open").into());
        }
        reply
    }
}
