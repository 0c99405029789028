//! Traces, log records and metrics as a collector gets them, what happens when it does not, and the log level.

mod log_level;
mod metrics;
mod redis;
mod trouble;

use entra_redis_emulator::EntraFault;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use serde_json::Value;

use crate::support::{
    Azure, Certificates, Collector, Port, Service, attribute, eventually, hexadecimal, text,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn sampled() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

/// A service of an emulated Azure that exports to a collector, by these variables too.
async fn exporting(azure: &Azure, endpoint: &str, more: &[(&str, &str)]) -> Service {
    let mut environment = azure.environment("WorkloadIdentityCredential");
    let own = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
    for (name, value) in own.iter().chain(more) {
        environment.push(((*name).to_owned(), (*value).to_owned()));
    }
    Service::start(&[], environment).await
}

async fn ask(service: &Service, path: &str, traceparent: &str) -> u16 {
    let request = service.client.get(service.url(path));
    let request = request
        .header("traceparent", traceparent)
        .header("tracestate", "vendor=opaque");
    let answer = request.send().await.expect("it answers");
    answer.status().as_u16()
}

/// The lines of the access log.
fn access(service: &Service) -> Vec<Value> {
    let log = service.log();
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter(|event: &Value| event["target"] == "access")
        .collect()
}

fn is_failed(span: &Span) -> bool {
    let status = span.status.as_ref().map(|status| status.code());
    status == Some(StatusCode::Error)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_a_token_are_spans_by_either_protocol_flushed_at_the_end() {
    // With a slash at the end, as Container Apps' agent gives its endpoint.
    for (protocol, path) in [
        ("grpc", "/"),
        ("grpc", "/v1/traces/"),
        ("http/protobuf", ""),
    ] {
        let azure = Azure::with_lifetime(60).await;
        let collector = Collector::start().await;
        let endpoint = format!("{}{path}", collector.endpoint());
        let mut service = exporting(
            &azure,
            &endpoint,
            &[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=mine%20own"),
                (
                    "OTEL_RESOURCE_ATTRIBUTES",
                    "team=cache,service.version=mine",
                ),
                ("HOSTNAME", "entra-redis-0"),
                ("OTEL_BSP_SCHEDULE_DELAY", "3600000"), // only the end flushes
            ],
        )
        .await;
        service.ready().await;
        assert_eq!(ask(&service, "/sample?code=secret", &sampled()).await, 200);
        assert_eq!(ask(&service, "/nothing", &sampled()).await, 404);
        service.signal("-TERM");
        assert!(service.end().await.success());

        let got = collector.got();
        let [sample] = &got.named("GET /sample")[..] else {
            panic!("one span a request: {got:?}");
        };
        assert_eq!(sample.kind(), SpanKind::Server);
        assert_eq!(hexadecimal(&sample.trace_id), TRACE);
        assert_eq!(hexadecimal(&sample.parent_span_id), CALLER);
        assert_eq!(sample.trace_state, "vendor=opaque");
        for (name, value) in [
            ("http.request.method", "GET"),
            ("http.route", "/sample"),
            ("http.response.status_code", "200"),
            ("url.path", "/sample"),
            ("url.scheme", "http"),
            ("network.protocol.version", "1.1"),
        ] {
            assert_eq!(
                attribute(&sample.attributes, name).as_deref(),
                Some(value),
                "{name} in {sample:?}"
            );
        }
        assert_eq!(attribute(&sample.attributes, "error.type"), None);
        assert!(!is_failed(sample));
        let [nothing] = &got.named("GET")[..] else {
            panic!("what has no route is named by its method: {got:?}");
        };
        // It is the caller's fault.
        assert!(!is_failed(nothing));
        assert_eq!(
            attribute(&nothing.attributes, "http.response.status_code").as_deref(),
            Some("404")
        );
        let commands = got.named("SET");
        let [set] = &commands[..] else {
            panic!("one span a command: {got:?}");
        };
        assert_eq!(set.kind(), SpanKind::Client);
        assert_eq!(set.trace_id, sample.trace_id);
        assert_eq!(set.parent_span_id, sample.span_id);
        assert!(!is_failed(set));
        let redis = azure.variable("REDIS_ENDPOINT").split_once(':');
        let (host, port) = redis.expect("the emulator names a port");
        for (name, value) in [
            ("db.system.name", Some("redis")),
            ("db.namespace", Some("0")),
            ("db.operation.name", Some("SET")),
            ("db.response.status_code", None),
            ("server.address", Some(host)),
            ("server.port", Some(port)),
            ("error.type", None),
        ] {
            let found = attribute(&set.attributes, name);
            assert_eq!(found.as_deref(), value, "{name} in {set:?}");
        }
        let auth = &got.named("AUTH")[0];
        assert_eq!(auth.kind(), SpanKind::Client);
        assert!(auth.parent_span_id.is_empty(), "it belongs to no request");
        let kind = attribute(&auth.attributes, "redis.auth.kind");
        assert_eq!(kind.as_deref(), Some("connect"), "{auth:?}");
        let token = &got.named("get token")[0];
        assert_eq!(token.kind(), SpanKind::Client);
        assert!(token.parent_span_id.is_empty(), "it belongs to no request");
        for (name, value) in [
            ("credential.name", "WorkloadIdentityCredential"),
            ("entra.token.outcome", "success"),
        ] {
            assert_eq!(
                attribute(&token.attributes, name).as_deref(),
                Some(value),
                "{token:?}"
            );
        }
        let origin = got.origin().attributes;
        for (name, value) in [
            ("service.name", "entra-redis"),
            ("service.version", "mine"),
            ("service.instance.id", "entra-redis-0"),
            ("team", "cache"),
            ("telemetry.sdk.language", "rust"),
        ] {
            assert_eq!(attribute(&origin, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(attribute(&origin, "cloud.platform"), None);
        for headers in &got.headers {
            assert_eq!(headers["x-tenant"], "mine own");
        }

        // The line in the log is found by the span, and the span by the line.
        let access = access(&service);
        let line = access
            .iter()
            .find(|event| event["span"]["http.route"] == "/sample");
        let line = line.expect("a line a request");
        assert_eq!(line["trace_id"], TRACE);
        assert_eq!(line["span_id"], hexadecimal(&sample.span_id));
        assert_eq!(line["http.response.status_code"], 200);
        assert!(
            line["duration_s"].as_f64().is_some_and(|took| took > 0.0),
            "{line}"
        );
        assert!(line["span"].get("otel.name").is_none(), "{line}");
        let exported = format!("{got:?}");
        assert!(!format!("{exported}{}", service.log()).contains("code=secret"));
        assert!(!exported.contains("PreviousVisitTime"), "a key is exported");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn export_is_over_tls_with_the_roots_of_the_environment() {
    let certificates = Certificates::for_name("localhost");
    let collector = Collector::with_tls(&certificates).await;
    for protocol in ["grpc", "http/protobuf"] {
        let azure = Azure::with_lifetime(60).await;
        let read = |path| std::fs::read_to_string(path).expect("it was written");
        let both =
            read(certificates.path("ca.pem")) + &read(azure.variable("SSL_CERT_FILE").into());
        let bundle = certificates.path("bundle.pem");
        std::fs::write(&bundle, both).expect("there is room");
        let mut service = exporting(
            &azure,
            &format!("https://localhost:{}", collector.port),
            &[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("SSL_CERT_FILE", bundle.to_str().expect("UTF-8")),
                ("OTEL_SERVICE_NAME", protocol),
            ],
        )
        .await;
        service.ready().await;
        service.signal("-TERM");
        assert!(service.end().await.success());
        let got = collector.got();
        assert!(
            format!("{got:?}").contains(&format!("{protocol:?}")),
            "{protocol}: {}",
            service.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_marked_as_failed() {
    let azure = Azure::with_lifetime(60).await;
    let collector = Collector::start().await;
    let unused = Port::reserve();
    let away = format!("localhost:{unused}");
    let mut service = exporting(
        &azure,
        &collector.endpoint(),
        &[("REDIS_ENDPOINT", &away), ("OTEL_BSP_SCHEDULE_DELAY", "50")],
    )
    .await;
    eventually("there is a token", async || {
        service.readiness().await.1["checks"]["token"]["status"] == "passed"
    })
    .await;
    assert_eq!(ask(&service, "/sample", &sampled()).await, 503);
    azure.controls.set_entra(EntraFault::Status(401));
    service.signal("-TERM");
    assert!(service.end().await.success());
    let got = collector.got();
    let sample = &got.named("GET /sample")[0];
    assert!(is_failed(sample), "{sample:?}");
    for name in ["error.type", "http.response.status_code"] {
        assert_eq!(
            attribute(&sample.attributes, name).as_deref(),
            Some("503"),
            "{sample:?}"
        );
    }

    let collector = Collector::start().await;
    let service = exporting(
        &azure,
        &collector.endpoint(),
        &[("OTEL_BSP_SCHEDULE_DELAY", "50")],
    )
    .await;
    eventually("a refused token is a span", async || {
        !collector.got().named("get token").is_empty()
    })
    .await;
    let token = &collector.got().named("get token")[0];
    assert!(is_failed(token), "{token:?} {}", service.log());
    for (name, value) in [
        ("error.type", "refused"),
        ("entra.token.outcome", "failure"),
    ] {
        assert_eq!(
            attribute(&token.attributes, name).as_deref(),
            Some(value),
            "{token:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_decides_about_sampling_unless_the_sampler_overrides_it() {
    let unsampled = format!("00-{TRACE}-{CALLER}-00");
    for (sampler, more, exported) in [
        ("parentbased_always_on", "1.0", 0),
        ("always_on", "1.0", 1),
        ("always_off", "1.0", 0),
        ("traceidratio", "0.0", 0),
    ] {
        let azure = Azure::with_lifetime(60).await;
        let collector = Collector::start().await;
        let mut service = exporting(
            &azure,
            &collector.endpoint(),
            &[
                ("OTEL_TRACES_SAMPLER", sampler),
                ("OTEL_TRACES_SAMPLER_ARG", more),
            ],
        )
        .await;
        service.ready().await;
        assert_eq!(ask(&service, "/sample", &unsampled).await, 200);
        service.signal("-TERM");
        assert!(service.end().await.success());
        let got = collector.got();
        assert_eq!(
            got.named("GET /sample").len(),
            exported,
            "{sampler}: {got:?}"
        );
        // The log names the trace all the same.
        let access = access(&service);
        let line = access.iter().find(|event| event["trace_id"] == TRACE);
        let line = line.unwrap_or_else(|| panic!("{sampler}: {access:?}"));
        assert_ne!(line["span_id"], CALLER);
        assert_eq!(line["span_id"].as_str().map(str::len), Some(16));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_or_with_a_disabled_sdk_nothing_is_set_up() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    for variables in [
        vec![
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
        ],
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_SDK_DISABLED", "true"),
        ],
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_TRACES_EXPORTER", "none"),
        ],
    ] {
        let mut service = Service::start(&["dev"], variables.clone()).await;
        service.ready().await;
        assert_eq!(ask(&service, "/sample", &sampled()).await, 200);
        let threads = service.threads();
        assert!(
            !threads.iter().any(|name| name.starts_with("OpenTelemetry")),
            "{variables:?}: {threads:?}"
        );
        service.signal("-TERM");
        assert!(service.end().await.success());
        assert!(collector.got().is_empty(), "{variables:?}");
        // Lines still name the caller's trace.
        let access = access(&service);
        let line = access.iter().find(|event| event["trace_id"] == TRACE);
        assert_eq!(line.expect("it is named")["span_id"], CALLER);
    }
    // The check would see one.
    let with = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let service = Service::start(&["dev"], with).await;
    let threads = service.threads();
    assert!(
        threads.iter().any(|name| name.starts_with("OpenTelemetry")),
        "{threads:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_records_carry_their_trace_and_nothing_of_the_exporters() {
    for protocol in ["grpc", "http/protobuf"] {
        let azure = Azure::with_lifetime(60).await;
        let collector = Collector::start().await;
        let mut service = exporting(
            &azure,
            &collector.endpoint(),
            &[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_LOGS_EXPORTER", "otlp"),
                ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
                ("RUST_LOG", "trace"),
            ],
        )
        .await;
        service.ready().await;
        assert_eq!(ask(&service, "/sample", &sampled()).await, 200);
        service.signal("-TERM");
        assert!(service.end().await.success());
        let got = collector.got();
        let span = &got.named("GET /sample")[0];
        let records = got.records();
        let access = records.iter().find(|record| record.span_id == span.span_id);
        let access = access.unwrap_or_else(|| panic!("{protocol}: {records:?}"));
        assert_eq!(hexadecimal(&access.trace_id), TRACE);
        let body = access.body.as_ref().and_then(text);
        assert_eq!(body.as_deref(), Some("request completed"));
        let route = attribute(&access.attributes, "http.route");
        assert_eq!(route.as_deref(), Some("/sample"));
        let status = attribute(&access.attributes, "http.response.status_code");
        assert_eq!(status.as_deref(), Some("200"));

        // At any log level, spans for traces do not hide those of log lines.
        let log = service.log();
        let events = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut in_spans = events.filter(|event| event["span"].is_object()).peekable();
        assert!(in_spans.peek().is_some(), "{log}");
        for event in in_spans {
            assert_ne!(event["span"]["name"], "redis", "{event}");
        }

        let targets = got.targets();
        assert!(
            targets.iter().any(|target| target == "access"),
            "{targets:?}"
        );
        for theirs in [
            "h2",
            "hyper",
            "tonic",
            "tower",
            "reqwest",
            "rustls",
            "opentelemetry",
        ] {
            assert!(
                !targets.iter().any(|target| target.starts_with(theirs)),
                "{theirs} in {targets:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_exported_at_trace() {
    let azure = Azure::with_lifetime(2).await;
    let collector = Collector::start().await;
    let mut service = exporting(
        &azure,
        &collector.endpoint(),
        &[
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=exporters-key"),
            ("RUST_LOG", "trace"),
        ],
    )
    .await;
    service.ready().await;
    service.text("/sample").await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await; // rotations
    for fault in [EntraFault::Garbage, EntraFault::Status(401)] {
        azure.controls.set_entra(fault);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        service.text("/sample").await;
    }
    service.signal("-TERM");
    assert!(service.end().await.success());
    let got = collector.got();
    assert!(!got.named("get token").is_empty() && !got.records().is_empty());
    assert!(got.metric("entra_token_refresh").is_some());
    let assertion = std::fs::read_to_string(azure.variable("AZURE_FEDERATED_TOKEN_FILE"));
    let assertion = assertion.expect("it is there");
    // Their own headers carry the exporters' key, and nothing else does.
    let exported = format!("{:?}{:?}", got.spans(), got.records()) + &service.log();
    for (what, secret) in [
        ("a token", "eyJ"),
        ("the federated assertion", &assertion[..40]),
        ("the client secret", azure.variable("AZURE_CLIENT_SECRET")),
        ("the exporters' key", "exporters-key"),
    ] {
        assert!(!exported.contains(secret), "{what} is exported");
    }
}

#[tokio::test]
async fn a_wrong_variable_of_opentelemetry_fails_the_start_with_its_name() {
    for (variable, wrong) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
    ] {
        let mut command = crate::support::command(&[]);
        let output = command
            .env("REDIS_ENDPOINT", "localhost:1")
            .env(variable, wrong)
            .output()
            .await
            .expect("the binary was built");
        assert_eq!(output.status.code(), Some(64));
        let reported = String::from_utf8_lossy(&output.stderr);
        assert!(
            reported.starts_with(&format!("{variable}: invalid value `{wrong}`")),
            "{reported}"
        );
    }
}
