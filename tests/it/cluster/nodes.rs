//! Nodes that cannot be trusted or reached: each is named, and the others keep serving.

use std::time::Duration;

use entra_redis::pool::{Error, Pool};
use redis::Value;
use tokio::time::sleep;

use super::{azure, filled, pool};
use crate::support::{
    Certificates, IncrementLoad, ReadLoad, RedisCluster, RedisServer, SLOTS, chain, eventually,
};

/// A node that announces its TLS port to clients, and speaks plain text on the cluster bus.
struct TlsNode {
    server: RedisServer,
    _directory: tempfile::TempDir,
}

impl TlsNode {
    async fn start(certificates: &Certificates) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().display().to_string();
        let arguments = ["--cluster-enabled", "yes", "--dir", &path];
        let node = Self {
            server: RedisServer::start_with(Some(certificates), &arguments).await,
            _directory: directory,
        };
        let tls_port = node.server.tls_port.to_string();
        node.run(&["CONFIG", "SET", "cluster-announce-port", &tls_port])
            .await;
        node
    }

    async fn run(&self, words: &[&str]) {
        let mut command = redis::Cmd::new();
        let mut admin = self.server.admin().await;
        let done = command.arg(words).query_async::<()>(&mut admin).await;
        done.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }
}

/// Four real nodes that speak TLS and share the slots; the endpoint is the first one.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_wrong_certificate_is_refused_and_the_fault_named() {
    let good = Certificates::for_name("localhost");
    let another_authority = Certificates::for_name("elsewhere.example").another("localhost");
    let nodes = [
        (TlsNode::start(&good).await, None),
        (
            TlsNode::start(&good.another("elsewhere.example")).await,
            Some("not valid for name \"localhost\""),
        ),
        (
            TlsNode::start(&another_authority).await,
            Some("UnknownIssuer"),
        ),
        (
            TlsNode::start(&good.expired("localhost")).await,
            Some("certificate expired"),
        ),
    ];
    let share = SLOTS / 4;
    for (number, (node, _)) in (0_u16..).zip(&nodes) {
        let (first, last) = (number * share, (number + 1) * share - 1);
        node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])
            .await;
        node.run(&[
            "CLUSTER",
            "ADDSLOTSRANGE",
            &first.to_string(),
            &last.to_string(),
        ])
        .await;
        let port = nodes[0].0.server.port;
        let (port, bus) = (port.to_string(), (port + 10000).to_string());
        if number > 0 {
            node.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
                .await;
        }
    }
    eventually("the first node knows all", async || {
        let mut slots = redis::cmd("CLUSTER");
        let mut admin = nodes[0].0.server.admin().await;
        let slots: Vec<Value> = slots
            .arg("SLOTS")
            .query_async(&mut admin)
            .await
            .expect("SLOTS");
        slots.len() == 4
    })
    .await;

    let endpoint = format!("localhost:{}", nodes[0].0.server.tls_port);
    let pool = Pool::builder(endpoint.parse().expect("an endpoint"))
        .ca_file(good.path("ca.pem"))
        .no_authentication()
        .build()
        .expect("the certificate is there");
    eventually("the clustering policy is known", async || {
        pool.clustering().is_some()
    })
    .await;
    // One key in each quarter of the slots.
    let mut seen = [false; 4];
    for number in 0.. {
        if seen.iter().all(|seen| *seen) {
            break;
        }
        let key = format!("key{number}");
        let mut keyslot = redis::cmd("CLUSTER");
        let mut admin = nodes[0].0.server.admin().await;
        keyslot.arg("KEYSLOT").arg(&key);
        let slot: u16 = keyslot.query_async(&mut admin).await.expect("KEYSLOT");
        let quarter = usize::from(slot / share);
        if std::mem::replace(&mut seen[quarter], true) {
            continue;
        }
        let (node, fault) = &nodes[quarter];
        let result = pool
            .query::<Option<String>>(redis::cmd("GET").arg(&key))
            .await;
        match (result, fault) {
            (Ok(None), None) => {}
            (Err(Error::Unavailable(error)), Some(fault)) => {
                let text = chain(&*error);
                let address = format!(
                    "TLS handshake with 127.0.0.1:{} failed",
                    node.server.tls_port
                );
                assert!(
                    text.contains(fault) && text.contains(&address),
                    "{fault}: {text}"
                );
            }
            (other, _) => panic!("{fault:?}: {other:?}"),
        }
    }
}

/// A node that stops responding, like a machine that is gone, delays only the callers of its own keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_delays_no_other() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let azure = azure(&cluster, 60).await;
    let pool = pool(&azure);
    filled(&pool, 7).await;
    let mut keys = [const { None }; 3];
    for number in 0.. {
        let key = format!("key{number}");
        let primary = cluster.primary_of_key(&key).await.expect("all agree");
        keys[primary].get_or_insert(key);
        if keys.iter().all(Option::is_some) {
            break;
        }
    }
    let slot = cluster.slot_of(keys[0].as_deref().expect("found")).await;
    let get = async |index: usize| {
        let mut get = redis::cmd("GET");
        pool.query::<Option<String>>(get.arg(&keys[index])).await
    };
    cluster.pause(0);
    assert!(matches!(get(0).await, Err(Error::TimedOut(_))));
    for _ in 0..200 {
        get(1).await.expect("it answers");
        get(2).await.expect("it answers");
        sleep(Duration::from_millis(1)).await;
    }
    cluster.wait_for_failover(slot, 0).await;
    // A command may still be on its way to the old primary; the next is not.
    eventually("the new primary is found", async || get(0).await.is_ok()).await;
    for _ in 0..20 {
        get(0).await.expect("it answers");
    }
}

/// All nodes at once, and the endpoint: commands fail immediately, and service comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn without_any_node_commands_fail_at_once_and_resume_by_themselves() {
    let mut cluster = RedisCluster::start(3, 0).await;
    let azure = azure(&cluster, 60).await;
    let pool = pool(&azure);
    filled(&pool, 7).await;
    (0..3).for_each(|index| cluster.kill(index));
    let get = async || {
        pool.query::<Option<String>>(redis::cmd("GET").arg("key"))
            .await
    };
    eventually("it is named", async || {
        matches!(get().await, Err(Error::Unavailable(_)))
    })
    .await;
    cluster.restart_all().await;
    eventually("it answers", async || get().await.is_ok()).await;
    filled(&pool, 7).await;
}

/// Every connection at once is closed: commands that may run twice do not notice, others run once or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_under_load_fail_no_idempotent_command_and_repeat_no_other() {
    let cluster = RedisCluster::start(3, 0).await;
    let azure = azure(&cluster, 60).await;
    let pool = pool(&azure);
    filled(&pool, 7).await;
    let readers = ReadLoad::start(&pool, 32);
    let traffic = IncrementLoad::start(&pool, 32);
    for _ in 0..5 {
        filled(&pool, 7).await;
        // One that closes as soon as it is open would be taken for a fault.
        sleep(Duration::from_millis(200)).await;
        let opened = || azure.controls.counts().auth_accepted;
        let before = opened();
        azure.controls.disconnect_all();
        // The pool notices one after the other: until all are replaced, the next round could hit a command's last attempt.
        eventually("all are replaced", async || opened() >= before + 7).await;
    }
    readers.stop().await;
    filled(&pool, 7).await;
    let ledger = traffic.stop().await;
    assert!(!ledger.failures.is_empty(), "no command was cut off");
    for failure in &ledger.failures {
        let error = &failure.error;
        assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
    }
}
