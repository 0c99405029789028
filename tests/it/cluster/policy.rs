//! One endpoint or a cluster: what `Auto` makes of each server, and what a wrong policy brings.

use std::time::Duration;

use entra_redis_service::config::ClusteringPolicy;

use entra_redis::pool::{Builder, Error, Pool};

use entra_redis_emulator as emulator;

use entra_redis_emulator::Options;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::support::{Azure, RedisCluster, RedisServer, Service, eventually};

fn plain(port: u16) -> Builder {
    let endpoint = format!("127.0.0.1:{port}").parse().expect("an endpoint");
    Pool::builder(endpoint).plain_text().no_authentication()
}

async fn found(pool: &Pool) -> String {
    eventually("the clustering policy is known", async || {
        pool.clustering().is_some()
    })
    .await;
    pool.clustering().expect("detected above").to_string()
}

/// Azure's EnterpriseCluster: one endpoint, and CLUSTER is blocked.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_blocks_cluster_commands_is_taken_for_one_endpoint() {
    let redis = RedisServer::start().await;
    let azure = Azure::start(Options {
        redis: Some(redis.address()),
        clustering_policy: emulator::ClusteringPolicy::EnterpriseCluster,
        ..Options::default()
    })
    .await;
    let service = Service::start(&[], azure.environment("ManagedIdentityCredential")).await;
    service.ready().await;
    let (_, report) = service.readiness().await;
    assert_eq!(
        report["checks"]["clustering"]["detail"],
        "one endpoint, because the server refuses CLUSTER SLOTS with ERR"
    );
    assert_eq!(service.get("/sample").await.status(), 200);
    eventually("the pool is full", async || {
        service.metric("db_client_connection_count", &[]).await == 2.0
    })
    .await;
}

#[tokio::test]
async fn auto_goes_by_what_the_server_answers() {
    let single = RedisServer::start().await;
    let pool = plain(single.port).build().expect("no TLS");
    let refused = "one endpoint, because the server refuses CLUSTER SLOTS with ERR";
    assert_eq!(found(&pool).await, refused);

    let cluster = RedisCluster::start(1, 0).await;
    let to = |builder: Builder| builder.build().expect("no TLS");
    let port = cluster.port(0);
    let auto = to(plain(port));
    let one = "OSSCluster, because CLUSTER SLOTS returned 1 primary";
    assert_eq!(found(&auto).await, one);

    let forced = to(plain(port).clustering_policy(ClusteringPolicy::OssCluster));
    let configured = "OSSCluster, because REDIS_CLUSTERING_POLICY is OSSCluster";
    assert_eq!(found(&forced).await, configured);

    let forced = to(plain(port).clustering_policy(ClusteringPolicy::NoCluster));
    let configured = "one endpoint, because REDIS_CLUSTERING_POLICY is NoCluster";
    assert_eq!(found(&forced).await, configured);
}

#[tokio::test]
async fn without_permission_for_cluster_slots_redis_is_one_endpoint() {
    let redis = RedisServer::start().await;
    let mut rules = redis::cmd("ACL");
    rules.arg("SETUSER").arg("default").arg("-cluster");
    rules
        .query_async::<()>(&mut redis.admin().await)
        .await
        .expect("the administrator may");
    let pool = plain(redis.port).build().expect("no TLS");
    let refused = "one endpoint, because the server refuses CLUSTER SLOTS with NOPERM";
    assert_eq!(found(&pool).await, refused);
}

#[tokio::test]
async fn a_policy_that_the_server_cannot_follow_is_named() {
    let single = RedisServer::start().await;
    let pool = plain(single.port)
        .clustering_policy(ClusteringPolicy::OssCluster)
        .build()
        .expect("no TLS");
    eventually("it is named", async || match pool.get().await {
        Err(Error::Unavailable(error)) => error
            .to_string()
            .starts_with("REDIS_CLUSTERING_POLICY is OSSCluster, but"),
        _ => false,
    })
    .await;
    assert!(pool.clustering().is_none());
}

#[tokio::test]
async fn a_cluster_without_slots_is_waited_for() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().display().to_string();
    let arguments = ["--cluster-enabled", "yes", "--dir", &path];
    let redis = RedisServer::start_with(None, &arguments).await;
    let pool = plain(redis.port).build().expect("no TLS");
    eventually("it is named", async || match pool.get().await {
        Err(Error::Unavailable(error)) => {
            error.to_string().ends_with("has no primary for any slot")
        }
        _ => false,
    })
    .await;
    let mut slots = redis::cmd("CLUSTER");
    slots.arg(&["ADDSLOTSRANGE", "0", "16383"]);
    slots
        .query_async::<()>(&mut redis.admin().await)
        .await
        .expect("the administrator may");
    assert_eq!(
        found(&pool).await,
        "OSSCluster, because CLUSTER SLOTS returned 1 primary"
    );
    // Redis takes a moment to report `cluster_state:ok`.
    eventually("it is served", async || {
        pool.query::<Option<String>>(redis::cmd("GET").arg("key"))
            .await
            .is_ok()
    })
    .await;
}

/// A missing reply decides nothing: the command is sent again.
#[tokio::test]
async fn an_answer_that_is_late_is_asked_for_again() {
    let cluster = RedisCluster::start(1, 0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let address = cluster.address(0);
    // The reply to the first CLUSTER SLOTS is delayed for longer than the command timeout.
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&address).await.expect("it runs");
            let hold = std::mem::take(&mut first);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let (asked, mut was_asked) = tokio::sync::watch::channel(false);
                let up = async {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                        let bytes = &buffer[..count];
                        if bytes.windows(5).any(|word| word == b"SLOTS") {
                            asked.send_replace(true);
                        }
                        to_server.write_all(bytes).await.expect("it runs");
                    }
                };
                let down = async {
                    let mut buffer = [0; 4096];
                    let mut delayed = false;
                    while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                        if hold && !delayed && *was_asked.borrow_and_update() {
                            delayed = true;
                            sleep(Duration::from_millis(700)).await;
                        }
                        if to_client.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::join!(up, down);
            });
        }
    });
    let pool = plain(port)
        .command_timeout(Duration::from_millis(300))
        .build()
        .expect("no TLS");
    assert_eq!(
        found(&pool).await,
        "OSSCluster, because CLUSTER SLOTS returned 1 primary"
    );
}
