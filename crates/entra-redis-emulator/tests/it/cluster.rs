//! The proxies before a real cluster, as Azure's `OSSCluster`; and `EnterpriseCluster`, which hides the shards.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use entra_redis_emulator::{ClusteringPolicy, Options};
use redis::{FromRedisValue, Value, from_redis_value};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{Azure, Client, LIMIT, RedisCluster, RedisServer, connect};

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

impl Client {
    async fn id(&mut self) -> String {
        into(self.value("CLUSTER MYID").await)
    }

    /// The nodes in `CLUSTER SLOTS`.
    async fn slots(&mut self) -> Announced {
        let ranges: Vec<Vec<Value>> = into(self.value("CLUSTER SLOTS").await);
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
        let shards: Vec<Fields> = into(self.value("CLUSTER SHARDS").await);
        let nodes = shards
            .into_iter()
            .flat_map(|mut shard| into::<Vec<Fields>>(shard.remove("nodes").expect("nodes")));
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
        in_lines(&into::<String>(self.value("CLUSTER NODES").await))
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
async fn every_announced_address_is_a_proxy_of_its_node() {
    let cluster = RedisCluster::start(3, 1).await;
    let azure = before_cluster(&cluster).await;
    let mut client = azure.authenticated().await;
    assert_eq!(client.id().await, cluster.id(0));
    let announced = client.slots().await;
    assert_eq!(announced.len(), 6);
    for address in announced.values() {
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        assert!(!cluster.addresses().contains(address), "{address}");
    }
    for protocol in ["2", "3"] {
        client.value(&format!("HELLO {protocol}")).await;
        assert_eq!(client.slots().await, announced);
        assert_eq!(client.shards().await, announced);
        assert_eq!(client.nodes().await, announced);
    }
    for (id, address) in &announced {
        let mut node = Client::authenticated(&azure, address).await;
        assert_eq!(node.id().await, *id);
        // Each node announces the same, for itself too.
        assert_eq!(node.slots().await, announced);
    }
    for command in ["REPLICAS", "SLAVES"] {
        let replicas: Vec<String> = into(
            client
                .value(&format!("CLUSTER {command} {}", cluster.id(0)))
                .await,
        );
        let replicas = in_lines(&replicas.join("\n"));
        assert_eq!(replicas.len(), 1);
        assert_eq!(replicas[cluster.id(3)], announced[cluster.id(3)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirections_between_other_replies_name_proxies() {
    let cluster = RedisCluster::start(2, 0).await;
    let azure = before_cluster(&cluster).await;
    // Slots 12182 and 866, of the second node and the first.
    let (foreign, own) = ("foo", "hello");
    assert_eq!(cluster.primary_of_key(foreign).await, Some(1));
    assert_eq!(cluster.primary_of_key(own).await, Some(0));
    let mut client = azure.authenticated().await;
    // Nothing has been announced yet: a redirection opens a proxy as a map does.
    let value = "-MOVED 1 127.0.0.1:1 ".repeat(20_000);
    let set = format!(
        "*3\r\n$3\r\nSET\r\n$5\r\nhello\r\n${}\r\n{value}\r\n",
        value.len()
    );
    client.ask(&set, "+OK\r\n").await;
    client.send("GET foo\r\n").await;
    let line = client.line().await;
    let proxy = line
        .strip_prefix("-MOVED 12182 ")
        .expect("MOVED")
        .trim_end();
    assert_ne!(proxy, cluster.address(1));
    assert_eq!(client.slots().await[cluster.id(1)], proxy);
    let moved = format!("-MOVED 12182 {proxy}\r\n");
    let big = format!("${}\r\n{value}\r\n", value.len());
    let pipeline =
        "GET hello\r\nGET foo\r\nAUTH\r\nGET foo\r\nGET hello\r\nMULTI\r\nGET foo\r\nEXEC\r\n";
    let expected = format!(
        "{big}{moved}-ERR wrong number of arguments for 'auth' command\r\n{moved}{big}+OK\r\n{moved}\
        -EXECABORT Transaction discarded because of previous errors.\r\n"
    );
    client.ask(pipeline, &expected).await;
    // A slot that migrates: a key that is absent here may be there.
    let slot = cluster.slot_of("absent{hello}").await.to_string();
    for (node, way, other) in [(1, "IMPORTING", 0), (0, "MIGRATING", 1)] {
        let mut set = redis::cmd("CLUSTER");
        set.arg(&["SETSLOT", &slot, way, cluster.id(other)]);
        let mut admin = cluster.admin(node).await;
        set.query_async::<()>(&mut admin).await.expect("accepted");
    }
    let ask = format!("-ASK {slot} {proxy}\r\n");
    client
        .ask("GET absent{hello}\r\nGET hello\r\n", &format!("{ask}{big}"))
        .await;
    let mut other = Client::authenticated(&azure, proxy).await;
    other
        .ask("ASKING\r\nGET absent{hello}\r\n", "+OK\r\n$-1\r\n")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_added_later_gets_a_proxy_and_slots_move_to_it() {
    let mut cluster = RedisCluster::start(2, 0).await;
    let azure = before_cluster(&cluster).await;
    let mut client = azure.authenticated().await;
    let before = client.slots().await;
    client.ask("SET hello there\r\n", "+OK\r\n").await;
    let added = cluster.add_primary().await;
    let announced = client.nodes().await;
    assert_eq!((before.len(), announced.len()), (2, 3));
    assert!(before.iter().all(|(id, address)| announced[id] == *address));
    let proxy = &announced[cluster.id(added)];
    let mut node = Client::authenticated(&azure, proxy).await;
    assert_eq!(node.id().await, cluster.id(added));
    let slot = cluster.slot_of("hello").await;
    cluster.reshard(0, added, slot..=slot + 2).await;
    assert_eq!(cluster.primary_of(slot).await, Some(added));
    node.ask("GET hello\r\n", "$5\r\nthere\r\n").await;
    client
        .ask("GET hello\r\n", &format!("-MOVED {slot} {proxy}\r\n"))
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
                let client = Client::authenticated(self.azure, &node).await;
                self.clients.insert(node.clone(), client);
            }
            let client = self.clients.get_mut(&node).expect("opened above");
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
    // The endpoint, before the first node, and a proxy for each.
    assert!(follower.clients.len() <= 3);
    let asked = asked.into_inner();
    assert!(asked > 0, "no command got ASK in {round} rounds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_resets_connections_and_the_endpoint_stays_up() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let azure = before_cluster(&cluster).await;
    let announced = azure.authenticated().await.slots().await;
    let proxy = &announced[cluster.id(0)];
    let mut open = Client::authenticated(&azure, proxy).await;
    cluster.kill(0);
    let mut rest = Vec::new();
    let closed = timeout(LIMIT, open.stream.read_to_end(&mut rest)).await;
    closed
        .expect("the connection is closed")
        .expect("with close_notify");
    // Before the TLS handshake begins.
    let dial = async { TcpStream::connect(proxy).await?.read_u8().await };
    let refused = timeout(LIMIT, dial).await.expect("in time");
    assert_eq!(
        refused.expect_err("a dead node").kind(),
        ErrorKind::ConnectionReset
    );
    // The endpoint's own server was that node.
    let mut client = azure.authenticated().await;
    assert_ne!(client.id().await, cluster.id(0));
    let primary = cluster.wait_for_failover(0, 0).await;
    assert_eq!(primary, 3);
    let slots: Vec<Vec<Value>> = into(client.value("CLUSTER SLOTS").await);
    let first = slots.into_iter().find(|range| range[0] == Value::Int(0));
    let node: Vec<Value> = into(first.expect("slot 0 is covered").swap_remove(2));
    let proxy_of_primary = &announced[cluster.id(3)];
    assert_eq!(
        address(&into::<String>(node[0].clone()), into(node[1].clone())),
        *proxy_of_primary
    );
    cluster.restart(0).await;
    assert!(!cluster.is_primary(0).await);
    let mut again = Client::authenticated(&azure, proxy).await;
    assert_eq!(again.id().await, cluster.id(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_requires_authentication_as_the_endpoint_does() {
    let cluster = RedisCluster::start(1, 0).await;
    let azure = before(cluster.address(0), Duration::from_secs(2)).await;
    let announced = azure.authenticated().await.slots().await;
    let proxy = &announced[cluster.id(0)];
    let mut unauthenticated = Client::open(&azure, proxy).await;
    unauthenticated
        .ask("CLUSTER SLOTS\r\n", "-NOAUTH Authentication required.\r\n")
        .await;
    let mut expiring = Client::authenticated(&azure, proxy).await;
    let mut rest = String::new();
    let closed = timeout(LIMIT, expiring.stream.read_to_string(&mut rest)).await;
    closed
        .expect("closed when its token expires")
        .expect("with close_notify");
    assert!(azure.controls.counts().connections_expired > 0);
    azure.controls.disconnect_all();
    let closed = timeout(LIMIT, unauthenticated.stream.read_to_string(&mut rest)).await;
    closed
        .expect("within the limit")
        .expect("with close_notify");
}

#[tokio::test]
async fn the_certificate_has_the_endpoints_name_and_no_address() {
    let azure = Azure::with_lifetime(60).await;
    let endpoint = azure.variable("REDIS_ENDPOINT");
    connect(&azure, endpoint, "localhost")
        .await
        .expect("the endpoint's name");
    for address in ["127.0.0.1", "::1"] {
        let refused = connect(&azure, endpoint, address).await;
        let error = refused.expect_err("an address").to_string();
        assert!(error.contains("not valid for"), "{error}");
    }
    // Only the managed identity endpoint is announced by an address, but clients of the others may use one.
    let authority = azure.variable("AZURE_AUTHORITY_HOST");
    let authority = authority
        .trim_start_matches("https://")
        .trim_end_matches('/');
    for name in ["localhost", "127.0.0.1"] {
        connect(&azure, authority, name)
            .await
            .expect("both are valid");
    }
    // If the endpoint is an address, the certificate must be valid for it.
    let azure = Azure::start(Options {
        host: [127, 0, 0, 2].into(),
        ..Options::default()
    })
    .await;
    let endpoint = azure.variable("REDIS_ENDPOINT");
    let (host, _) = endpoint.rsplit_once(':').expect("a port");
    connect(&azure, endpoint, host)
        .await
        .expect("the endpoint's name");
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
        let mut client = azure.authenticated().await;
        for subcommand in ["INFO", "HELP", "KEYSLOT key", "NODES", "slots"] {
            client
                .ask(
                    &format!("cluster {subcommand}\r\nPING\r\n"),
                    "-ERR command is not allowed\r\n+PONG\r\n",
                )
                .await;
        }
    }
}
