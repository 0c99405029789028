//! The front before a real cluster, as Azure's `OSSCluster`; and `EnterpriseCluster`, which hides that there is one.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use entra_redis::{
    config::Roots,
    emulator::{ClusteringPolicy, Options},
    tls,
};
use redis::{FromRedisValue, Value, from_redis_value};
use rustls::pki_types::ServerName;
use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Azure, LIMIT, RedisCluster, RedisServer, Service, client};

/// The address at which each node is announced, by its id.
type Announced = BTreeMap<String, String>;

async fn before(redis: String, lifetime: Duration) -> Azure {
    Azure::start(Options {
        redis: Some(redis),
        token_lifetime: lifetime,
        ..Options::default()
    })
    .await
}

async fn before_cluster(cluster: &RedisCluster) -> Azure {
    before(cluster.address(0), Duration::from_secs(600)).await
}

/// Performs a TLS handshake with the server at `address`, whose certificate must be for `name`.
async fn connect(azure: &Azure, address: &str, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let roots = Roots {
        file: Some(azure.variable("REDIS_CA_FILE").into()),
        directory: None,
    };
    let config = tls::client_config(&roots, None).expect("the emulator wrote it");
    let name = ServerName::try_from(name.to_owned()).expect("it is a name");
    let socket = TcpStream::connect(address).await?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, socket);
    timeout(LIMIT, connected).await.expect("within the limit")
}

/// User and token, as `AUTH` takes them.
async fn authenticate(azure: &Azure) -> String {
    let answer = client()
        .get(format!(
            "{}?api-version=2019-08-01&resource=https://redis.azure.com",
            azure.variable("IDENTITY_ENDPOINT")
        ))
        .header("x-identity-header", azure.variable("IDENTITY_HEADER"))
        .send()
        .await
        .expect("the emulator answers");
    let body: Json = serde_json::from_str(&answer.text().await.expect("whole")).expect("JSON");
    let token = body["access_token"].as_str().expect("it is granted");
    let claims = token.split('.').nth(1).expect("a token has three parts");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("it is base64");
    let claims: Json = serde_json::from_slice(&claims).expect("claims are JSON");
    format!(
        "AUTH {} {token}\r\n",
        claims["oid"].as_str().expect("an id")
    )
}

/// A client authenticated at one address.
struct Client {
    stream: TlsStream<TcpStream>,
}

impl Client {
    async fn open(azure: &Azure, address: &str) -> Self {
        let stream = connect(azure, address, "localhost").await;
        let mut client = Self {
            stream: stream.unwrap_or_else(|error| panic!("{address}: {error}")),
        };
        client.expect(&authenticate(azure).await, "+OK\r\n").await;
        client
    }

    async fn at_endpoint(azure: &Azure) -> Self {
        Self::open(azure, azure.variable("REDIS_ENDPOINT")).await
    }

    async fn send(&mut self, commands: &str) {
        let sent = self.stream.write_all(commands.as_bytes()).await;
        sent.expect("it is open");
        self.stream.flush().await.expect("it is open");
    }

    /// Sends inline commands; their replies must be these.
    async fn expect(&mut self, commands: &str, expected: &str) {
        self.send(commands).await;
        let mut answer = vec![0; expected.len()];
        let read = timeout(LIMIT, self.stream.read_exact(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(matches!(read, Ok(Ok(_))), "{read:?} after {answer:?}");
        assert_eq!(answer, expected, "{commands:?}");
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            let read = timeout(LIMIT, self.stream.read_u8()).await;
            line.push(read.expect("in time").expect("it is open").into());
        }
        line.truncate(line.len() - 2);
        line
    }

    async fn ask(&mut self, command: &str) -> Value {
        self.send(&format!("{command}\r\n")).await;
        let mut bytes = Vec::new();
        loop {
            let read = timeout(LIMIT, self.stream.read_buf(&mut bytes)).await;
            assert_ne!(
                read.expect("in time").expect("open"),
                0,
                "{command}: closed"
            );
            if let Ok(value) = redis::parse_redis_value(&bytes) {
                return value;
            }
        }
    }

    async fn id(&mut self) -> String {
        into(self.ask("CLUSTER MYID").await)
    }

    /// Everything that `CLUSTER SLOTS` names.
    async fn slots(&mut self) -> Announced {
        let ranges: Vec<Vec<Value>> = into(self.ask("CLUSTER SLOTS").await);
        let nodes = ranges
            .into_iter()
            .flat_map(|range| range.into_iter().skip(2));
        nodes
            .map(|node| {
                let node: Vec<Value> = into(node);
                let [host, port, id, names] = <[Value; 4]>::try_from(node).expect("as in Redis 7");
                let none = [Value::Array(vec![]), Value::Map(vec![])];
                assert!(none.contains(&names), "{names:?}");
                (into(id), address(&into::<String>(host), into(port)))
            })
            .collect()
    }

    async fn shards(&mut self) -> Announced {
        type Fields = BTreeMap<String, Value>;
        let shards: Vec<Fields> = into(self.ask("CLUSTER SHARDS").await);
        let nodes = shards.into_iter().flat_map(|mut shard| {
            into::<Vec<Fields>>(shard.remove("nodes").expect("it has nodes"))
        });
        nodes
            .map(|mut node| {
                let mut field = |name| node.remove(name).unwrap_or_else(|| panic!("no {name}"));
                let ip: String = into(field("ip"));
                assert_eq!(ip, into::<String>(field("endpoint")));
                (into(field("id")), address(&ip, into(field("port"))))
            })
            .collect()
    }

    async fn nodes(&mut self) -> Announced {
        in_lines(&into::<String>(self.ask("CLUSTER NODES").await))
    }
}

fn into<T: FromRedisValue>(value: Value) -> T {
    let shown = format!("{value:?}");
    from_redis_value(value).unwrap_or_else(|error| panic!("{error}: {shown}"))
}

fn address(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

fn in_lines(text: &str) -> Announced {
    let nodes = text.lines().map(|line| {
        let mut words = line.split(' ');
        let (id, address) = (
            words.next().expect("an id"),
            words.next().expect("an address"),
        );
        let (address, bus) = address.split_once('@').expect("a bus port");
        assert!(address.ends_with(&format!(":{bus}")), "{line}");
        (id.to_owned(), address.to_owned())
    });
    nodes.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_announced_address_is_a_front_that_leads_to_its_node() {
    let cluster = RedisCluster::start(3, 1).await;
    let azure = before_cluster(&cluster).await;
    let mut client = Client::at_endpoint(&azure).await;
    assert_eq!(client.id().await, cluster.id(0));
    let announced = client.slots().await;
    assert_eq!(announced.len(), 6);
    for address in announced.values() {
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        assert!(!cluster.addresses().contains(address), "{address}");
    }
    for protocol in ["2", "3"] {
        client.ask(&format!("HELLO {protocol}")).await;
        assert_eq!(client.slots().await, announced);
        assert_eq!(client.shards().await, announced);
        assert_eq!(client.nodes().await, announced);
    }
    for (id, address) in &announced {
        let mut node = Client::open(&azure, address).await;
        assert_eq!(node.id().await, *id);
        // Each node announces the same, for itself too.
        assert_eq!(node.slots().await, announced);
    }
    for command in ["REPLICAS", "SLAVES"] {
        let replicas: Vec<String> = into(
            client
                .ask(&format!("CLUSTER {command} {}", cluster.id(0)))
                .await,
        );
        let replicas = in_lines(&replicas.join("\n"));
        assert_eq!(replicas.len(), 1);
        assert_eq!(replicas[cluster.id(3)], announced[cluster.id(3)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirections_name_fronts_amid_other_replies() {
    let cluster = RedisCluster::start(2, 0).await;
    let azure = before_cluster(&cluster).await;
    // Slots 12182 and 866: the second node's and the first's.
    let (foreign, own) = ("foo", "hello");
    assert_eq!(cluster.primary_of_key(foreign).await, Some(1));
    assert_eq!(cluster.primary_of_key(own).await, Some(0));
    let mut client = Client::at_endpoint(&azure).await;
    // Nothing has been announced yet: a redirection opens a front as well as a map.
    let value = "-MOVED 1 127.0.0.1:1 ".repeat(20_000);
    let set = format!(
        "*3\r\n$3\r\nSET\r\n$5\r\nhello\r\n${}\r\n{value}\r\n",
        value.len()
    );
    client.expect(&set, "+OK\r\n").await;
    client.send("GET foo\r\n").await;
    let line = client.line().await;
    let front = line
        .strip_prefix("-MOVED 12182 ")
        .expect("it is moved")
        .trim_end();
    assert_ne!(front, cluster.address(1));
    assert_eq!(client.slots().await[cluster.id(1)], front);
    let moved = format!("-MOVED 12182 {front}\r\n");
    let big = format!("${}\r\n{value}\r\n", value.len());
    let pipeline =
        "GET hello\r\nGET foo\r\nAUTH\r\nGET foo\r\nGET hello\r\nMULTI\r\nGET foo\r\nEXEC\r\n";
    let expected = format!(
        "{big}{moved}-ERR wrong number of arguments for 'auth' command\r\n{moved}{big}+OK\r\n{moved}\
        -EXECABORT Transaction discarded because of previous errors.\r\n"
    );
    client.expect(pipeline, &expected).await;
    // A slot on its way: a key that is not here may be there.
    let slot = cluster.slot_of("absent{hello}").await.to_string();
    for (node, way, other) in [(1, "IMPORTING", 0), (0, "MIGRATING", 1)] {
        let mut set = redis::cmd("CLUSTER");
        set.arg(&["SETSLOT", &slot, way, cluster.id(other)]);
        let mut admin = cluster.admin(node).await;
        set.query_async::<()>(&mut admin).await.expect("it may");
    }
    let ask = format!("-ASK {slot} {front}\r\n");
    client
        .expect("GET absent{hello}\r\nGET hello\r\n", &format!("{ask}{big}"))
        .await;
    let mut other = Client::open(&azure, front).await;
    other
        .expect("ASKING\r\nGET absent{hello}\r\n", "+OK\r\n$-1\r\n")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_added_at_run_time_gets_a_front_and_slots_move_to_it() {
    let mut cluster = RedisCluster::start(2, 0).await;
    let azure = before_cluster(&cluster).await;
    let mut client = Client::at_endpoint(&azure).await;
    let before = client.slots().await;
    client.expect("SET hello there\r\n", "+OK\r\n").await;
    let added = cluster.add_primary().await;
    let announced = client.nodes().await;
    assert_eq!((before.len(), announced.len()), (2, 3));
    assert!(before.iter().all(|(id, address)| announced[id] == *address));
    let front = &announced[cluster.id(added)];
    let mut node = Client::open(&azure, front).await;
    assert_eq!(node.id().await, cluster.id(added));
    let slot = cluster.slot_of("hello").await;
    cluster.reshard(0, added, slot..=slot + 2).await;
    assert_eq!(cluster.primary_of(slot).await, Some(added));
    node.expect("GET hello\r\n", "$5\r\nthere\r\n").await;
    client
        .expect("GET hello\r\n", &format!("-MOVED {slot} {front}\r\n"))
        .await;
}

/// A client that follows redirections.
struct Follower<'a> {
    azure: &'a Azure,
    clients: BTreeMap<String, Client>,
    /// The address to begin at: the target of the last MOVED.
    at: String,
    /// The number of commands sent again after ASK.
    asked: &'a AtomicU64,
}

impl Follower<'_> {
    async fn follow(&mut self, command: &str) -> String {
        let (mut node, mut asking) = (self.at.clone(), "");
        loop {
            if !self.clients.contains_key(&node) {
                let client = Client::open(self.azure, &node).await;
                self.clients.insert(node.clone(), client);
            }
            let client = self.clients.get_mut(&node).expect("it was opened");
            client.send(&format!("{asking}{command}\r\n")).await;
            if !asking.is_empty() {
                assert_eq!(client.line().await, "+OK");
                self.asked.fetch_add(1, Ordering::Relaxed);
            }
            let line = client.line().await;
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["-MOVED", _, other] => {
                    (node, asking) = (other.to_owned(), "");
                    self.at = node.clone();
                }
                ["-ASK", _, other] => (node, asking) = (other.to_owned(), "ASKING\r\n"),
                _ => return line,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_under_load_and_no_key_is_lost() {
    let cluster = RedisCluster::start(2, 0).await;
    let azure = before_cluster(&cluster).await;
    let asked = AtomicU64::new(0);
    let mut follower = Follower {
        azure: &azure,
        clients: BTreeMap::new(),
        at: azure.variable("REDIS_ENDPOINT").to_owned(),
        asked: &asked,
    };
    let slot = cluster.slot_of("hello").await;
    let (is_moved, mut round) = (AtomicBool::new(false), 0);
    let moves = async {
        // A command gets ASK by chance, rarely where the machine is busy: the slots are moved until one has.
        let start = Instant::now();
        let mut rounds = 0;
        while rounds < 5 || (asked.load(Ordering::Relaxed) == 0 && start.elapsed() < LIMIT) {
            cluster.reshard(0, 1, slot..=slot + 1).await;
            cluster.reshard(1, 0, slot..=slot + 1).await;
            rounds += 1;
        }
        is_moved.store(true, Ordering::Relaxed);
    };
    let load = async {
        while !is_moved.load(Ordering::Relaxed) {
            round += 1;
            for key in 0..50 {
                let count = follower.follow(&format!("INCR {key}{{hello}}")).await;
                assert_eq!(count, format!(":{round}"), "{key}");
            }
        }
    };
    tokio::join!(moves, load);
    // The endpoint, which leads to the first node, and a front for each.
    assert!(follower.clients.len() <= 3);
    let asked = asked.into_inner();
    assert!(asked > 0, "no command got ASK in {round} rounds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_refuses_and_the_endpoint_lives_on() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let azure = before_cluster(&cluster).await;
    let announced = Client::at_endpoint(&azure).await.slots().await;
    let front = &announced[cluster.id(0)];
    let mut open = Client::open(&azure, front).await;
    cluster.kill(0);
    let mut rest = Vec::new();
    let closed = timeout(LIMIT, open.stream.read_to_end(&mut rest)).await;
    closed
        .expect("the open connection ends")
        .expect("with TLS' farewell");
    // Before the TLS handshake begins.
    let dial = async { TcpStream::connect(front).await?.read_u8().await };
    let outcome = timeout(LIMIT, dial).await.expect("in time");
    assert_eq!(
        outcome.expect_err("it is dead").kind(),
        ErrorKind::ConnectionReset
    );
    // The endpoint's own server was that node.
    let mut client = Client::at_endpoint(&azure).await;
    assert_ne!(client.id().await, cluster.id(0));
    let master = cluster.wait_for_failover(0, 0).await;
    assert_eq!(master, 3);
    let slots: Vec<Vec<Value>> = into(client.ask("CLUSTER SLOTS").await);
    let first = slots.into_iter().find(|range| range[0] == Value::Int(0));
    let node: Vec<Value> = into(first.expect("slot 0 is served").swap_remove(2));
    let front_of_master = &announced[cluster.id(3)];
    assert_eq!(
        address(&into::<String>(node[0].clone()), into(node[1].clone())),
        *front_of_master
    );
    cluster.restart(0).await;
    assert!(!cluster.is_primary(0).await);
    let mut again = Client::open(&azure, front).await;
    assert_eq!(again.id().await, cluster.id(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_guarded_as_the_endpoint_is() {
    let cluster = RedisCluster::start(1, 0).await;
    let azure = before(cluster.address(0), Duration::from_secs(2)).await;
    let announced = Client::at_endpoint(&azure).await.slots().await;
    let front = &announced[cluster.id(0)];
    let stream = connect(&azure, front, "localhost").await;
    let mut stranger = Client {
        stream: stream.expect("it accepts"),
    };
    stranger
        .expect("CLUSTER SLOTS\r\n", "-NOAUTH Authentication required.\r\n")
        .await;
    let mut ends = Client::open(&azure, front).await;
    let mut rest = String::new();
    let closed = timeout(LIMIT, ends.stream.read_to_string(&mut rest)).await;
    closed
        .expect("it ends with its token")
        .expect("with TLS' farewell");
    assert!(azure.controls.counts().connections_expired > 0);
    azure.controls.disconnect_all();
    let closed = timeout(LIMIT, stranger.stream.read_to_string(&mut rest)).await;
    closed
        .expect("within the limit")
        .expect("with TLS' farewell");
}

#[tokio::test]
async fn the_certificate_has_the_endpoints_name_and_no_address() {
    let azure = Azure::with_lifetime(60).await;
    let endpoint = azure.variable("REDIS_ENDPOINT");
    connect(&azure, endpoint, "localhost")
        .await
        .expect("it is its name");
    for address in ["127.0.0.1", "::1"] {
        let refused = connect(&azure, endpoint, address).await;
        let error = refused.expect_err("it is no name").to_string();
        assert!(error.contains("not valid for"), "{error}");
    }
    // Managed identities' clients are the only ones that are given an address, but others may use one.
    let authority = azure.variable("AZURE_AUTHORITY_HOST");
    let authority = authority
        .trim_start_matches("https://")
        .trim_end_matches('/');
    for name in ["localhost", "127.0.0.1"] {
        connect(&azure, authority, name)
            .await
            .expect("both are good");
    }
    // Where the endpoint handed out is an address, it must be good for it.
    let azure = Azure::start(Options {
        host: [127, 0, 0, 2].into(),
        ..Options::default()
    })
    .await;
    let endpoint = azure.variable("REDIS_ENDPOINT");
    let (host, _) = endpoint.rsplit_once(':').expect("it has a port");
    connect(&azure, endpoint, host)
        .await
        .expect("it is its name");
}

#[tokio::test(flavor = "multi_thread")]
async fn enterprise_cluster_hides_its_shards() {
    let server = RedisServer::start().await;
    for redis in [Some(server.address()), None] {
        let azure = Azure::start(Options {
            redis,
            clustering_policy: ClusteringPolicy::EnterpriseCluster,
            ..Options::default()
        })
        .await;
        let mut client = Client::at_endpoint(&azure).await;
        for subcommand in ["INFO", "HELP", "KEYSLOT key", "NODES", "slots"] {
            client
                .expect(
                    &format!("cluster {subcommand}\r\nPING\r\n"),
                    "-ERR command is not allowed\r\n+PONG\r\n",
                )
                .await;
        }
    }
    let arguments = ["dev", "--clustering-policy", "EnterpriseCluster"];
    let service = Service::start(&arguments, [("", ""); 0]).await;
    service.ready().await;
    assert_eq!(service.text("/sample").await, "Previous visit was at: ");
}
