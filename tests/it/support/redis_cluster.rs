//! A real cluster of redis-servers.
//!
//! Nodes are named by an index, primaries first: the order they were started in, which stays when roles change. Questions
//! about the cluster are answered by the living nodes themselves.

use std::{collections::BTreeMap, ops::RangeInclusive};

use redis::{FromRedisValue, Value, aio::MultiplexedConnection};
use tempfile::TempDir;

use super::{RedisServer, eventually};

pub(crate) const SLOTS: u16 = 16384;

pub(crate) struct RedisCluster {
    nodes: Vec<Node>,
}

struct Node {
    server: RedisServer,
    id: String,
    alive: bool,
    /// The directory of its `nodes.conf`.
    _directory: TempDir,
}

impl Node {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().display().to_string();
        let server = RedisServer::start_with(
            None,
            &[
                "--cluster-enabled",
                "yes",
                "--dir",
                &path,
                "--cluster-node-timeout",
                "1000",
                // The slots of the remaining primaries are still served.
                "--cluster-require-full-coverage",
                "no",
                "--cluster-allow-replica-migration",
                "no",
                // A replica is to take over however old its data are: links are young in a test.
                "--cluster-replica-validity-factor",
                "0",
                // A replica appears in CLUSTER SLOTS only once it was sent something.
                "--repl-ping-replica-period",
                "1",
                "--repl-diskless-sync-delay",
                "0",
                "--appendonly",
                "no",
            ],
        )
        .await;
        let mut node = Self {
            server,
            id: String::new(),
            alive: true,
            _directory: directory,
        };
        node.id = node.ask(&["CLUSTER", "MYID"]).await;
        node
    }

    async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let asked = self.try_ask(command).await;
        asked.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    async fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        ask(&mut self.server.try_admin().await?, command).await
    }

    /// A field of `INFO` or `CLUSTER INFO`.
    async fn field(&self, command: &[&str], name: &str) -> String {
        let text: String = self.ask(command).await;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().to_owned()
    }
}

async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &[&str],
) -> redis::RedisResult<T> {
    let mut ask = redis::cmd(command[0]);
    ask.arg(&command[1..]).query_async(connection).await
}

impl RedisCluster {
    /// Starts a cluster whose primaries share the slots evenly, and waits until every node reports `cluster_state:ok`.
    pub(crate) async fn start(primaries: usize, replicas_per_primary: usize) -> Self {
        let count = primaries * (1 + replicas_per_primary);
        let mut nodes = Vec::with_capacity(count);
        for index in 0..count {
            let node = Node::start().await;
            // Epochs of their own spare the nodes a conflict that they would resolve only after a while.
            let epoch = (index + 1).to_string();
            node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await;
            nodes.push(node);
        }
        let cluster = Self { nodes };
        for index in 1..count {
            cluster.meet(index, 0).await;
        }
        cluster.all_know_all().await;
        for primary in 0..primaries {
            let bound = |index: usize| index * usize::from(SLOTS) / primaries;
            let (first, last) = (
                bound(primary).to_string(),
                (bound(primary + 1) - 1).to_string(),
            );
            cluster.nodes[primary]
                .ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])
                .await;
        }
        for replica in primaries..count {
            let primary = cluster.nodes[(replica - primaries) % primaries].id.clone();
            cluster.nodes[replica]
                .ask::<()>(&["CLUSTER", "REPLICATE", &primary])
                .await;
        }
        cluster.is_whole().await;
        cluster
    }

    /// Every node's `host:port`, by index, the dead ones' too.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.server.address())
            .collect()
    }

    pub(crate) fn address(&self, index: usize) -> String {
        self.nodes[index].server.address()
    }

    pub(crate) fn port(&self, index: usize) -> u16 {
        self.nodes[index].server.port
    }

    /// Its id in the cluster, as in `CLUSTER MYID`.
    pub(crate) fn id(&self, index: usize) -> &str {
        &self.nodes[index].id
    }

    /// A connection to a node of its own, as the administrator.
    pub(crate) async fn admin(&self, index: usize) -> MultiplexedConnection {
        self.nodes[index].server.admin().await
    }

    /// The slot of a key, as Redis counts.
    pub(crate) async fn slot_of(&self, key: &str) -> u16 {
        let (_, node) = self.living().next().expect("a node lives");
        node.ask(&["CLUSTER", "KEYSLOT", key]).await
    }

    /// The living node that serves a slot, if all living nodes agree on one.
    pub(crate) async fn primary_of(&self, slot: u16) -> Option<usize> {
        let mut found = None;
        for (_, node) in self.living() {
            let map: String = node.ask(&["CLUSTER", "NODES"]).await;
            let id = primaries(&map).into_iter().find_map(|(id, (_, slots))| {
                let has = slots.iter().any(|range| range.contains(&slot));
                has.then_some(id)
            })?;
            let (primary, _) = self.living().find(|(_, node)| node.id == id)?;
            if *found.get_or_insert(primary) != primary {
                return None;
            }
        }
        found
    }

    /// The living node that serves a key, if all living nodes agree on one.
    pub(crate) async fn primary_of_key(&self, key: &str) -> Option<usize> {
        self.primary_of(self.slot_of(key).await).await
    }

    /// Returns whether a living node reports itself as a primary.
    pub(crate) async fn is_primary(&self, index: usize) -> bool {
        self.nodes[index]
            .field(&["INFO", "replication"], "role")
            .await
            == "master"
    }

    /// Stops a node as a machine's loss does.
    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].server.kill();
        self.nodes[index].alive = false;
    }

    /// Stops a node from responding, for good.
    pub(crate) fn pause(&mut self, index: usize) {
        self.nodes[index].server.pause();
        self.nodes[index].alive = false;
    }

    /// Starts all nodes again, which still know the cluster.
    pub(crate) async fn restart_all(&mut self) {
        for node in &mut self.nodes {
            node.server.restart().await;
            node.alive = true;
        }
        self.is_whole().await;
    }

    /// Starts a killed node again: it still knows the cluster, but has none of its keys.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.nodes[index].server.restart().await;
        self.nodes[index].alive = true;
        self.is_whole().await;
    }

    /// Waits until all living nodes agree on another node than `lost` for the slot, and returns it.
    pub(crate) async fn wait_for_failover(&self, slot: u16, lost: usize) -> usize {
        let mut primary = None;
        eventually("a replica takes over", async || {
            primary = self
                .primary_of(slot)
                .await
                .filter(|&primary| primary != lost);
            primary.is_some()
        })
        .await;
        primary.expect("eventually waited for it")
    }

    /// Adds a primary without slots, and returns its index.
    pub(crate) async fn add_primary(&mut self) -> usize {
        let (member, _) = self.living().next().expect("a node lives");
        self.nodes.push(Node::start().await);
        let index = self.nodes.len() - 1;
        self.meet(index, member).await;
        self.all_know_all().await;
        self.is_whole().await;
        index
    }

    /// Moves slots from one primary to another with their keys, one by one, as `redis-cli --cluster reshard` does; returns
    /// when all living nodes know of it.
    pub(crate) async fn reshard(&self, from: usize, to: usize, slots: RangeInclusive<u16>) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let port = target.server.port.to_string();
        let (mut source_admin, mut target_admin) = (self.admin(from).await, self.admin(to).await);
        for slot in slots {
            let slot = slot.to_string();
            let set_slot = ["CLUSTER", "SETSLOT", &slot];
            let importing = [&set_slot[..], &["IMPORTING", &source.id]].concat();
            let migrating = [&set_slot[..], &["MIGRATING", &target.id]].concat();
            ask::<()>(&mut target_admin, &importing)
                .await
                .expect("the node imports the slot");
            ask::<()>(&mut source_admin, &migrating)
                .await
                .expect("the node migrates the slot");
            loop {
                let some = ["CLUSTER", "GETKEYSINSLOT", &slot, "100"];
                let keys: Vec<String> = ask(&mut source_admin, &some)
                    .await
                    .expect("it has the slot");
                if keys.is_empty() {
                    break;
                }
                for key in keys {
                    // A key that has gone meanwhile is answered with NOKEY.
                    let migrate = ["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"];
                    ask::<()>(&mut source_admin, &migrate)
                        .await
                        .expect("both are there");
                }
            }
            // The new owner first: so no moment is without one.
            let node = [&set_slot[..], &["NODE", &target.id]].concat();
            ask::<()>(&mut target_admin, &node)
                .await
                .expect("it has the keys");
            ask::<()>(&mut source_admin, &node)
                .await
                .expect("it has no key left");
        }
        // A node that claims a slot before it knows of the last claim is overruled by it.
        self.is_whole().await;
    }

    fn living(&self) -> impl Iterator<Item = (usize, &Node)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| node.alive)
    }

    async fn meet(&self, index: usize, member: usize) {
        let port = self.nodes[member].server.port.to_string();
        self.nodes[index]
            .ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port])
            .await;
    }

    async fn all_know_all(&self) {
        eventually("every node knows every node", async || {
            for (_, node) in self.living() {
                let text: String = node.ask(&["CLUSTER", "NODES"]).await;
                let known = |other: &Node| {
                    let line = text.lines().find(|line| line.starts_with(&other.id));
                    line.is_some_and(|line| !line.contains("handshake"))
                };
                if !self.nodes.iter().all(known) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Waits until all living nodes report the same healthy cluster, and every replica has its primary's data.
    async fn is_whole(&self) {
        eventually("the cluster is whole", async || {
            let mut views = Vec::new();
            for (_, node) in self.living() {
                let info = ["CLUSTER", "INFO"];
                let all = SLOTS.to_string();
                let link = ["INFO", "replication"];
                if node.field(&info, "cluster_state").await != "ok"
                    || node.field(&info, "cluster_slots_assigned").await != all
                    || node.field(&link, "master_link_status").await == "down"
                {
                    return false;
                }
                let map: String = node.ask(&["CLUSTER", "NODES"]).await;
                let primaries = primaries(&map);
                let slots: Value = node.ask(&["CLUSTER", "SLOTS"]).await;
                let slots = format!("{slots:?}");
                let is_listed =
                    |node: &Node| primaries.contains_key(&node.id) || slots.contains(&node.id);
                if !self.living().all(|(_, node)| is_listed(node)) {
                    return false;
                }
                views.push(primaries);
            }
            views.windows(2).all(|two| two[0] == two[1])
        })
        .await;
    }
}

/// The primaries in a reply to `CLUSTER NODES`, each with the epoch of its claim and the slots it claims.
fn primaries(map: &str) -> BTreeMap<String, (String, Vec<RangeInclusive<u16>>)> {
    let primaries = map.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let is_master = words[2].split(',').any(|flag| flag == "master");
        let slots = words.iter().skip(8).filter_map(|range| {
            // A slot in brackets is being migrated and does not parse.
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        });
        is_master.then(|| (words[0].to_owned(), (words[6].to_owned(), slots.collect())))
    });
    primaries.collect()
}
