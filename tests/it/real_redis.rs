//! The library against redis-server itself, TLS and ACL users, without the emulator's proxy: what Redis does with AUTH.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use entra_redis_service::config::Endpoint;

use entra_redis::{
    identity::{AccessToken, Error, TokenSource},
    pool::Pool,
    secret::Secret,
};
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use crate::support::{Certificates, Fault, LIMIT, Port, Proxy, RedisServer, chain, eventually};

const LIFE: Duration = Duration::from_secs(3);

/// Issues passwords as Entra ID issues tokens and has Redis accept them, in one of the ways that happen in the field.
struct Issuer {
    admin: Mutex<MultiplexedConnection>,
    way: Way,
    issued: AtomicU64,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// The user's password is replaced: the old one no longer authenticates.
    Replace,
    /// The user changes, and the old one is deleted soon after: Redis closes connections still authenticated as it.
    Alternate,
    /// Redis accepts the token only some time after it was issued.
    Late,
}

#[async_trait::async_trait]
impl TokenSource for Issuer {
    fn name(&self) -> &'static str {
        "Issuer"
    }

    async fn fetch(&self) -> Result<AccessToken, Error> {
        let number = self.issued.fetch_add(1, Ordering::SeqCst);
        let username = match self.way {
            Way::Alternate => format!("user-{}", number % 2),
            Way::Replace | Way::Late => "user".to_owned(),
        };
        let token = format!("token-{number}-{}", "x".repeat(1500));
        let mut admin = self.admin.lock().expect("no panic under the lock").clone();
        let (user, password) = (username.clone(), format!(">{token}"));
        let accept = async move {
            let mut setuser = redis::cmd("ACL");
            setuser
                .arg("SETUSER")
                .arg(&user)
                .arg(&["resetpass", "on", "+@all", "~*", "&*"])
                .arg(password);
            setuser
                .query_async::<()>(&mut admin)
                .await
                .expect("the administrator may");
            if user.starts_with("user-") {
                let old = format!("user-{}", (number + 1) % 2);
                sleep(Duration::from_millis(300)).await;
                let deleted = redis::cmd("ACL")
                    .arg("DELUSER")
                    .arg(old)
                    .query_async::<()>(&mut admin)
                    .await;
                deleted.expect("the administrator may");
            }
        };
        match self.way {
            Way::Replace => accept.await,
            Way::Alternate => {
                tokio::spawn(accept);
                sleep(Duration::from_millis(20)).await;
            }
            Way::Late => {
                tokio::spawn(async move {
                    sleep(Duration::from_millis(300)).await;
                    accept.await;
                });
            }
        }
        Ok(AccessToken {
            username,
            secret: Secret::new(token),
            expires_at: SystemTime::now() + LIFE,
        })
    }
}

fn endpoint(port: u16) -> Endpoint {
    format!("localhost:{port}")
        .parse()
        .expect("a valid address")
}

/// The number of connections that Redis has ever accepted.
async fn accepted(redis: &RedisServer) -> u64 {
    let info: String = redis::cmd("INFO")
        .arg("stats")
        .query_async(&mut redis.admin().await)
        .await
        .expect("INFO");
    let count = info
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"));
    count.expect("Redis counts them").parse().expect("a number")
}

async fn rotates_unnoticed(way: Way) {
    let certificates = Certificates::for_name("localhost");
    let redis = RedisServer::with_tls(&certificates).await;
    let issuer = Arc::new(Issuer {
        admin: Mutex::new(redis.admin().await),
        way,
        issued: AtomicU64::new(0),
    });
    let pool = Pool::builder(endpoint(redis.tls_port))
        .ca_file(certificates.path("ca.pem"))
        .token_source(issuer.clone())
        .size(4)
        .build()
        .expect("the certificate is there");
    eventually("the pool is full", async || pool.status().open == 4).await;

    let before = accepted(&redis).await;
    let commands = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (pool, commands) = (pool.clone(), commands.clone());
            tokio::spawn(async move {
                let end = tokio::time::Instant::now() + 5 * LIFE;
                while tokio::time::Instant::now() < end {
                    // At most once each, so nothing is hidden by a retry, and Redis' count must be ours.
                    let done = pool.query::<u64>(redis::cmd("INCR").arg("count")).await;
                    done.unwrap_or_else(|error| {
                        panic!("{error}: {:?}", std::error::Error::source(&error))
                    });
                    commands.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no command failed");
    }
    let counted: u64 = redis::cmd("GET")
        .arg("count")
        .query_async(&mut redis.admin().await)
        .await
        .expect("GET");
    assert_eq!(counted, commands.load(Ordering::SeqCst));
    assert!(issuer.issued.load(Ordering::SeqCst) >= 6, "tokens rotated");
    // The two counts and the GET above are connections of the administrator's: none was opened by the pool.
    assert_eq!(accepted(&redis).await, before + 2);
    tokio::time::timeout(LIMIT, pool.close())
        .await
        .expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_password_costs_no_command_and_no_connection() {
    rotates_unnoticed(Way::Replace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_costs_no_command_and_no_connection() {
    rotates_unnoticed(Way::Alternate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_redis_accepts_late_costs_no_command_and_no_connection() {
    rotates_unnoticed(Way::Late).await;
}

fn plain(redis: &RedisServer) -> Pool {
    let builder = Pool::builder(endpoint(redis.port))
        .plain_text()
        .no_authentication()
        .size(2);
    builder.build().expect("no TLS is set up")
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_under_load_fail_no_idempotent_command() {
    let redis = RedisServer::start().await;
    let pool = plain(&redis);
    let workers: Vec<_> = (0..32)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let end = tokio::time::Instant::now() + Duration::from_secs(5);
                while tokio::time::Instant::now() < end {
                    let mut set = redis::cmd("SET");
                    set.arg("key").arg("value").arg("GET");
                    let done = pool.query_idempotent::<Option<String>>(&set).await;
                    done.unwrap_or_else(|error| {
                        panic!("{error}: {:?}", std::error::Error::source(&error))
                    });
                }
            })
        })
        .collect();
    let mut admin = redis.admin().await;
    for _ in 0..10 {
        sleep(Duration::from_millis(400)).await;
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg(&["TYPE", "normal", "SKIPME", "yes"]);
        let killed: u64 = kill.query_async(&mut admin).await.expect("KILL");
        assert!(killed >= 1, "there was something to kill");
    }
    for worker in workers {
        worker.await.expect("no command failed");
    }
}

#[tokio::test]
async fn a_command_cut_off_is_outcome_unknown_and_not_sent_again() {
    let redis = RedisServer::start().await;
    let pool = plain(&redis);
    pool.wait_connected().await;
    let mut admin = redis.admin().await;
    // The server reads the command and closes the connection that waits for its reply.
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut pop = redis::cmd("BLPOP");
            pop.arg("nothing").arg(0);
            pool.query::<Option<(String, String)>>(&pop).await
        }
    });
    sleep(Duration::from_millis(200)).await;
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg(&["TYPE", "normal", "SKIPME", "yes"]);
    kill.query_async::<u64>(&mut admin).await.expect("KILL");
    let error = waiting
        .await
        .expect("no panic")
        .expect_err("its connection was closed");
    assert!(
        matches!(error, entra_redis::pool::Error::OutcomeUnknown(_)),
        "{error:?}"
    );
}

async fn connect_error(pool: &Pool) -> String {
    let mut text = String::new();
    eventually("a named failure", async || match pool.get().await {
        Err(entra_redis::pool::Error::Unavailable(error)) => {
            text = chain(&*error);
            true
        }
        _ => false,
    })
    .await;
    text
}

#[tokio::test]
async fn each_way_to_fail_at_connecting_is_named() {
    let certificates = Certificates::for_name("localhost");
    let others = Certificates::for_name("elsewhere.example");
    let redis = RedisServer::with_tls(&certificates).await;
    let wrong_name = RedisServer::with_tls(&others).await;
    let expired = RedisServer::with_tls(&certificates.expired("localhost")).await;
    let unused = Port::reserve();
    let to = |port, certificates: &Certificates| {
        Pool::builder(endpoint(port))
            .ca_file(certificates.path("ca.pem"))
            .no_authentication()
    };
    let cases = [
        (to(redis.tls_port, &others), "UnknownIssuer"),
        (to(wrong_name.tls_port, &others), "not valid for name"),
        (to(expired.tls_port, &certificates), "certificate expired"),
        (to(unused.number, &certificates), "Connection refused"),
        (
            to(redis.tls_port, &certificates).access_key(Secret::new("wrong")),
            "AUTH",
        ),
        (
            Pool::builder("nowhere.invalid:6379".parse().expect("an endpoint"))
                .plain_text()
                .no_authentication(),
            "cannot resolve nowhere.invalid:6379",
        ),
    ];
    for (builder, expected) in cases {
        let pool = builder.build().expect("it can be tried");
        let text = connect_error(&pool).await;
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let of_the_process = rustls::crypto::CryptoProvider::get_default();
    assert!(of_the_process.is_none(), "no test and no library sets one");
}

#[tokio::test]
async fn an_access_key_authenticates() {
    let (_redis, pool) = with_key("a test's key").await;
    pool.wait_connected().await;
    pool.query::<()>(&redis::cmd("PING"))
        .await
        .expect("it is authenticated");
}

#[tokio::test]
async fn a_pool_whose_last_handle_goes_leaves_no_connection_behind() {
    let redis = RedisServer::start().await;
    let pool = plain(&redis);
    eventually("the pool is full", async || pool.status().open == 2).await;
    let mut admin = redis.admin().await;
    let mut clients = async || {
        let mut list = redis::cmd("CLIENT");
        list.arg("LIST");
        let list: String = list.query_async(&mut admin).await.expect("LIST");
        list.lines().count()
    };
    assert!(clients().await >= 3);
    drop(pool);
    eventually("only the administrator is left", async || {
        clients().await == 1
    })
    .await;
}

#[tokio::test]
async fn tokens_and_plain_text_are_refused_together() {
    let redis = RedisServer::start().await;
    let issuer = Issuer {
        admin: Mutex::new(redis.admin().await),
        way: Way::Replace,
        issued: AtomicU64::new(0),
    };
    let builder = Pool::builder(endpoint(redis.port))
        .plain_text()
        .token_source(Arc::new(issuer));
    assert!(builder.build().is_err());
}

/// redis-server with an access key, and a pool that authenticates with it.
async fn with_key(key: &str) -> (RedisServer, Pool) {
    let redis = RedisServer::start().await;
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("requirepass").arg(key);
    set.query_async::<()>(&mut redis.admin().await)
        .await
        .expect("CONFIG SET");
    let builder = Pool::builder(endpoint(redis.port)).plain_text().size(1);
    let pool = builder.access_key(Secret::new(key)).build();
    (redis, pool.expect("no TLS"))
}

#[tokio::test]
async fn a_connection_that_redis_reports_as_not_authenticated_is_replaced() {
    let (_redis, pool) = with_key("a test's key").await;
    let mut connection = pool.get().await.expect("it opens");
    // RESET removes the authentication.
    let reset = redis::cmd("RESET").query_async::<()>(&mut connection).await;
    reset.expect("every user may");
    // Not run on the connection that is not authenticated any more, so it may be sent again whatever it does.
    let count: u64 = pool
        .query(redis::cmd("INCR").arg("count"))
        .await
        .expect("on a new connection");
    assert_eq!(count, 1);
    assert!(!connection.is_open());
}

#[tokio::test]
async fn credentials_are_in_no_error() {
    let key = "must-not-be-shown";
    let redis = RedisServer::with_arguments(&["--rename-command", "AUTH", ""]).await;
    let builder = Pool::builder(endpoint(redis.port)).plain_text();
    let pool = builder
        .access_key(Secret::new(key))
        .build()
        .expect("no TLS");
    let text = connect_error(&pool).await;
    assert!(text.contains("unknown command"), "Redis' own words: {text}");
    assert!(!text.contains(&key[..8]), "{text}");
    let shown = format!("{:?}", pool.get().await);
    assert!(!shown.contains(&key[..8]), "{shown}");
}

/// A load balancer without a backend, which closes connections immediately, and one that answers the first commands.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_close_immediately_are_opened_ever_more_slowly() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for answers in [0, 2] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let accepted = Arc::new(AtomicU64::new(0));
        let counted = accepted.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                for _ in 0..answers {
                    let _ = client.read(&mut [0; 1024]).await;
                    let _ = client.write_all(b"+OK\r\n").await;
                }
            }
        });
        let builder = Pool::builder(endpoint(port))
            .plain_text()
            .no_authentication();
        let pool = builder.build().expect("no TLS");
        sleep(Duration::from_secs(4)).await;
        let accepted = accepted.load(Ordering::SeqCst);
        assert!((2..30).contains(&accepted), "{accepted} connections in 4 s");
        connect_error(&pool).await;
    }
}

/// Connections closed all at once, soon after they were opened, are no reason to open them again slowly.
#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_together_as_soon_as_they_are_open_are_opened_again_at_once() {
    let redis = RedisServer::start().await;
    let pool = plain(&redis);
    let mut admin = redis.admin().await;
    let mut get = redis::cmd("GET");
    get.arg("key");
    for round in 0..10 {
        while pool.status().open < 2 {
            sleep(Duration::from_millis(1)).await;
        }
        if round % 2 == 0 {
            sleep(Duration::from_millis(300)).await; // these have lived
        }
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg(&["TYPE", "normal", "SKIPME", "yes"]);
        kill.query_async::<u64>(&mut admin).await.expect("KILL");
        for _ in 0..100 {
            let answer = pool.query_idempotent::<Option<String>>(&get).await;
            answer.unwrap_or_else(|error| panic!("round {round}: {}", chain(&error)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_closed_while_it_opens_hands_out_nothing_any_more() {
    let redis = RedisServer::start().await;
    for round in 0..100_u64 {
        let builder = Pool::builder(endpoint(redis.port))
            .plain_text()
            .no_authentication();
        let pool = builder.size(16).build().expect("no TLS");
        sleep(Duration::from_micros(150 * round)).await;
        tokio::time::timeout(LIMIT, pool.close())
            .await
            .expect("it closes");
        let after = pool.get().await;
        assert!(
            matches!(after, Err(entra_redis::pool::Error::Closed)),
            "{after:?}"
        );
        assert_eq!(pool.status().open, 0);
    }
}

/// A proxy in between that still acknowledges bytes after it has forgotten the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_falls_silent_is_replaced() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::before(&redis.address()).await;
    let builder = Pool::builder(endpoint(proxy.port))
        .plain_text()
        .no_authentication()
        .size(1);
    let pool = builder
        .command_timeout(Duration::from_millis(300))
        .build()
        .expect("no TLS");
    pool.wait_connected().await;
    pool.query::<()>(&redis::cmd("PING"))
        .await
        .expect("it answers");
    proxy.set(Fault::HalfOpen);
    let error = pool
        .query::<()>(&redis::cmd("PING"))
        .await
        .expect_err("it is silent");
    assert!(
        matches!(error, entra_redis::pool::Error::TimedOut(_)),
        "{error:?}"
    );
    let silent = proxy.accepted();
    eventually("another connection is opened", async || {
        let _ = pool.query::<()>(&redis::cmd("PING")).await;
        proxy.accepted() > silent
    })
    .await;
    proxy.set(Fault::None);
    eventually("it answers", async || {
        pool.query::<()>(&redis::cmd("PING")).await.is_ok()
    })
    .await;
}

/// An unused pool while an hour passes: its PINGs count as use, where Azure closes connections idle for 10 minutes.
#[tokio::test]
async fn an_idle_connection_is_used_within_the_idle_limit() {
    let redis = RedisServer::start().await;
    let builder = Pool::builder(endpoint(redis.port)).plain_text();
    let pool = builder.no_authentication().size(2).build().expect("no TLS");
    pool.wait_connected().await;
    eventually("both are open", async || pool.status().open == 2).await;
    let mut admin = redis.admin().await;
    let mut pings = async || {
        let info = redis::cmd("INFO").arg("commandstats").to_owned();
        let info: String = info.query_async(&mut admin).await.expect("INFO");
        let line = info.lines().find(|line| line.starts_with("cmdstat_ping:"));
        line.map_or(0, |line| {
            let calls = line.split(['=', ',']).nth(1).expect("calls come first");
            calls.parse::<u32>().expect("it is a number")
        })
    };
    let before = pings().await;
    for minute in 1..=60 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::resume();
        let expected = before + 2 * minute;
        eventually("each is asked", async || pings().await >= expected).await;
    }
    assert_eq!(pings().await, before + 120, "once a minute, and no more");
    pool.close().await;
}

/// Without a request, with a peer that is gone and the kernel's probes answered, it is still found and replaced.
#[tokio::test]
async fn an_idle_connection_that_falls_silent_is_replaced() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::before(&redis.address()).await;
    let builder = Pool::builder(endpoint(proxy.port)).plain_text();
    let pool = builder.no_authentication().size(1).build().expect("no TLS");
    pool.wait_connected().await;
    proxy.set(Fault::HalfOpen);
    let silent = proxy.accepted();
    let mut seconds = 0;
    while proxy.accepted() == silent {
        seconds += 1;
        assert!(seconds < 120, "the silent connection was not replaced");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        sleep(Duration::from_millis(10)).await;
    }
    proxy.set(Fault::None);
    eventually("it answers", async || {
        pool.query::<()>(&redis::cmd("PING")).await.is_ok()
    })
    .await;
}
