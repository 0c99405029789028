//! Metrics: the names are an interface, the same leave by OTLP, and unscraped ones do not grow.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use entra_redis_service::app;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use tokio::{io::AsyncWriteExt, process::Command};

use super::exporting;
use crate::support::{
    Azure, Collector, Service, attribute, eventually, in_own_process, metric, repository,
};

/// As the README lists them: name, type, labels.
fn listed() -> Vec<(String, String, BTreeSet<String>)> {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("there is one");
    let rows = readme
        .lines()
        .skip_while(|line| *line != "## Metrics")
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let words = |cell: &str| {
            let words = cell.split('`').skip(1).step_by(2);
            words.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let name = cells[1].trim_matches('`').to_owned();
        (name, cells[2].to_owned(), words(cells[3]))
    })
    .collect()
}

/// As a scrape has them: name, type.
fn scraped(text: &str) -> BTreeSet<(String, String)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let pairs = types.filter_map(|line| line.split_once(' '));
    pairs
        .filter(|(name, _)| !name.starts_with("process_"))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

/// The labels of all series of a metric.
fn labels(text: &str, name: &str) -> BTreeSet<String> {
    let series = text.lines().filter(|line| {
        let own = line.split(['{', ' ']).next().unwrap_or_default();
        let own = own.strip_suffix("_bucket").unwrap_or(own);
        own == name && !line.starts_with('#')
    });
    let labels = series.filter_map(|line| line.split_once('{')?.1.split_once('}'));
    labels
        .flat_map(|(labels, _)| labels.split(','))
        .filter_map(|label| label.split_once('='))
        .map(|(label, _)| label.to_owned())
        .filter(|label| label != "le")
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_has_exactly_the_metrics_that_the_readme_lists() {
    let azure = Azure::with_lifetime(2).await;
    let collector = Collector::start().await;
    let service = exporting(
        &azure,
        &collector.endpoint(),
        &[("MAX_CONCURRENT_REQUESTS", "1")],
    )
    .await;
    service.ready().await;
    // A refresh, re-authentications, a connection lost and opened again, a retry, a shed request.
    eventually("connections re-authenticate", async || {
        service
            .metric("redis_auth_total", &["kind=\"reauth\""])
            .await
            > 0.0
    })
    .await;
    azure.controls.disconnect_all();
    eventually("a connection was lost and a request shed", async || {
        let ask = async || service.get("/sample").await.status();
        tokio::join!(ask(), ask(), ask(), ask());
        let text = service.text("/metrics").await;
        metric(&text, "http_server_requests_shed_total", &[]) > 0.0
            && metric(&text, "redis_connections_closed_total", &[]) > 0.0
    })
    .await;
    service.ready().await;
    service.get("/nothing").await;
    let text = service.text("/metrics").await;

    // Only a command that was refused or never written is sent again, which is not to be had on demand here.
    let not_on_demand = ["redis_operation_retries_total"];
    let listed = listed();
    let expected: BTreeSet<_> = listed
        .iter()
        .map(|(name, kind, _)| (name.clone(), kind.clone()))
        .collect();
    let mut found = scraped(&text);
    for name in not_on_demand {
        found.extend(expected.iter().filter(|(known, _)| known == name).cloned());
    }
    assert_eq!(found, expected, "{text}");
    for (name, _, may_have) in &listed {
        let has = labels(&text, name);
        assert!(
            has.is_subset(may_have),
            "{name} has {has:?}, not {may_have:?}"
        );
        if !not_on_demand.contains(&name.as_str()) {
            assert!(
                text.contains(&format!("# HELP {name} ")),
                "{name} has no help"
            );
        }
    }
    for bounds in [
        "http_server_request_duration_seconds",
        "entra_token_refresh_duration_seconds",
    ] {
        assert!(text.contains(&format!("{bounds}_bucket")), "{bounds}");
    }
    assert!(
        text.contains("# TYPE process_cpu_seconds_total counter"),
        "{text}"
    );
    // The names that were promised.
    for name in [
        "http_server_request_duration_seconds",
        "http_server_active_requests",
        "db_client_operation_duration_seconds",
        "db_client_connection_count",
        "redis_operation_retries_total",
        "redis_connections_opened_total",
        "redis_connections_closed_total",
        "redis_auth_total",
        "redis_connection_token_expiry_timestamp_seconds",
        "entra_token_expiry_timestamp_seconds",
        "entra_token_refresh_total",
        "entra_token_refresh_duration_seconds",
        "http_server_requests_shed_total",
        "entra_redis_build_info",
    ] {
        assert!(listed.iter().any(|(known, _, _)| known == name), "{name}");
    }
}

fn sum(metric: &Metric) -> f64 {
    match metric.data.as_ref().expect("it has data") {
        Data::Histogram(histogram) => {
            let counts = histogram.data_points.iter().map(|point| point.count);
            counts.sum::<u64>() as f64
        }
        Data::Sum(sum) => numbers(&sum.data_points),
        Data::Gauge(gauge) => numbers(&gauge.data_points),
        other => panic!("{other:?}"),
    }
}

fn numbers(points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint]) -> f64 {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    let values = points.iter().filter_map(|point| point.value);
    values
        .map(|value| match value {
            Value::AsDouble(number) => number,
            Value::AsInt(number) => number as f64,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_metrics_leave_by_otlp_under_opentelemetrys_names() {
    for protocol in ["grpc", "http/protobuf"] {
        let azure = Azure::with_lifetime(60).await;
        let collector = Collector::start().await;
        let mut service = exporting(
            &azure,
            &collector.endpoint(),
            &[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_METRICS_EXPORTER", "otlp"),
                ("OTEL_TRACES_EXPORTER", "none"),
            ],
        )
        .await;
        service.ready().await;
        // One that opened after the scrape would be in the export alone.
        eventually("both connections are open", async || {
            service.metric("redis_connections_opened_total", &[]).await == 2.0
        })
        .await;
        for _ in 0..7 {
            service.text("/sample").await;
        }
        let text = service.text("/metrics").await;
        service.signal("-TERM");
        assert!(service.end().await.success());
        let got = collector.got();
        let exported = |name: &str| {
            let found = got.metric(name);
            found.unwrap_or_else(|| panic!("{name} by {protocol} in {got:?}"))
        };

        let duration = exported("http.server.request.duration");
        assert_eq!(duration.unit, "s");
        assert!(duration.description.starts_with("Duration of requests"));
        let Some(Data::Histogram(histogram)) = &duration.data else {
            panic!("{duration:?}");
        };
        let sample = histogram
            .data_points
            .iter()
            .find(|point| attribute(&point.attributes, "http.route").as_deref() == Some("/sample"));
        let sample = sample.expect("it was asked");
        assert_eq!(sample.count, 7);
        for (name, value) in [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
        ] {
            assert_eq!(attribute(&sample.attributes, name).as_deref(), Some(value));
        }
        let bounds = text.lines().filter_map(|line| {
            let series = line.strip_prefix("http_server_request_duration_seconds_bucket{")?;
            let series = series.contains("/sample").then_some(series)?;
            series
                .split("le=\"")
                .nth(1)?
                .split('"')
                .next()?
                .parse::<f64>()
                .ok()
        });
        let bounds: Vec<f64> = bounds.filter(|bound| bound.is_finite()).collect();
        assert_eq!(sample.explicit_bounds, bounds);

        let opened = exported("redis_connections_opened");
        assert!(
            matches!(&opened.data, Some(Data::Sum(sum)) if sum.is_monotonic),
            "{opened:?}"
        );
        for (name, scraped) in [
            ("redis_connections_opened", "redis_connections_opened_total"),
            ("entra_token_refresh", "entra_token_refresh_total"),
            (
                "entra_token_expiry_timestamp",
                "entra_token_expiry_timestamp_seconds",
            ),
            ("entra_redis_build_info", "entra_redis_build_info"),
        ] {
            assert_eq!(sum(&exported(name)), metric(&text, scraped, &[]), "{name}");
        }
        let active = exported("http.server.active_requests");
        assert!(
            matches!(&active.data, Some(Data::Sum(sum)) if !sum.is_monotonic),
            "{active:?}"
        );
        assert_eq!(exported("process_resident_memory").unit, "By");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_reports_nothing_about_a_scrape() {
    let azure = Azure::with_lifetime(2).await;
    let collector = Collector::start().await;
    let service = exporting(&azure, &collector.endpoint(), &[]).await;
    service.ready().await;
    azure.controls.disconnect_all();
    eventually(
        "a connection was lost and one re-authenticated",
        async || {
            service.get("/sample").await;
            let text = service.text("/metrics").await;
            metric(&text, "redis_auth_total", &["reauth"]) > 0.0
                && metric(&text, "redis_connections_closed_total", &[]) > 0.0
        },
    )
    .await;
    let text = service.text("/metrics").await;
    assert_eq!(promtool(&text).await, (true, String::new()), "{text}");
    let (_, output) = promtool("# TYPE wrong_count gauge\nwrong_count 1\n").await;
    assert!(output.contains("wrong_count"), "promtool reports faults");
}

/// The verdict of `promtool check metrics`, and its output.
async fn promtool(text: &str) -> (bool, String) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tests/run installs it");
    let mut stdin = promtool.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = promtool.wait_with_output().await.expect("promtool exits");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

/// Each value recorded waits in memory, 8 bytes and more, until it is folded into its histogram.
///
/// Runs in a process of its own, whose memory no other test uses.
#[tokio::test(start_paused = true)]
async fn millions_of_unscraped_requests_leave_memory_flat() {
    const ROUND: usize = 100_000;
    let test = "telemetry::metrics::millions_of_unscraped_requests_leave_memory_flat";
    if !in_own_process(test).await {
        return;
    }
    let metrics = app::install_metrics(None).expect("the only recorder");
    let upkeep = tokio::spawn(metrics.clone().upkeep());
    let record = async || {
        let histogram = metrics::histogram!(
            "http_server_request_duration_seconds",
            "http_request_method" => "GET",
            "http_route" => "/sample",
            "http_response_status_code" => "200"
        );
        for _ in 0..ROUND {
            histogram.record(0.001);
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
    };
    for _ in 0..5 {
        record().await; // what it needs once
    }
    let before = resident();
    for _ in 0..50 {
        record().await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes after five million values");
    let count = metric(
        &metrics.render(),
        "http_server_request_duration_seconds_count",
        &[],
    );
    assert_eq!(count, (55 * ROUND) as f64);
    upkeep.abort();
}

#[tokio::test]
async fn a_service_of_its_own_knows_no_drops_before_it_exports() {
    let service = Service::start(&["dev"], [("", ""); 0]).await;
    let text = service.text("/metrics").await;
    assert!(
        !text.contains("entra_redis_telemetry_dropped_total"),
        "{text}"
    );
}
