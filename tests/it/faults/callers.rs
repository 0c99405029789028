//! Faults of callers: thousands at once, more than there are files for, and clients that send or read slowly or never.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{clock, none_failed, plain, under_load, with};
use crate::support::{LIMIT, MonitoredService, RedisServer, Service, eventually, raise_file_limit};

/// The service under a shell's `ulimit`.
fn limited(limit: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("ulimit {limit} && exec \"$0\"")])
        .arg(env!("CARGO_BIN_EXE_entra-redis"))
        .env_clear();
    command
}

/// Room in this process for thousands of connections.
fn many_files() {
    let limit = raise_file_limit();
    assert!(
        limit >= 4096,
        "these tests need 4096 open files, {limit} are allowed"
    );
}

fn address(service: &Service) -> String {
    service.public.trim_start_matches("http://").to_owned()
}

/// Connects, sends a request at once with all others, and returns head and body.
async fn one_of_many(address: String, start: std::sync::Arc<tokio::sync::Barrier>) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    start.wait().await;
    let request = b"GET /sample HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    answer
}

async fn all_at_once(service: &MonitoredService, count: usize) -> Vec<String> {
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(count));
    let clients: JoinSet<_> = (0..count)
        .map(|_| one_of_many(address(service), start.clone()))
        .collect();
    clients.join_all().await
}

const MANY: usize = 2000;

/// Also where the soft limit of open files is lower than that: it is raised to the hard one.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_clients_at_once_are_all_answered() {
    many_files();
    let redis = RedisServer::start().await;
    let mut environment = plain(redis.address());
    environment.extend(with([
        ("REDIS_COMMAND_TIMEOUT", "20s"),
        ("REQUEST_TIMEOUT", "20s"),
    ]));
    let service = MonitoredService::over(Service::run(limited("-Sn 256"), environment).await).await;
    service.ready().await;
    for answer in all_at_once(&service, MANY).await {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let log = service.log();
    assert!(
        !log.contains("connection limit reached"),
        "none had to wait: {log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_thousand_clients_those_above_the_limit_are_shed_and_counted() {
    many_files();
    let redis = RedisServer::start().await;
    let mut environment = plain(redis.address());
    environment.extend(with([
        ("MAX_CONCURRENT_REQUESTS", "100"),
        ("REDIS_COMMAND_TIMEOUT", "20s"),
        ("REQUEST_TIMEOUT", "20s"),
    ]));
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    // Requests within the limit stay until all have come.
    redis.pause();
    let answers = tokio::join!(all_at_once(&service, MANY), async {
        eventually("the others are shed", async || {
            let shed = service.metric("http_server_requests_shed_total", &[]);
            shed.await == (MANY - 100) as f64
        })
        .await;
        redis.resume();
    });
    let (good, shed): (Vec<_>, Vec<_>) = answers
        .0
        .into_iter()
        .partition(|answer| answer.starts_with("HTTP/1.1 200"));
    assert_eq!((good.len(), shed.len()), (100, MANY - 100));
    for answer in shed {
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
        assert!(answer.contains("problem:overloaded"), "{answer}");
    }
}

/// Sends a request on a connection that stays open, and returns status and body. Not by a client with a pool: that opens
/// more connections by itself, and here they would wait.
async fn over(stream: &mut TcpStream, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let exchange = async {
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut answer = Vec::new();
        loop {
            stream.read_buf(&mut answer).await.expect("it answers");
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.expect("there is one").parse().expect("a number");
                if body.len() >= length {
                    return (head[9..12].to_owned(), body.to_owned());
                }
            }
        }
    };
    timeout(LIMIT, exchange).await.expect("it answers")
}

/// More clients than there are files: those connected are served, Redis is reached anew, and the others wait.
#[tokio::test(flavor = "multi_thread")]
async fn with_more_clients_than_files_those_there_are_served_and_redis_is_reached() {
    let redis = RedisServer::start().await;
    let service = Service::run(limited("-n 100"), plain(redis.address())).await;
    let service = MonitoredService::over(service).await;
    service.ready().await;
    let stream = TcpStream::connect(address(&service)).await;
    let mut there = stream.expect("it listens");
    assert_eq!(over(&mut there, "/sample").await.0, "200");
    let mut idle = Vec::new();
    // Fifty are accepted; the others wait in the kernel, which has room for them all.
    for _ in 0..500 {
        let stream = TcpStream::connect(address(&service)).await;
        idle.push(stream.expect("the kernel takes it"));
    }
    eventually("the log reports it", async || {
        service.log().contains("connection limit reached")
    })
    .await;
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg(&["TYPE", "normal", "SKIPME", "yes"]);
    let killed = kill.query_async::<u64>(&mut redis.admin().await).await;
    assert!(killed.expect("KILL") >= 1);
    for _ in 0..100 {
        assert_eq!(over(&mut there, "/sample").await.0, "200");
    }
    let (_, metrics) = over(&mut there, "/metrics").await;
    let opened = crate::support::metric(&metrics, "redis_connections_opened_total", &[]);
    assert!(opened >= 3.0, "{opened}");
    drop(idle);
    let stream = TcpStream::connect(address(&service)).await;
    let mut fresh = stream.expect("the kernel takes it");
    assert_eq!(over(&mut fresh, "/sample").await.0, "200");
}

/// The bytes that a slow client sends at once, and those that it then sends one by one.
const SLOW: [(&str, &str); 7] = [
    ("", ""),
    ("G", ""),
    // May become HTTP/2's first line.
    ("P", ""),
    ("PRI * HTTP/2.0\r\n", ""),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    ("GET /sample HTTP/1.1\r\nhost: x\r\nx-slow: ", "a"),
    (
        "POST /sample HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n",
        "a",
    ),
];

/// The service's time runs 20 times as fast, so that its 65 s are three.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_disconnected_and_cost_others_nothing() {
    many_files();
    let redis = RedisServer::start().await;
    let mut environment = plain(redis.address());
    let library = clock::library().display().to_string();
    environment.extend(with([
        ("LD_PRELOAD", &library),
        ("FAKETIME", "+0 x20"),
        ("REDIS_CONNECT_TIMEOUT", "200s"),
        ("REDIS_COMMAND_TIMEOUT", "200s"),
        ("REQUEST_TIMEOUT", "200s"),
    ]));
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    let load = under_load(&service, 2).await;
    let before = service.memory();
    let mut clients = JoinSet::new();
    for (at_once, then) in SLOW {
        for _ in 0..50 {
            let address = address(&service);
            clients.spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                stream
                    .write_all(at_once.as_bytes())
                    .await
                    .expect("it reads");
                let let_go = async {
                    let (mut reader, mut writer) = stream.split();
                    let mut answer = Vec::new();
                    let slowly = async {
                        while writer.write_all(then.as_bytes()).await.is_ok() {
                            sleep(Duration::from_millis(100)).await;
                        }
                    };
                    tokio::select! {
                        _ = reader.read_to_end(&mut answer) => {}
                        () = slowly => {}
                    }
                };
                match timeout(LIMIT, let_go).await {
                    Ok(()) => None,
                    Err(_) => Some(at_once),
                }
            });
        }
    }
    sleep(Duration::from_secs(1)).await; // they are all there
    let grown = service.memory().saturating_sub(before);
    assert!(
        grown < 32 * 1024 * 1024,
        "{grown} bytes for {} clients",
        clients.len()
    );
    let kept: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert!(kept.is_empty(), "kept: {kept:?}");
    none_failed(load).await;
}

/// Sends requests and never reads the responses.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_disconnected_and_costs_others_nothing() {
    let redis = RedisServer::start().await;
    let service = MonitoredService::start(plain(redis.address())).await;
    service.ready().await;
    let load = under_load(&service, 2).await;
    let before = service.memory();
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let address = address(&service);
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            // Each response is over a megabyte.
            let request =
                b"GET /swagger/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20);
            stream.write_all(&request).await.expect("it reads");
            // Only an end is looked for, and nothing read.
            timeout(2 * LIMIT, async {
                while stream.write_all(b"\r\n").await.is_ok() {
                    sleep(Duration::from_millis(200)).await;
                }
            })
            .await
            .is_ok()
        });
    }
    sleep(Duration::from_secs(2)).await; // they are all there
    let grown = service.memory().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes");
    none_failed(load).await;
    let gone = clients.join_all().await;
    assert!(gone.iter().all(|gone| *gone), "{gone:?}");
}
