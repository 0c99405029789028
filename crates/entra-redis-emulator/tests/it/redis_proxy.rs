//! The proxy before a real `redis-server`, and before the store.

use std::time::Duration;

use entra_redis_emulator::{Options, RedisFault};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::support::{Azure, LIMIT, RedisServer, command, connect};

const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";

async fn before(server: &RedisServer, lifetime_s: u64) -> Azure {
    Azure::start(Options {
        token_lifetime: Duration::from_secs(lifetime_s),
        redis: Some(server.address()),
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn only_a_valid_token_authenticates() {
    let server = RedisServer::start().await;
    for emulator in [before(&server, 60).await, Azure::with_lifetime(60).await] {
        let mut client = emulator.client().await;
        client.ask("PING\r\n", NOAUTH).await;
        client.ask("*2\r\n$3\r\nGET\r\n$1\r\na\r\n", NOAUTH).await;
        client.send("HELLO 3\r\n").await;
        client
            .expect("-NOAUTH HELLO must be called with the client already authenticated")
            .await;
        let mut client = emulator.client().await;
        let good = emulator.auth().await;
        let (_, user) = good.split_once("$36\r\n").expect("a user name of 36 bytes");
        let another_user = good.replace(&user[..36], &"0".repeat(36));
        client.ask(&another_user, WRONGPASS).await;
        client.ask("AUTH secret\r\n", WRONGPASS).await;
        client.ask("AUTH default secret\r\n", WRONGPASS).await;
        client
            .ask(
                "AUTH\r\n",
                "-ERR wrong number of arguments for 'auth' command\r\n",
            )
            .await;
        client.ask("PING\r\n", NOAUTH).await;
        client.ask(&good, "+OK\r\n").await;
        client.ask("PING\r\n", "+PONG\r\n").await;
        client.ask("AUTH secret\r\n", WRONGPASS).await;
        client.ask("PING\r\n", "+PONG\r\n").await;
        client
            .ask("RESET\r\nPING\r\n", &format!("+RESET\r\n{NOAUTH}"))
            .await;
        client.ask("QUIT\r\nPING\r\n", "+OK\r\n").await;
        assert_eq!(client.rest().await, "");
        let counts = emulator.controls.counts();
        assert_eq!((counts.auth_accepted, counts.auth_refused), (1, 4));
        assert_eq!((counts.connections_opened, counts.tokens_issued), (2, 1));
    }
}

#[tokio::test]
async fn hello_authenticates_and_chooses_the_protocol() {
    let server = RedisServer::start().await;
    for emulator in [before(&server, 60).await, Azure::with_lifetime(60).await] {
        let hello = emulator.hello("SETNAME", "name").await;
        let mut client = emulator.client().await;
        let unknown = hello.replacen("\r\n3\r\n", "\r\n4\r\n", 1);
        let refused = "-NOPROTO unsupported protocol version\r\n";
        client.ask(&unknown, refused).await;
        client.ask("PING\r\n", NOAUTH).await;
        let reply = client.up_to_mark(&hello).await;
        assert!(
            reply.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"),
            "{reply}"
        );
        client.ask("GET nokey\r\n", "_\r\n").await;
        client.ask("CLIENT GETNAME\r\n", "$4\r\nname\r\n").await;
        client
            .ask(
                &hello.replacen("AUTH", "OUTH", 1),
                "-ERR Syntax error in HELLO option 'OUTH'\r\n",
            )
            .await;
        let reply = client.up_to_mark(&command(&["HELLO", "2"])).await;
        assert!(reply.starts_with("*14\r\n"), "{reply}");
    }
}

#[tokio::test]
async fn replies_keep_their_order_in_whatever_pieces_commands_arrive() {
    let server = RedisServer::start().await;
    for emulator in [before(&server, 60).await, Azure::with_lifetime(60).await] {
        let value = "v".repeat(100_000);
        let auth = emulator.auth().await;
        let commands = [
            (command(&["SET", "key", &value]), "+OK\r\n".to_owned()),
            (command(&["GET", "key"]), format!("$100000\r\n{value}\r\n")),
            (auth.clone(), "+OK\r\n".into()),
            (command(&["AUTH", "user", "wrong"]), WRONGPASS.into()),
            (command(&["GET", "none"]), "$-1\r\n".into()),
            (
                command(&["MGET", "key", "none"]),
                format!("*2\r\n$100000\r\n{value}\r\n$-1\r\n"),
            ),
            (
                "AUTH\r\n".into(),
                "-ERR wrong number of arguments for 'auth' command\r\n".into(),
            ),
            (
                command(&["INCR", "key"]),
                "-ERR value is not an integer or out of range\r\n".into(),
            ),
            (command(&["DEL", "key"]), ":1\r\n".into()),
        ];
        let sent: String = commands.iter().map(|(sent, _)| sent.as_str()).collect();
        let expected: String = commands
            .iter()
            .map(|(_, expected)| expected.as_str())
            .collect();
        let mut client = emulator.client().await;
        client.ask(&auth, "+OK\r\n").await;
        for piece in [sent.len(), 9_973, 4_099] {
            for part in sent.as_bytes().chunks(piece) {
                client
                    .stream
                    .write_all(part)
                    .await
                    .expect("an open connection");
                client.stream.flush().await.expect("an open connection");
                tokio::task::yield_now().await;
            }
            client.expect(&expected).await;
        }
    }
}

/// A client that sends everything before it reads anything, as redis-py's pipelines do.
#[tokio::test]
async fn a_long_pipeline_does_not_block() {
    let server = RedisServer::start().await;
    for emulator in [before(&server, 60).await, Azure::with_lifetime(60).await] {
        let mut client = emulator.authenticated().await;
        let text = "x".repeat(1000);
        let (ask, answer) = (command(&["ECHO", &text]), format!("$1000\r\n{text}\r\n"));
        timeout(LIMIT, client.send(&ask.repeat(20_000)))
            .await
            .expect("the proxy keeps reading");
        client.expect(&answer.repeat(20_000)).await;
    }
}

#[tokio::test]
async fn pushes_and_replies_pass_in_order() {
    let server = RedisServer::start().await;
    let emulator = before(&server, 60).await;
    let mut client = emulator.client().await;
    client
        .up_to_mark(&emulator.hello("SETNAME", "name").await)
        .await;
    let subscribe = command(&["SUBSCRIBE", "a", "b"]);
    client
        .send(
            &(subscribe + &emulator.auth().await + &command(&["PUBLISH", "a", "hi"]) + "PING\r\n"),
        )
        .await;
    let confirmed = "+OK\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n";
    client.expect(confirmed).await;
    client
        .expect(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n:1\r\n+PONG\r\n")
        .await;
}

#[tokio::test]
async fn a_connection_is_closed_when_its_token_expires_unless_it_re_authenticated() {
    let server = RedisServer::start().await;
    for emulator in [before(&server, 2).await, Azure::with_lifetime(2).await] {
        let mut expiring = emulator.authenticated().await;
        let mut renewed = emulator.authenticated().await;
        emulator
            .controls
            .set_token_lifetime(Duration::from_secs(60));
        let auth = emulator.auth().await;
        renewed.ask(&auth, "+OK\r\n").await;
        assert_eq!(emulator.controls.counts().auth_repeated, 0);
        renewed.ask(&auth, "+OK\r\n").await;
        renewed.ask("AUTH secret\r\n", WRONGPASS).await;
        renewed.ask(&auth, "+OK\r\n").await;
        // On another connection, or after RESET, it is the first use of the token.
        emulator.client().await.ask(&auth, "+OK\r\n").await;
        renewed.ask("RESET\r\n", "+RESET\r\n").await;
        renewed.ask(&auth, "+OK\r\n").await;
        assert_eq!(emulator.controls.counts().auth_repeated, 2);
        assert_eq!(expiring.rest().await, "");
        renewed.ask("PING\r\n", "+PONG\r\n").await;
        assert_eq!(emulator.controls.counts().connections_expired, 1);
    }
}

#[tokio::test]
async fn redis_faults_are_injected() {
    let emulator = Azure::with_lifetime(60).await;
    let mut client = emulator.authenticated().await;
    emulator.controls.set_redis(RedisFault::RefuseAuth);
    client.ask(&emulator.auth().await, WRONGPASS).await;
    client.ask("PING\r\n", "+PONG\r\n").await;
    emulator.controls.set_redis(RedisFault::HangAuth);
    let mut hung = emulator.client().await;
    hung.send(&(emulator.auth().await + "PING\r\n")).await;
    hung.is_silent().await;
    client.ask("PING\r\n", "+PONG\r\n").await;
    emulator.controls.set_redis(RedisFault::Refuse);
    connect(&emulator, emulator.variable("REDIS_ENDPOINT"), "localhost")
        .await
        .expect_err("closed at once");
    client.ask("PING\r\n", "+PONG\r\n").await;
    emulator.controls.disconnect_all();
    assert_eq!(client.rest().await, "");
    assert_eq!(hung.rest().await, "");
    emulator.controls.set_redis(RedisFault::None);
    emulator
        .authenticated()
        .await
        .ask("PING\r\n", "+PONG\r\n")
        .await;
}
