//! Start and stop of an emulator.

use std::net::TcpListener;
use std::path::Path;

use entra_redis_emulator::{Emulator, Options};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::support::{Azure, LIMIT, RedisServer, eventually};

#[tokio::test]
async fn nothing_is_left_after_the_end() {
    let server = RedisServer::start().await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    eventually("the server's clients are closed", async || tasks() == 0).await;
    let options = Options {
        redis: Some(server.address()),
        ..Options::default()
    };
    let emulator = Emulator::bind(options).await.expect("free ports");
    let (azure, stop, running) = Azure::run(emulator);
    let mut client = azure.authenticated().await;
    stop.cancel();
    let stopped = timeout(LIMIT, running).await;
    stopped.expect("in time").expect("no panic");
    assert_eq!(client.rest().await, "");
    TcpStream::connect(azure.variable("REDIS_ENDPOINT"))
        .await
        .expect_err("closed");
    for name in [
        "REDIS_CA_FILE",
        "SSL_CERT_FILE",
        "AZURE_FEDERATED_TOKEN_FILE",
    ] {
        let exists = std::fs::exists(azure.variable(name));
        assert!(!exists.expect("a readable directory"), "{name}");
    }
    eventually("every task has exited", async || tasks() == 0).await;
}

#[tokio::test]
async fn nothing_is_left_of_an_emulator_that_never_ran() {
    let emulator = Emulator::bind(Options::default()).await;
    let emulator = emulator.expect("free ports");
    let variables = emulator.variables();
    let value = |name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        &found.expect("a variable of the emulator").1
    };
    assert!(Path::new(value("REDIS_CA_FILE")).exists());
    drop(emulator);
    assert!(!Path::new(value("REDIS_CA_FILE")).exists());
    TcpStream::connect(value("REDIS_ENDPOINT"))
        .await
        .expect_err("closed");
}

#[cfg(unix)]
#[tokio::test]
async fn only_this_user_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let azure = Azure::with_lifetime(60).await;
    let file = Path::new(azure.variable("REDIS_CA_FILE"));
    let directory = file.parent().expect("a file has a directory");
    let directory = std::fs::metadata(directory).expect("it exists");
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn the_error_names_a_port_that_is_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound socket");
    let options = Options {
        redis_port: address.port(),
        ..Options::default()
    };
    let error = Emulator::bind(options)
        .await
        .expect_err("the port is in use");
    assert_eq!(error.to_string(), format!("cannot listen on {address}"));
}
