//! The emulator as its clients meet it: over sockets, before a real `redis-server` and before the store.

use std::io;
use std::net::{TcpListener as StdListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt as _;

use super::*;
use crate::entra::token;

const LIMIT: Duration = Duration::from_secs(10);
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";

/// A real server that lives as long as this.
struct Server {
    child: Child,
    address: String,
    _reserved: UdpSocket,
}

impl Server {
    async fn start() -> Self {
        // Below the ports that the system hands out; the UDP port of the same number is the mark that other tests see.
        let reserved = (20_000..22_768).find_map(|port| {
            let mark = UdpSocket::bind(("127.0.0.1", port)).ok()?;
            let is_free = StdListener::bind(("127.0.0.1", port)).is_ok();
            is_free.then(|| (port.to_string(), mark))
        });
        let (port, reserved) = reserved.expect("a port is free");
        let child = Command::new("redis-server")
            .args(["--port", &port, "--save", "", "--bind", "127.0.0.1"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed for this test");
        let address = format!("127.0.0.1:{port}");
        let up = async {
            while TcpStream::connect(&address).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, up).await.expect("redis-server starts");
        Self {
            child,
            address,
            _reserved: reserved,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A running emulator.
struct Running {
    tenant: Arc<Tenant>,
    variables: HashMap<&'static str, String>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    server: Option<Server>,
}

impl Running {
    async fn start(lifetime_s: u64, server: Option<Server>) -> Self {
        let options = Options {
            token_lifetime: Duration::from_secs(lifetime_s),
            redis: server.as_ref().map(|server| server.address.clone()),
            ..Options::default()
        };
        let emulator = Emulator::bind(options).await.expect("it can be bound");
        let shutdown = CancellationToken::new();
        Self {
            tenant: Arc::clone(&emulator.tenant),
            variables: emulator.variables().into_iter().collect(),
            task: tokio::spawn(emulator.run(shutdown.clone())),
            shutdown,
            server,
        }
    }

    /// One before a real server, one before the store.
    async fn both(lifetime_s: u64) -> [Self; 2] {
        let server = Server::start().await;
        [
            Self::start(lifetime_s, Some(server)).await,
            Self::start(lifetime_s, None).await,
        ]
    }

    fn controls(&self) -> &Controls {
        &self.tenant.controls
    }

    /// `AUTH` with a new token.
    fn auth(&self) -> String {
        let (issued, _) = self.tenant.issue(&self.tenant.application);
        let user = &self.tenant.application.object_id;
        command(&["AUTH", user, &issued.text])
    }

    /// `HELLO 3` with a new token and one more option.
    fn hello(&self, option: &str, value: &str) -> String {
        let (issued, _) = self.tenant.issue(&self.tenant.application);
        let user = &self.tenant.application.object_id;
        command(&["HELLO", "3", "AUTH", user, &issued.text, option, value])
    }

    async fn tls(&self, endpoint: &str) -> io::Result<TlsStream<TcpStream>> {
        let authority = CertificateDer::from_pem_file(&self.variables["REDIS_CA_FILE"]);
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.expect("it is PEM"))
            .expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpStream::connect(endpoint).await?;
        let name = ServerName::try_from("localhost").expect("it is a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
    }

    async fn client(&self) -> Client {
        let stream = self.tls(&self.variables["REDIS_ENDPOINT"]).await;
        Client {
            stream: stream.expect("the emulator accepts"),
        }
    }

    /// A client signed in with a new token.
    async fn signed_in(&self) -> Client {
        let mut client = self.client().await;
        client.ask(&self.auth(), "+OK\r\n").await;
        client
    }
}

struct Client {
    stream: TlsStream<TcpStream>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        let stream = &mut self.stream;
        stream
            .write_all(text.as_bytes())
            .await
            .expect("it is connected");
        // What the TLS layer holds back would never be sent: nothing else is written.
        stream.flush().await.expect("it is connected");
    }

    /// Reads exactly what is expected.
    async fn expect(&mut self, expected: &str) {
        let mut answer = vec![0; expected.len()];
        let read = timeout(LIMIT, self.stream.read_exact(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(matches!(read, Ok(Ok(_))), "{read:?} after {answer:?}");
        assert_eq!(answer, expected);
    }

    async fn ask(&mut self, text: &str, expected: &str) {
        self.send(text).await;
        self.expect(expected).await;
    }

    /// Reads up to the end of the connection.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(LIMIT, self.stream.read_to_end(&mut rest)).await;
        assert!(
            matches!(read, Ok(Ok(_))),
            "closed with TLS' farewell: {read:?}"
        );
        String::from_utf8_lossy(&rest).into()
    }

    async fn is_silent(&mut self) {
        let read = timeout(Duration::from_millis(200), self.stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }
}

fn command(arguments: &[&str]) -> String {
    let mut out = Vec::new();
    resp::array(&mut out, arguments.len());
    for argument in arguments {
        resp::bulk(&mut out, argument.as_bytes());
    }
    String::from_utf8(out).expect("arguments are text")
}

#[tokio::test]
async fn only_a_good_token_opens_the_gate() {
    for emulator in Running::both(60).await {
        let mut client = emulator.client().await;
        client.ask("PING\r\n", NOAUTH).await;
        client.ask("*2\r\n$3\r\nGET\r\n$1\r\na\r\n", NOAUTH).await;
        client.send("HELLO 3\r\n").await;
        client
            .expect("-NOAUTH HELLO must be called with the client already authenticated")
            .await;
        let mut client = emulator.client().await;
        let good = emulator.auth();
        let oid = &emulator.tenant.application.object_id;
        client
            .ask(&good.replace(oid, &"0".repeat(36)), WRONGPASS)
            .await;
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
        let counts = emulator.controls().counts();
        assert_eq!((counts.auth_accepted, counts.auth_refused), (1, 4));
        assert_eq!((counts.connections_opened, counts.tokens_issued), (2, 1));
    }
}

#[tokio::test]
async fn hello_signs_in_and_chooses_the_protocol() {
    for emulator in Running::both(60).await {
        let hello = emulator.hello("SETNAME", "name");
        let mut client = emulator.client().await;
        let unknown = hello.replacen("\r\n3\r\n", "\r\n4\r\n", 1);
        let refused = "-NOPROTO unsupported protocol version\r\n";
        client.ask(&unknown, refused).await;
        client.ask("PING\r\n", NOAUTH).await;
        let answer = marked(&mut client.stream, &hello).await;
        assert!(
            answer.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"),
            "{answer}"
        );
        client.ask("GET nokey\r\n", "_\r\n").await;
        client.ask("CLIENT GETNAME\r\n", "$4\r\nname\r\n").await;
        client
            .ask(
                &hello.replacen("AUTH", "OUTH", 1),
                "-ERR Syntax error in HELLO option 'OUTH'\r\n",
            )
            .await;
        let answer = marked(&mut client.stream, &command(&["HELLO", "2"])).await;
        assert!(answer.starts_with("*14\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn replies_keep_their_order_whatever_the_pieces() {
    for emulator in Running::both(60).await {
        let value = "v".repeat(100_000);
        let auth = emulator.auth();
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
                    .expect("it is connected");
                client.stream.flush().await.expect("it is connected");
                tokio::task::yield_now().await;
            }
            client.expect(&expected).await;
        }
    }
}

/// A client that sends all before it reads anything, as redis-py's pipelines do.
#[tokio::test]
async fn a_long_pipeline_does_not_block() {
    for emulator in Running::both(60).await {
        let mut client = emulator.signed_in().await;
        let text = "x".repeat(1000);
        let (ask, answer) = (command(&["ECHO", &text]), format!("$1000\r\n{text}\r\n"));
        timeout(LIMIT, client.send(&ask.repeat(20_000)))
            .await
            .expect("the proxy keeps reading");
        client.expect(&answer.repeat(20_000)).await;
    }
}

#[tokio::test]
async fn pushes_and_replies_pass_side_by_side() {
    let emulator = Running::start(60, Some(Server::start().await)).await;
    let mut client = emulator.client().await;
    marked(&mut client.stream, &emulator.hello("SETNAME", "name")).await;
    let subscribe = command(&["SUBSCRIBE", "a", "b"]);
    client
        .send(&(subscribe + &emulator.auth() + &command(&["PUBLISH", "a", "hi"]) + "PING\r\n"))
        .await;
    let confirmed = "+OK\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n";
    client.expect(confirmed).await;
    client
        .expect(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n:1\r\n+PONG\r\n")
        .await;
}

#[tokio::test]
async fn a_connection_ends_with_its_token_unless_signed_in_again() {
    for emulator in Running::both(2).await {
        let mut ends = emulator.signed_in().await;
        let mut lives = emulator.signed_in().await;
        emulator
            .controls()
            .set_token_lifetime(Duration::from_secs(60));
        let auth = emulator.auth();
        lives.ask(&auth, "+OK\r\n").await;
        assert_eq!(emulator.controls().counts().auth_repeated, 0);
        lives.ask(&auth, "+OK\r\n").await;
        lives.ask("AUTH secret\r\n", WRONGPASS).await;
        lives.ask(&auth, "+OK\r\n").await;
        // On another connection, or after it was signed out, the token is a new one.
        emulator.client().await.ask(&auth, "+OK\r\n").await;
        lives.ask("RESET\r\n", "+RESET\r\n").await;
        lives.ask(&auth, "+OK\r\n").await;
        assert_eq!(emulator.controls().counts().auth_repeated, 2);
        assert_eq!(ends.rest().await, "");
        lives.ask("PING\r\n", "+PONG\r\n").await;
        assert_eq!(emulator.controls().counts().connections_expired, 1);
    }
}

#[tokio::test]
async fn redis_faults_are_made() {
    let emulator = Running::start(60, None).await;
    let mut client = emulator.signed_in().await;
    emulator.controls().set_redis(RedisFault::RefuseAuth);
    client.ask(&emulator.auth(), WRONGPASS).await;
    client.ask("PING\r\n", "+PONG\r\n").await;
    emulator.controls().set_redis(RedisFault::HangAuth);
    let mut hung = emulator.client().await;
    hung.send(&(emulator.auth() + "PING\r\n")).await;
    hung.is_silent().await;
    client.ask("PING\r\n", "+PONG\r\n").await;
    emulator.controls().set_redis(RedisFault::Refuse);
    emulator
        .tls(&emulator.variables["REDIS_ENDPOINT"])
        .await
        .expect_err("it is closed at once");
    client.ask("PING\r\n", "+PONG\r\n").await;
    emulator.controls().disconnect_all();
    assert_eq!(client.rest().await, "");
    assert_eq!(hung.rest().await, "");
    emulator.controls().set_redis(RedisFault::None);
    emulator
        .signed_in()
        .await
        .ask("PING\r\n", "+PONG\r\n")
        .await;
}

#[tokio::test]
async fn nothing_is_left_after_the_end() {
    let mut emulator = Running::start(60, Some(Server::start().await)).await;
    let mut client = emulator.signed_in().await;
    emulator.shutdown.cancel();
    timeout(LIMIT, emulator.task)
        .await
        .expect("in time")
        .expect("no panic");
    assert_eq!(client.rest().await, "");
    TcpStream::connect(&emulator.variables["REDIS_ENDPOINT"])
        .await
        .expect_err("nobody listens");
    for name in [
        "REDIS_CA_FILE",
        "SSL_CERT_FILE",
        "AZURE_FEDERATED_TOKEN_FILE",
    ] {
        assert!(
            !std::fs::exists(&emulator.variables[name]).expect("it can be asked"),
            "{name}"
        );
    }
    assert_eq!(Arc::strong_count(&emulator.tenant), 1, "no task holds it");
    emulator.server.take();
}

#[cfg(unix)]
#[tokio::test]
async fn only_this_user_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let emulator = Emulator::bind(Options::default())
        .await
        .expect("it can be bound");
    let directory = std::fs::metadata(emulator.files.path("")).expect("it is there");
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = StdListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let options = Options {
        redis_port: address.port(),
        ..Options::default()
    };
    let error = Emulator::bind(options).await.err().expect("it is taken");
    assert_eq!(error.to_string(), format!("cannot listen on {address}"));
}

/// The store answers what redis-server 7 answers, byte for byte.
#[tokio::test]
async fn the_store_answers_like_redis() {
    let long = "l".repeat(200);
    let commands = "\
        PING; PING hi; PING a b; ECHO x; ECHO; GET; get nokey; SET k; SET k 1; GET k; SET k 2 NX; \
        SET k 2 NX GET; SET new 1 XX; SET k 2 XX GET; SET new 1 NX GET; SET k v EX; SET k v EX 0; SET k v EX x; \
        SET k v EX 10 PX 10; SET k v NX XX; SET k v KEEPTTL EX 1; SET k v PX -5; \
        SET k v EX 9223372036854775807; SET k v bad; SET k v EX 100; TTL k; SET k w KEEPTTL; TTL k; SET k w; \
        TTL k; PTTL nokey; TTL nokey; EXPIRE k 50; TTL k; PERSIST k; PERSIST k; PERSIST nokey; PEXPIRE k 50000; \
        TTL k; EXPIRE nokey 1; EXPIRE k x; EXPIRE k 9223372036854775807; EXPIRE k 10 bad; EXPIRE k -1; \
        EXISTS k; SET p 1 EXAT 1; GET p; SET p 1 PXAT 32503680000000; GET p; INCR n; INCRBY n 41; DECR n; \
        DECRBY n 1; INCRBY n x; SET n 9223372036854775807; INCR n; DECRBY n -9223372036854775808; SET n abc; \
        INCR n; SET n 01; INCR n; APPEND a x; APPEND a yz; GET a; STRLEN a; STRLEN nokey; MSET a 1 b 2; MSET a; \
        MSET a 1 b; MGET a b nokey; EXISTS a b a nokey; TYPE a; TYPE nokey; GETDEL a; GETDEL a; DEL a b nokey; \
        UNLINK k p; SELECT 0; SELECT 99; SELECT x; CLIENT SETNAME me; CLIENT GETNAME; CLIENT SETNAME; \
        CLIENT NONSENSE; CLIENT; COMMAND NONSENSE; CLUSTER SLOTS; CLUSTER; UNWATCH; UNWATCH x; FLUSHDB bad; \
        FLUSHALL SYNC; FLUSHALL a b; DBSIZE; SET z 1; DBSIZE; FLUSHDB; DBSIZE; foo; foo bar baz; foo LONG b; \
        LONG; HELLO 4; HELLO x; HELLO 3 SETNAME; HELLO 3 nonsense";
    let server = Server::start().await;
    let mut real = TcpStream::connect(&server.address).await.expect("it runs");
    let emulator = Running::start(60, None).await;
    let mut store = emulator.signed_in().await.stream;
    for line in commands.split("; ") {
        let line = line.replace("LONG", &long);
        let ask = command(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(
            marked(&mut store, &ask).await,
            marked(&mut real, &ask).await,
            "{line}"
        );
    }
    for broken in ["*x\r\n", "*1\r\n:1\r\n", "*1\r\n$-1\r\n"] {
        let mut real = TcpStream::connect(&server.address).await.expect("it runs");
        let mut expected = String::new();
        real.write_all(broken.as_bytes()).await.expect("it is open");
        real.read_to_string(&mut expected)
            .await
            .expect("it is text");
        let mut store = emulator.client().await;
        store.send(broken).await;
        assert_eq!(store.rest().await, expected);
    }
}

/// Sends a command and a mark after it; reads the answer up to the mark's.
async fn marked(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), ask: &str) -> String {
    let mark = "$6\r\n|mark|\r\n";
    let ask = format!("{ask}*2\r\n$4\r\nECHO\r\n{mark}");
    stream.write_all(ask.as_bytes()).await.expect("it is open");
    stream.flush().await.expect("it is open");
    let mut answer = String::new();
    while !answer.ends_with(mark) {
        let byte = timeout(LIMIT, stream.read_u8()).await;
        answer.push(byte.expect("in time").expect("it is open").into());
    }
    answer
}

fn form(tenant: &Tenant, changes: &[(&str, &str)]) -> Request<Body> {
    let mut fields = HashMap::from([
        ("grant_type", "client_credentials"),
        ("client_id", &tenant.application.client_id),
        ("scope", "https://redis.azure.com/.default"),
        ("client_secret", &tenant.client_secret),
    ]);
    let mut path = tenant.signer.tenant.as_str();
    for (name, value) in changes {
        match *name {
            "tenant" => path = value,
            _ if value.is_empty() => _ = fields.remove(name),
            _ => _ = fields.insert(name, value),
        }
    }
    let body: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Request::post(format!("/{path}/oauth2/v2.0/token"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(body.join("&")))
        .expect("it is a request")
}

async fn answer(router: Router, request: Request<Body>) -> (StatusCode, String) {
    let response = router.oneshot(request).await.expect("a router cannot fail");
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("it is in memory");
    (status, String::from_utf8_lossy(&body).into())
}

#[tokio::test]
async fn the_token_endpoint_refuses_as_entra_id_does() {
    let emulator = Emulator::bind(Options::default())
        .await
        .expect("it can be bound");
    let tenant = &emulator.tenant;
    let assertion = |changes: Value| {
        let now = token::now();
        let mut claims = json!({
            "iss": tenant.issuer.issuer, "sub": tenant.issuer.subject, "aud": token::EXCHANGE_AUDIENCE,
            "nbf": now, "exp": now + 60,
        });
        for (name, value) in changes.as_object().expect("it is an object") {
            claims[name] = value.clone();
        }
        tenant.signer.sign(&claims)
    };
    let federated = "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        .split_once('=');
    let federated = federated.expect("it has two sides");
    type Case<'a> = (u32, u16, Vec<(&'a str, String)>);
    let cases: Vec<Case<'_>> = vec![
        (0, 200, vec![]),
        (
            0,
            200,
            vec![(
                "scope",
                "acca5fbb-b7e4-4009-81f1-37e38fd66d78/.default".into(),
            )],
        ),
        (0, 200, vec![("client_assertion", assertion(json!({})))]),
        (90002, 400, vec![("tenant", "other".into())]),
        (900144, 400, vec![("grant_type", String::new())]),
        (70003, 400, vec![("grant_type", "password".into())]),
        (700016, 400, vec![("client_id", "other".into())]),
        (70011, 400, vec![("scope", "openid".into())]),
        (
            500011,
            400,
            vec![("scope", "https://vault.azure.net/.default".into())],
        ),
        (7000215, 401, vec![("client_secret", "hunter2".into())]),
        (7000216, 401, vec![("client_secret", String::new())]),
        (50027, 400, vec![("client_assertion", "hunter2".into())]),
        (
            700211,
            401,
            vec![(
                "client_assertion",
                assertion(json!({"iss": "https://other"})),
            )],
        ),
        (
            700212,
            401,
            vec![("client_assertion", assertion(json!({"aud": ["other"]})))],
        ),
        (
            700213,
            401,
            vec![("client_assertion", assertion(json!({"sub": "other"})))],
        ),
        (
            700024,
            401,
            vec![("client_assertion", assertion(json!({"exp": 1})))],
        ),
        (
            700027,
            401,
            vec![("client_assertion", assertion(json!({})) + "AAAA")],
        ),
    ];
    for (code, status, mut changes) in cases {
        if changes.iter().any(|(name, _)| *name == "client_assertion") {
            changes.push((federated.0, federated.1.into()));
        }
        let changes: Vec<(&str, &str)> = changes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let router = entra::authority(Arc::clone(tenant));
        let (met, body) = answer(router, form(tenant, &changes)).await;
        assert_eq!(met.as_u16(), status, "{code}: {body}");
        let body: Value = serde_json::from_str(&body).expect("it is JSON");
        if code == 0 {
            assert_eq!(body["token_type"], "Bearer");
            continue;
        }
        assert_eq!(body["error_codes"], json!([code]), "{body}");
        let text = body["error_description"].as_str().expect("it is a text");
        assert!(text.starts_with(&format!("AADSTS{code}: ")), "{text}");
        assert!(
            !text.contains(['"', '\\']),
            "azure_identity cannot read {text}"
        );
        for (name, value) in changes {
            let secret = ["client_secret", "client_assertion"].contains(&name) && !value.is_empty();
            assert!(
                !secret || !body.to_string().contains(value),
                "{name} is repeated"
            );
        }
    }
}

#[tokio::test]
async fn managed_identities_are_served_and_refused() {
    let emulator = Emulator::bind(Options::default())
        .await
        .expect("it can be bound");
    let tenant = &emulator.tenant;
    let app = "/msi/token?api-version=2019-08-01";
    let machine = "/metadata/identity/oauth2/token?api-version=2018-02-01";
    let redis = "&resource=https://redis.azure.com";
    let known = format!("&client_id={}", tenant.application.client_id);
    let two = format!("{known}&principal_id={}", tenant.application.object_id);
    let oid = format!("&object_id={}", tenant.application.object_id);
    let principal = oid.replace("object_id", "principal_id");
    let resource = format!("&mi_res_id={}", tenant.application.resource_id);
    let machines_resource = resource.replace("mi_res_id", "msi_res_id");
    let header = tenant.identity_header.as_str();
    let mut cases = vec![
        (200, app, vec![redis], header),
        (200, app, vec![redis, &known], header),
        (401, app, vec![redis], "wrong"),
        (400, app, vec![], header),
        (400, app, vec![redis, "&client_id=other"], header),
        (400, app, vec![redis, &two], header),
        (
            400,
            "/msi/token?api-version=2017-09-01",
            vec![redis],
            header,
        ),
        (400, app, vec!["&resource=https://vault.azure.net"], header),
        (200, machine, vec![redis], "true"),
        (400, machine, vec![redis], "wrong"),
        (400, machine, vec![], "true"),
        (400, machine, vec![redis, "&client_id=other"], "true"),
    ];
    let names = [&known, &oid, &principal, &resource, &machines_resource];
    for (path, header) in [(app, header), (machine, "true")] {
        for (index, name) in names.into_iter().enumerate() {
            cases.push((200, path, vec![redis, name], header));
            for other in &names[index + 1..] {
                cases.push((400, path, vec![redis, name, other], header));
            }
        }
    }
    for (status, path, query, header) in cases {
        let uri = format!("{path}{}", query.concat());
        let request = Request::get(&uri)
            .header("x-identity-header", header)
            .header("metadata", header)
            .body(Body::empty())
            .expect("it is a request");
        let (met, body) = answer(entra::identities(Arc::clone(tenant)), request).await;
        assert_eq!(met.as_u16(), status, "{uri}: {body}");
        let body: Value = serde_json::from_str(&body).expect("it is JSON");
        assert_eq!(body["access_token"].is_string(), status == 200);
        assert_eq!(
            body["expires_on"].is_string(),
            status == 200,
            "a text, as Azure has it"
        );
    }
}

#[tokio::test]
async fn entra_faults_are_made() {
    let emulator = Emulator::bind(Options::default())
        .await
        .expect("it can be bound");
    let (tenant, controls) = (&emulator.tenant, emulator.controls());
    let ask = || entra::authority(Arc::clone(tenant)).oneshot(form(tenant, &[]));
    let token = async || answer(entra::authority(Arc::clone(tenant)), form(tenant, &[])).await;

    assert_ne!(token().await, token().await);
    controls.set_entra(EntraFault::SameToken);
    assert_eq!(
        token().await.1.split_once("access"),
        token().await.1.split_once("access")
    );
    assert_eq!(controls.counts().tokens_issued, 2);
    controls.set_entra(EntraFault::Status(500));
    assert_eq!(token().await.0, StatusCode::INTERNAL_SERVER_ERROR);
    controls.set_entra(EntraFault::RetryAfter(429, Duration::from_millis(1500)));
    let response = ask().await.expect("a router cannot fail");
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    controls.set_entra(EntraFault::Garbage);
    assert!(token().await.1.starts_with("<!DOCTYPE html>"));
    controls.set_entra(EntraFault::Hang);
    assert!(timeout(Duration::from_millis(100), ask()).await.is_err());
    controls.set_entra(EntraFault::Slow(Duration::from_millis(100)));
    assert!(timeout(Duration::from_millis(50), ask()).await.is_err());
    assert_eq!(token().await.0, StatusCode::OK);
}
