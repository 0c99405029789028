//! The pool and the service against real clusters: three primaries and three replicas behind an emulated Azure that
//! announces its nodes by IP address under a certificate for its name alone, with tokens that live for seconds.

mod commands;
mod nodes;
mod policy;

use std::{sync::Arc, time::Duration};

use entra_redis::{
    identity::{AccessToken, Error, TokenSource},
    pool::{Builder, Pool},
    secret::Secret,
};

use entra_redis_emulator::Options;
use tokio::time::{Instant, sleep};

use crate::support::{Azure, IncrementLoad, Load, RedisCluster, Service, client, eventually};

/// The emulator before a cluster, with tokens of this life.
async fn azure(cluster: &RedisCluster, seconds: u64) -> Azure {
    Azure::start(Options {
        token_lifetime: Duration::from_secs(seconds),
        redis: Some(cluster.address(0)),
        ..Options::default()
    })
    .await
}

/// The managed identity of this machine, as the emulator plays it.
struct Identity {
    client: reqwest::Client,
    endpoint: String,
    header: String,
}

#[async_trait::async_trait]
impl TokenSource for Identity {
    fn name(&self) -> &'static str {
        "Identity"
    }

    async fn fetch(&self) -> Result<AccessToken, Error> {
        let url = format!(
            "{}?api-version=2019-08-01&resource=https://redis.azure.com",
            self.endpoint
        );
        let request = self
            .client
            .get(url)
            .header("x-identity-header", &self.header);
        let answer = request.send().await.expect("the emulator runs");
        let answer: serde_json::Value =
            serde_json::from_str(&answer.text().await.expect("a complete body"))
                .expect("it is JSON");
        let seconds = answer["expires_on"].as_str().expect("a text").parse();
        let expires_at = std::time::UNIX_EPOCH + Duration::from_secs(seconds.expect("a number"));
        let token = answer["access_token"].as_str().expect("a token");
        AccessToken::from_jwt(Secret::new(token), expires_at)
    }
}

/// A pool behind the emulator.
fn pool(azure: &Azure) -> Pool {
    builder(azure).build().expect("the certificate is there")
}

fn builder(azure: &Azure) -> Builder {
    let endpoint = azure
        .variable("REDIS_ENDPOINT")
        .parse()
        .expect("an endpoint");
    let identity = Identity {
        client: client(),
        endpoint: azure.variable("IDENTITY_ENDPOINT").to_owned(),
        header: azure.variable("IDENTITY_HEADER").to_owned(),
    };
    Pool::builder(endpoint)
        .ca_file(azure.variable("REDIS_CA_FILE"))
        .token_source(Arc::new(identity))
}

async fn filled(pool: &Pool, connections: usize) {
    eventually("the pool is full", async || {
        pool.clustering().is_some() && pool.status().open == connections
    })
    .await;
}

/// The promise, as counts: seven connections (two to each of three primaries, one to the endpoint).
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_and_no_connection_opens_while_tokens_rotate_in_a_cluster() {
    let cluster = RedisCluster::start(3, 1).await;
    let azure = azure(&cluster, 5).await;
    let environment = azure.environment("ManagedIdentityCredential");
    let service = Service::start(&[], environment).await;
    service.ready().await;
    eventually("all connections are open", async || {
        service.metric("db_client_connection_count", &[]).await == 7.0
    })
    .await;
    eventually("the latest check found all primaries", async || {
        let (_, report) = service.readiness().await;
        report["checks"]["redis"]["primaries_answering"] == 3
    })
    .await;
    let (_, report) = service.readiness().await;
    assert_eq!(
        report["checks"]["clustering"]["detail"],
        "OSSCluster, because CLUSTER SLOTS returned 3 primaries"
    );
    assert_eq!(report["checks"]["clustering"]["policy"], "OSSCluster");
    let redis = &report["checks"]["redis"];
    assert_eq!(redis["primaries"], 3);
    assert_eq!(redis["primaries_answering"], 3);
    assert_eq!(redis["connections_open"], 7);

    let sample = Load::start(&service.url("/sample"), 16);
    let pool = pool(&azure);
    filled(&pool, 7).await;
    let traffic = IncrementLoad::start(&pool, 16);
    sleep(Duration::from_secs(40)).await;
    let (good, failures) = sample.stop().await;
    let ledger = traffic.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(ledger.failures.is_empty(), "{:?}", ledger.kinds());
    assert!(good > 1000 && ledger.good > 1000, "{good} {}", ledger.good);
    authenticated_with_the_newest(&service).await;

    let metric = async |name, labels: &[&str]| service.metric(name, labels).await;
    assert_eq!(metric("redis_connections_opened_total", &[]).await, 7.0);
    assert_eq!(metric("redis_connections_closed_total", &[]).await, 0.0);
    let tokens = metric("entra_token_refresh_total", &["outcome=\"success\""]).await;
    let rotations = tokens - 1.0;
    assert!(
        rotations >= 8.0,
        "{rotations} rotations in 40 s of 5 s tokens"
    );
    let reauths = ["kind=\"reauth\"", "outcome=\"success\""];
    let authenticated = metric("redis_auth_total", &reauths).await;
    let wanted = 7.0 * rotations;
    assert!(
        authenticated <= wanted && authenticated >= 0.99 * wanted,
        "{authenticated} of {wanted}"
    );
    let counts = azure.controls.counts();
    assert_eq!(
        counts.auth_repeated, 0,
        "authenticated twice with one token"
    );
    assert_eq!(counts.auth_refused, 0);
    assert_eq!(
        counts.connections_opened, 14,
        "the service's and the pool's"
    );
    println!(
        "{good} requests and {} commands, 0 failures, {rotations} rotations, {authenticated} of {wanted} re-AUTHs",
        ledger.good
    );
}

async fn authenticated_with_the_newest(service: &Service) {
    eventually("all connections have the newest token", async || {
        let metrics = service.text("/metrics").await;
        let value = |name| crate::support::metric(&metrics, name, &[]);
        value("entra_token_expiry_timestamp_seconds")
            == value("redis_connection_token_expiry_timestamp_seconds")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_fails_while_slots_move_and_tokens_rotate() {
    let cluster = RedisCluster::start(3, 1).await;
    let azure = azure(&cluster, 5).await;
    let pool = pool(&azure);
    filled(&pool, 7).await;
    let service = Service::start(&[], azure.environment("ManagedIdentityCredential")).await;
    service.ready().await;
    let slot = cluster.slot_of("PreviousVisitTime").await; // 5499: the second primary's
    let sample = Load::start(&service.url("/sample"), 8);
    let traffic = IncrementLoad::start(&pool, 16);
    let tokens = azure.controls.counts().tokens_issued;

    cluster.reshard(1, 2, slot - 30..=slot + 219).await;
    cluster.reshard(0, 1, 0..=249).await;
    let before = traffic.good();
    eventually("commands succeed again", async || {
        traffic.good() > before + 1000
    })
    .await;
    eventually("tokens rotate meanwhile", async || {
        azure.controls.counts().tokens_issued >= tokens + 2
    })
    .await;
    let (good, failures) = sample.stop().await;
    let ledger = traffic.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(ledger.failures.is_empty(), "{:?}", ledger.kinds());
    assert!(good > 100, "{good}");
    assert_eq!(cluster.primary_of(slot).await, Some(2));
    assert_eq!(azure.controls.counts().auth_repeated, 0);
    println!(
        "500 slots moved: {good} requests and {} commands, 0 failures",
        ledger.good
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_primary_is_lost_commands_fail_only_while_its_slots_have_none() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let azure = azure(&cluster, 5).await;
    let pool = pool(&azure);
    filled(&pool, 7).await;
    let traffic = IncrementLoad::start(&pool, 16);
    let service = Service::start(&[], azure.environment("ManagedIdentityCredential")).await;
    service.ready().await;
    sleep(Duration::from_secs(1)).await;

    let slot = cluster.slot_of("PreviousVisitTime").await;
    let lost = cluster.primary_of(slot).await.expect("all agree");
    let killed = Instant::now();
    cluster.kill(lost);
    let heir = cluster.wait_for_failover(slot, lost).await;
    let took_over = Instant::now();
    assert_eq!(service.get("/sample").await.status(), 200);
    sleep(Duration::from_secs(6)).await; // longer than a token lives
    let ledger = traffic.stop().await;

    for failure in &ledger.failures {
        let (began, error) = (failure.began, &failure.error);
        assert!(
            began >= killed - Duration::from_secs(1) && began < took_over,
            "{error:?} {:?} after the loss, {:?} after the fail-over",
            began.saturating_duration_since(killed),
            began.saturating_duration_since(took_over),
        );
    }
    let last = ledger.failures.iter().map(|failure| failure.began).max();
    println!(
        "node {lost} was lost, node {heir} took over after {:?}; {} of {} commands failed, the last began {:?} after the loss: {:?}",
        took_over - killed,
        ledger.failures.len(),
        ledger.good,
        last.map(|last| last.saturating_duration_since(killed)),
        ledger.kinds()
    );
    // The dead node is forgotten: two connections to each of three primaries, and one to the endpoint.
    filled(&pool, 7).await;
    assert_eq!(pool.status().size, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_added_is_used_without_a_restart() {
    let mut cluster = RedisCluster::start(3, 0).await;
    let azure = azure(&cluster, 5).await;
    let pool = pool(&azure);
    filled(&pool, 7).await;
    let traffic = IncrementLoad::start(&pool, 16);
    let added = cluster.add_primary().await;
    cluster.reshard(0, added, 0..=499).await;
    cluster.reshard(1, added, 6000..=6199).await;
    filled(&pool, 9).await;
    let before = traffic.good();
    eventually("commands succeed again", async || {
        traffic.good() > before + 1000
    })
    .await;
    let ledger = traffic.stop().await;
    assert!(ledger.failures.is_empty(), "{:?}", ledger.kinds());
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut cluster.admin(added).await)
        .await
        .expect("INFO");
    assert!(stats.contains("cmdstat_incr:"), "{stats}");
}
