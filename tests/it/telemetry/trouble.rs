//! A collector that is away, or that never answers: requests are unharmed, losses are counted, the service exits.

use std::time::{Duration, Instant};

use entra_redis_emulator::EntraFault;
use tokio::net::TcpListener;

use super::exporting;
use crate::support::{Azure, Collector, Load, Port, attribute, command, eventually};

const DROPPED: &str = "entra_redis_telemetry_dropped_total";

/// Listens, accepts and never responds.
async fn silent() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    let holder = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(connection) = listener.accept().await {
            open.push(connection);
        }
    });
    (format!("http://{address}"), holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_counted_drops_and_one_line() {
    for protocol in ["grpc", "http/protobuf"] {
        let azure = Azure::with_lifetime(60).await;
        let unused = Port::reserve();
        let away = format!("http://127.0.0.1:{unused}");
        let mut service = exporting(
            &azure,
            &away,
            &[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_LOGS_EXPORTER", "otlp"),
                ("OTEL_BSP_SCHEDULE_DELAY", "50"),
                ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
                ("OTEL_BLRP_MAX_QUEUE_SIZE", "16"),
            ],
        )
        .await;
        service.ready().await;
        let load = Load::start(&service.url("/sample"), 4);
        for signal in ["signal=\"traces\"", "signal=\"logs\""] {
            for reason in ["reason=\"queue_full\"", "reason=\"export_failed\""] {
                eventually(reason, async || {
                    service.metric(DROPPED, &[signal, reason]).await > 0.0
                })
                .await;
            }
        }
        let (good, failures) = load.stop().await;
        assert!(good > 0 && failures.is_empty(), "{protocol}: {failures:?}");
        service.signal("-TERM");
        assert!(service.end().await.success());
        let log = service.log();
        let reported = log
            .matches("export to the OpenTelemetry collector failed")
            .count();
        assert_eq!(reported, 2, "once a signal, {protocol}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_delays_neither_requests_nor_the_exit() {
    for protocol in ["grpc", "http/protobuf"] {
        let azure = Azure::with_lifetime(60).await;
        let (endpoint, _open) = silent().await;
        let mut service = exporting(
            &azure,
            &endpoint,
            &[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_LOGS_EXPORTER", "otlp"),
                ("OTEL_METRICS_EXPORTER", "otlp"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
                ("OTEL_BSP_SCHEDULE_DELAY", "50"),
                ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
            ],
        )
        .await;
        service.ready().await;
        let load = Load::start(&service.url("/sample"), 4);
        eventually("spans are dropped", async || {
            service.metric(DROPPED, &["queue_full"]).await > 0.0
        })
        .await;
        let (good, failures) = load.stop().await;
        assert!(good > 0 && failures.is_empty(), "{protocol}: {failures:?}");
        let signalled = Instant::now();
        service.signal("-TERM");
        assert!(service.end().await.success());
        // Far from the hour that an export may take, and far from a benchmark.
        assert!(signalled.elapsed() < Duration::from_secs(15), "{protocol}");
        assert!(
            service.log().contains("could not export pending telemetry"),
            "{}",
            service.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_telemetry_is_exported_when_the_start_fails_and_at_ctrl_c() {
    let collector = Collector::start().await;
    // Nothing is exported before the shutdown, which flushes it.
    let late = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_METRICS_EXPORTER", "otlp".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000".to_owned()),
    ];
    let taken = TcpListener::bind("127.0.0.1:0").await;
    let taken = taken.expect("loopback has free ports");
    let port = taken.local_addr().expect("it is bound").port();
    let output = command(&[])
        .envs(late.clone())
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .env("REDIS_ENDPOINT", "localhost:1")
        .output()
        .await
        .expect("the binary was built");
    assert_eq!(output.status.code(), Some(1));
    let build = collector.got().metric("entra_redis_build_info");
    assert!(build.is_some(), "{:?}", collector.got());

    let azure = Azure::with_lifetime(60).await;
    azure.controls.set_entra(EntraFault::Status(401));
    let more: Vec<_> = late.iter().map(|(name, value)| (*name, &**value)).collect();
    let mut service = exporting(&azure, &collector.endpoint(), &more).await;
    eventually("a token was refused", async || {
        service
            .metric("entra_token_refresh_total", &["failure"])
            .await
            > 0.0
    })
    .await;
    assert!(collector.got().named("get token").is_empty());
    service.signal("-INT");
    assert!(service.end().await.success());
    let tokens = collector.got().named("get token");
    let refused = attribute(&tokens[0].attributes, "error.type");
    assert_eq!(refused.as_deref(), Some("refused"));
}
