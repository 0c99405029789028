//! Faults at Redis: users, clustering policy, access policy.

use entra_redis_emulator as emulator;

use entra_redis_emulator::{Options, RedisFault};

use super::{ask, before, contains_all, plain, report, the_fault, with};
use crate::support::{Azure, Port, RedisCluster, RedisServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_redis_does_not_have_is_reported_with_the_command_that_adds_it() {
    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    azure.controls.set_redis(RedisFault::RefuseAuth);
    let variables = azure.environment("ManagedIdentityCredential");
    let (findings, _) = report(&variables).await;
    let claims = findings.iter().find(|finding| finding["step"] == "claims");
    let claims = claims.expect("the step was run")["observed"].to_string();
    let object_id = claims.split([' ', ',']).nth(2).expect("it is there");
    let refused = the_fault(&variables, "authentication", "failed").await;
    let command = format!(
        "--cluster-name localhost --database-name default --access-policy-assignment-name {} --access-policy-name default --object-id {object_id}",
        object_id.replace('-', "")
    );
    contains_all(
        &refused,
        &[
            "WRONGPASS",
            "az redisenterprise database access-policy-assignment create",
            &command,
        ],
    );

    azure.controls.set_redis(RedisFault::HangAuth);
    let silent = with(variables, &[("REDIS_CONNECT_TIMEOUT", "2s")]);
    contains_all(
        &the_fault(&silent, "authentication", "failed").await,
        &["localhost:", "does not respond", "resourceState"],
    );

    () = ask(&redis, &["CONFIG", "SET", "requirepass", "the-right-one"]).await;
    let key = |key| {
        with(
            plain(&redis.address()),
            &[("REDIS_AUTH", "key"), ("REDIS_KEY", key)],
        )
    };
    let unauthenticated = the_fault(&plain(&redis.address()), "authentication", "failed").await;
    contains_all(
        &unauthenticated,
        &["NOAUTH", "REDIS_AUTH=none", "unset REDIS_AUTH"],
    );
    let wrong = the_fault(&key("of-no-use"), "authentication", "failed").await;
    contains_all(&wrong, &["WRONGPASS", "REDIS_KEY", "REDIS_AUTH=entra"]);
    assert!(report(&key("the-right-one")).await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_match_and_an_unavailable_primary_are_named() {
    let single = RedisServer::start().await;
    let forced = with(
        plain(&single.address()),
        &[("REDIS_CLUSTERING_POLICY", "OSSCluster")],
    );
    let forced = the_fault(&forced, "clustering", "failed").await;
    contains_all(
        &forced,
        &["is not a cluster", "unset REDIS_CLUSTERING_POLICY"],
    );

    let azure = Azure::start(Options {
        redis: Some(single.address()),
        clustering_policy: emulator::ClusteringPolicy::EnterpriseCluster,
        ..Options::default()
    })
    .await;
    assert!(report(&azure.environment("EnvironmentCredential")).await.1);

    () = ask(&single, &["ACL", "SETUSER", "default", "-cluster"]).await;
    let not_allowed = the_fault(&plain(&single.address()), "clustering", "warned").await;
    contains_all(&not_allowed, &["NOPERM", "+cluster|slots"]);

    let mut cluster = RedisCluster::start(3, 0).await;
    let address = cluster.address(0);
    let (findings, healthy) = report(&plain(&address)).await;
    assert!(healthy, "{findings:#?}");
    contains_all(
        &findings[8]["observed"].to_string(),
        &["CLUSTER SLOTS", "3 ", "; all primaries respond"],
    );
    // As in Azure: nodes by address, with a certificate for the endpoint's name alone, each with its own authentication.
    let azure = Azure::start(Options {
        redis: Some(cluster.address(0)),
        ..Options::default()
    })
    .await;
    let variables = azure.environment("WorkloadIdentityCredential");
    let (findings, healthy) = report(&variables).await;
    assert!(healthy, "{findings:#?}");
    contains_all(
        &findings[8]["observed"].to_string(),
        &["3 ", "; all primaries respond"],
    );

    cluster.pause(1);
    let variables = with(plain(&address), &[("REDIS_CONNECT_TIMEOUT", "2s")]);
    let silent = the_fault(&variables, "clustering", "failed").await;
    contains_all(
        &silent,
        &[&format!("127.0.0.1:{}: ", cluster.port(1)), "8500 to 8599"],
    );
    assert!(
        !silent.contains(&format!(":{}: ", cluster.port(2))),
        "{silent}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_is_reported_with_the_missing_rule() {
    let redis = RedisServer::start().await;
    let variables = plain(&redis.address());
    for (rules, outcome, parts) in [
        (
            &["-set"][..],
            "failed",
            &["SET: ", "NOPERM", "+set and", "~PreviousVisitTime*"][..],
        ),
        (&["-del"], "warned", &["DEL: ", "NOPERM", "+del and"]),
        (&["-get"], "warned", &["GET: ", "NOPERM", "+get and"]),
        (&["-ping"], "warned", &["PING: ", "NOPERM", "+ping and"]),
        // As a user with read access only.
        (
            &["-ping", "-set", "-del"],
            "failed",
            &["PING: ", "SET: ", "DEL: ", "+ping +set +del and"],
        ),
        (
            &["resetkeys", "~of-another:*"],
            "failed",
            &["SET: NOPERM", "GET: NOPERM", "~PreviousVisitTime*"],
        ),
    ] {
        let rules = [&["ACL", "SETUSER", "default"], rules].concat();
        () = ask(&redis, &rules).await;
        let fault = the_fault(&variables, "commands", outcome).await;
        () = ask(&redis, &["ACL", "SETUSER", "default", "+@all", "allkeys"]).await;
        contains_all(&fault, parts);
        // The key is removed again, where that is allowed.
        let left: usize = ask(&redis, &["DBSIZE"]).await;
        assert_eq!(
            left,
            usize::from(rules.ends_with(&["-del"]) && outcome == "warned")
        );
        () = ask(&redis, &["FLUSHALL"]).await;
    }
    () = ask(&redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
    contains_all(
        &the_fault(&variables, "commands", "failed").await,
        &["OOM", "the cache is full"],
    );
    () = ask(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    let unused = Port::reserve();
    () = ask(&redis, &["REPLICAOF", "127.0.0.1", &unused.to_string()]).await;
    contains_all(
        &the_fault(&variables, "commands", "failed").await,
        &["READONLY", "replica"],
    );
}
