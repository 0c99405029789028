//! Wrong input, from outside and from within.

use std::time::Duration;

use axum::{Router, routing::get};
use entra_redis_service::{
    app::{App, install_metrics},
    config::{Config, Environment},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

use crate::support::{
    Azure, LIMIT, Load, MonitoredService, RedisServer, Service, eventually, in_own_process,
};

async fn run(pairs: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = crate::support::command(arguments);
    command.envs(pairs.iter().copied());
    let output = command.output().await.expect("the binary was built");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn five_wrong_variables_are_five_lines_and_exit_code_64() {
    let pairs = [
        ("PORT", "http"),
        ("REQUEST_TIMEOUT", "3"),
        ("REDIS_ENDPOINT", "rediss://user:pass@cache:6380"),
        ("REDIS_POOL_SIZE", "none"),
        ("AZURE_TOKEN_CREDENTIALS", "password"),
    ];
    let (code, stdout, stderr) = run(&pairs, &[]).await;
    assert_eq!(code, Some(64));
    assert_eq!(stdout, "");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 5, "{stderr}");
    for ((name, _), line) in pairs.iter().zip(&lines) {
        assert!(
            line.starts_with(&format!("{name}: invalid value ")),
            "{line}"
        );
        assert!(line.contains("expected "), "{line}");
    }
}

#[tokio::test]
async fn a_password_in_the_endpoint_is_not_repeated() {
    let pairs = [(
        "REDIS_ENDPOINT",
        "cache.redis.azure.net:10000,password=hush,ssl=True",
    )];
    let (code, _, stderr) = run(&pairs, &[]).await;
    assert_eq!(code, Some(64));
    assert!(stderr.contains("connection string"), "{stderr}");
    assert!(!stderr.contains("hush"), "{stderr}");
}

/// Before any request or export, and without reading a file that has no end.
#[tokio::test]
async fn a_configuration_that_would_fail_later_is_refused_at_start() {
    let url = "https://user:hush@elsewhere.example:4318";
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", url),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://two words"),
        ("AZURE_AUTHORITY_HOST", url),
        ("REDIS_CA_FILE", "/dev/zero"),
        ("SSL_CERT_FILE", "/dev/zero"),
    ] {
        for arguments in [&[][..], &["config"]] {
            let pairs = [("REDIS_ENDPOINT", "localhost:1"), (name, value)];
            let (code, stdout, stderr) = run(&pairs, arguments).await;
            assert_eq!(code, Some(64), "{name}");
            assert!(
                stderr.starts_with(&format!("{name}: invalid value ")),
                "{stderr}"
            );
            assert!(!stderr.contains("hush") && !stdout.contains("hush"));
        }
    }
}

#[tokio::test]
async fn tokens_in_the_clear_are_refused() {
    let (code, _, stderr) = run(
        &[("REDIS_ENDPOINT", "localhost:6379"), ("REDIS_TLS", "false")],
        &[],
    )
    .await;
    assert_eq!(code, Some(64));
    assert!(
        stderr.contains("REDIS_TLS") && stderr.contains("must not be sent unencrypted"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_wrong_command_line_is_exit_code_64_and_a_taken_port_is_1() {
    for wrong in [
        &["surf"][..],
        &["dev", "--token-lifetime", "0s"],
        &["emulate", "--redis-port", "x"],
    ] {
        assert_eq!(run(&[], wrong).await.0, Some(64), "{wrong:?}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let (code, _, stderr) = run(&[("PORT", &port)], &["dev"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("127.0.0.1:{port}")), "{stderr}");
}

#[tokio::test]
async fn oversized_headers_are_refused_and_hurt_no_other_request() {
    let service = Service::start(&["dev"], [("", ""); 0]).await;
    let address = service.public.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "GET /sample HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("a refused client can still send");
    let answer = rest_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    service.ready().await;
}

/// Closing a socket with unread bytes resets it, and responses that are not yet read are lost.
#[tokio::test]
async fn an_unread_request_body_costs_its_sender_neither_the_response_nor_the_next_one() {
    let service = Service::start(&["dev"], [("", ""); 0]).await;
    service.ready().await;
    let address = service.public.trim_start_matches("http://");
    // More than the kernel buffers without a reader.
    let whole = vec![b'x'; 4 << 20];
    let chunk = [format!("{:x}\r\n", whole.len()).as_bytes(), &whole].concat();
    let length = format!("content-length: {}", whole.len());
    let chunked = "transfer-encoding: chunked".to_owned();
    for (request, body, framing, status) in [
        ("POST /sample", &whole, &length, 405),
        ("POST /nothing", &whole, &length, 404),
        ("POST /healthz", &whole, &length, 405),
        ("GET /sample", &whole, &length, 413),
        ("GET /sample", &chunk, &chunked, 200),
    ] {
        let what = format!("{request} with {framing}");
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let head = format!("{request} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
        for part in [head.as_bytes(), body] {
            if let Err(error) = stream.write_all(part).await {
                panic!("{what}: cut off while sending: {error}");
            }
        }
        let answer = rest_of(&mut stream).await.to_ascii_lowercase();
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{what}: {answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    // A body of which a part comes late: the next request must not be sent into a connection that closes.
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let head = "POST /sample HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n1";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let answer = rest_of(&mut stream).await.to_ascii_lowercase();
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

async fn rest_of(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut rest)).await;
    read.expect("it closes in time").expect("it is not reset");
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn slow_redis_is_a_504_within_the_requests_deadline() {
    let redis = RedisServer::start().await;
    let environment = [
        ("REDIS_ENDPOINT", redis.address()),
        ("REDIS_AUTH", "none".to_owned()),
        ("REDIS_TLS", "false".to_owned()),
        ("REDIS_COMMAND_TIMEOUT", "10s".to_owned()),
        ("REQUEST_TIMEOUT", "500ms".to_owned()),
    ];
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    let mut admin = redis.admin().await;
    redis::cmd("CLIENT")
        .arg("PAUSE")
        .arg(3000)
        .query_async::<()>(&mut admin)
        .await
        .expect("PAUSE");
    let response = service.get("/sample").await;
    assert_eq!(response.status(), 504);
    assert!(
        response
            .text()
            .await
            .expect("a complete body")
            .contains("problem:timed-out")
    );
}

#[tokio::test]
async fn more_requests_than_allowed_are_shed_at_once_and_probes_are_not() {
    let redis = RedisServer::start().await;
    let environment = [
        ("REDIS_ENDPOINT", redis.address()),
        ("REDIS_AUTH", "none".to_owned()),
        ("REDIS_TLS", "false".to_owned()),
        ("MAX_CONCURRENT_REQUESTS", "2".to_owned()),
        ("REDIS_COMMAND_TIMEOUT", "10s".to_owned()),
        ("REQUEST_TIMEOUT", "10s".to_owned()),
    ];
    let service = Service::start(&[], environment).await;
    service.ready().await;
    let mut admin = redis.admin().await;
    redis::cmd("CLIENT")
        .arg("PAUSE")
        .arg(2000)
        .query_async::<()>(&mut admin)
        .await
        .expect("PAUSE");
    let open: Vec<_> = (0..2)
        .map(|_| tokio::spawn(service.client.get(service.url("/sample")).send()))
        .collect();
    eventually("two are open", async || {
        // The request for the metrics is the third.
        service.metric("http_server_active_requests", &[]).await == 3.0
    })
    .await;
    let shed = service.get("/sample").await;
    assert_eq!(shed.status(), 503);
    assert_eq!(shed.headers()["retry-after"], "1");
    assert!(
        shed.text()
            .await
            .expect("a complete body")
            .contains("problem:overloaded")
    );
    assert_eq!(service.get("/readyz").await.status(), 200);
    assert_eq!(
        service.metric("http_server_requests_shed_total", &[]).await,
        1.0
    );
    for request in open {
        assert_eq!(
            request.await.expect("no panic").expect("answered").status(),
            200
        );
    }
}

/// Routes of a caller's own get the same layers: a panic in one of them is a 500 and hurts no other request.
#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_handler_is_a_500_while_others_continue() {
    let test = "bad_input::a_panicking_handler_is_a_500_while_others_continue";
    if !in_own_process(test).await {
        return;
    }
    let azure = Azure::with_lifetime(60).await;
    let mut environment: Environment = azure
        .environment("WorkloadIdentityCredential")
        .into_iter()
        .collect();
    for (name, value) in [("HOST", "127.0.0.1"), ("PORT", "0"), ("DRAIN_DELAY", "0s")] {
        environment.set(name, value);
    }
    let config = Config::new(&environment).expect("the emulator's variables are complete");
    let routes = Router::new()
        .route(
            "/panic",
            get(async || -> &'static str { panic!("a secret thought") }),
        )
        .route(
            "/sleep",
            get(async || tokio::time::sleep(Duration::from_secs(60)).await),
        );
    let metrics = install_metrics(None).expect("the only recorder");
    let app = App::bind(config, metrics).await.expect("free ports");
    let app = app.routes(routes);
    let url = format!("http://{}", app.public_address());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { drop(stopped.await) }));
    let client = crate::support::client();
    let status = async |path: &str| {
        client
            .get(format!("{url}{path}"))
            .send()
            .await
            .expect("answered")
            .status()
    };
    eventually("ready", async || status("/readyz").await == 200).await;

    let load = Load::start(&format!("{url}/sample"), 8);
    for _ in 0..50 {
        let response = client
            .get(format!("{url}/panic"))
            .send()
            .await
            .expect("answered");
        assert_eq!(response.status(), 500);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert!(response.headers().contains_key("x-request-id"));
        let body = response.text().await.expect("a complete body");
        assert!(
            body.contains("problem:internal-error") && !body.contains("thought"),
            "{body}"
        );
    }
    let (good, failures) = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(good > 10, "{good}");
    assert_eq!(
        status("/sleep").await,
        504,
        "the deadline holds for routes of a caller's own"
    );
    let _ = stop.send(());
    running.await.expect("no panic").expect("an orderly stop");
}
