//! The reply is lost after the command ran: counted once, never twice, unless the caller marked the command idempotent.

use std::time::Duration;

use entra_redis::pool::{Error, Pool};

use crate::support::{Fault, IncrementLoad, Proxy, RedisServer, eventually};

async fn through_a_proxy() -> (RedisServer, Proxy, Pool) {
    let redis = RedisServer::start().await;
    let proxy = Proxy::before(&redis.address()).await;
    let endpoint = format!("127.0.0.1:{}", proxy.port);
    let pool = Pool::builder(endpoint.parse().expect("a valid address"))
        .plain_text()
        .no_authentication()
        .build()
        .expect("no TLS is set up");
    eventually("the pool is full", async || pool.status().open == 2).await;
    (redis, proxy, pool)
}

async fn count(redis: &RedisServer) -> Option<u64> {
    let mut get = redis::cmd("GET");
    get.arg("count");
    let count = get.query_async(&mut redis.admin().await).await;
    count.expect("GET")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_cut_off_is_outcome_unknown_and_the_command_ran_once() {
    let (redis, proxy, pool) = through_a_proxy().await;
    let increment = redis::cmd("INCR").arg("count").to_owned();
    for (fault, round) in [(Fault::CutAfter(0), 1), (Fault::CutAfter(2), 2)] {
        eventually("the pool is full", async || pool.status().open == 2).await;
        proxy.set(fault);
        let error = pool.query::<u64>(&increment).await;
        proxy.set(Fault::None);
        assert!(matches!(error, Err(Error::OutcomeUnknown(_))), "{error:?}");
        assert_eq!(count(&redis).await, Some(round));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_never_comes_is_outcome_unknown_and_the_command_ran_once() {
    let (redis, proxy, pool) = through_a_proxy().await;
    proxy.set(Fault::HalfOpen);
    let error = pool.query::<u64>(redis::cmd("INCR").arg("count")).await;
    assert!(matches!(error, Err(Error::TimedOut(_))), "{error:?}");
    assert!(error.is_err_and(|it| it.to_string().contains("may or may not have run")));
    assert_eq!(count(&redis).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_may_run_twice_is_answered_all_the_same() {
    let (redis, proxy, pool) = through_a_proxy().await;
    let increment = redis::cmd("INCR").arg("count").to_owned();
    proxy.set(Fault::HalfOpen);
    let answered = tokio::spawn({
        let pool = pool.clone();
        async move { pool.query_idempotent::<u64>(&increment).await }
    });
    eventually("it ran", async || count(&redis).await.is_some()).await;
    proxy.reset_all();
    proxy.set(Fault::None);
    let value = answered.await.expect("no panic").expect("it is answered");
    assert!((2..=3).contains(&value), "{value}");
    assert_eq!(count(&redis).await, Some(value));
}

/// Faults of every kind under load. The ledger is right at the end: see [`IncrementLoad::stop`].
#[tokio::test(flavor = "multi_thread")]
async fn no_command_is_counted_twice_whatever_becomes_of_its_answer() {
    let (_redis, proxy, pool) = through_a_proxy().await;
    let traffic = IncrementLoad::start(&pool, 8);
    let more = async || {
        let before = traffic.good();
        eventually("good answers", async || traffic.good() > before + 100).await;
    };
    for _ in 0..5 {
        more().await;
        proxy.set(Fault::CutAfter(30));
        tokio::time::sleep(Duration::from_millis(50)).await; // as long as it likes: not what is tested
        proxy.set(Fault::None);
        more().await;
        proxy.reset_all();
    }
    more().await;
    let ledger = traffic.stop().await;
    let unknown = ledger
        .failures
        .iter()
        .filter(|failure| matches!(failure.error, Error::OutcomeUnknown(_)));
    assert!(unknown.count() > 0, "some answers were cut off");
}
