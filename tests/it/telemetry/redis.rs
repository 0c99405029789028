//! Spans of Redis: commands, authentications and waits for a connection that fail.

use entra_redis_emulator::RedisFault;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use super::{ask, exporting, is_failed, sampled};
use crate::support::{Azure, Collector, RedisServer, Service, attribute, eventually};

/// Every span leaves at once.
const AT_ONCE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "20");

fn attribute_of(span: &Span, name: &str) -> Option<String> {
    attribute(&span.attributes, name)
}

/// Returns whether a span failed with this error type, and with this code of Redis.
fn failed_with(span: &Span, error_type: &str, code: Option<&str>) -> bool {
    is_failed(span)
        && attribute_of(span, "error.type").as_deref() == Some(error_type)
        && attribute_of(span, "db.response.status_code").as_deref() == code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commands_span_has_its_error_type_and_the_code_of_redis() {
    let redis = RedisServer::start().await;
    let collector = Collector::start().await;
    let environment = [
        ("REDIS_ENDPOINT", redis.address()),
        ("REDIS_AUTH", "none".to_owned()),
        ("REDIS_TLS", "false".to_owned()),
        ("REDIS_COMMAND_TIMEOUT", "200ms".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        (AT_ONCE.0, AT_ONCE.1.to_owned()),
    ];
    let service = Service::start(&[], environment).await;
    service.ready().await;
    let mut list = ::redis::cmd("LPUSH");
    list.arg("PreviousVisitTime").arg("no-visit");
    let mut admin = redis.admin().await;
    let pushed = list.query_async::<()>(&mut admin);
    pushed.await.expect("Redis takes it");
    assert_eq!(ask(&service, "/sample", &sampled()).await, 503);
    eventually("a refused command", async || {
        let spans = collector.got().named("SET");
        spans
            .iter()
            .any(|span| failed_with(span, "command", Some("WRONGTYPE")))
    })
    .await;
    redis.pause();
    assert_eq!(ask(&service, "/sample", &sampled()).await, 504);
    eventually("an unanswered command", async || {
        let spans = collector.got().named("SET");
        spans.iter().any(|span| failed_with(span, "timeout", None))
    })
    .await;
    let exported = format!("{:?}", collector.got().spans());
    for argument in ["PreviousVisitTime", "no-visit"] {
        assert!(!exported.contains(argument), "{argument} is exported");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_a_connection_shows_it() {
    for (command_timeout, status) in [("20s", 200), ("200ms", 503)] {
        let redis = RedisServer::start().await;
        redis.pause();
        let collector = Collector::start().await;
        let environment = [
            ("REDIS_ENDPOINT", redis.address()),
            ("REDIS_AUTH", "none".to_owned()),
            ("REDIS_TLS", "false".to_owned()),
            ("REDIS_COMMAND_TIMEOUT", command_timeout.to_owned()),
            ("REDIS_CONNECT_TIMEOUT", "20s".to_owned()),
            ("REQUEST_TIMEOUT", "20s".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ];
        let mut service = Service::start(&[], environment).await;
        let traceparent = sampled();
        let asked = ask(&service, "/sample", &traceparent);
        let resumed = async {
            if status == 200 {
                // The scrape itself is the other one.
                eventually("it waits", async || {
                    service.metric("http_server_active_requests", &[]).await > 1.0
                })
                .await;
                redis.resume();
            }
        };
        assert_eq!(tokio::join!(asked, resumed).0, status);
        service.signal("-TERM");
        assert!(service.end().await.success());
        let got = collector.got();
        let set = &got.named("SET")[0];
        let waits = got.named("wait for connection");
        let wait = waits.iter().find(|span| span.parent_span_id == set.span_id);
        let wait = wait.unwrap_or_else(|| panic!("{status}: {:?}", got.spans()));
        assert_eq!(wait.kind(), SpanKind::Client);
        assert_eq!(
            attribute_of(wait, "db.system.name").as_deref(),
            Some("redis")
        );
        assert_eq!(is_failed(wait), status != 200, "{wait:?}");
        assert_eq!(is_failed(set), status != 200, "{set:?}");
        assert_eq!(
            attribute_of(wait, "error.type"),
            attribute_of(set, "error.type")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reauthentication_is_a_span_and_a_refused_one_has_the_code_of_redis() {
    let azure = Azure::with_lifetime(3).await;
    let collector = Collector::start().await;
    let service = exporting(&azure, &collector.endpoint(), &[AT_ONCE]).await;
    service.ready().await;
    let again = async |is_wanted: &dyn Fn(&Span) -> bool| {
        eventually("an authentication", async || {
            let spans = collector.got().named("AUTH");
            let mut again = spans
                .iter()
                .filter(|span| attribute_of(span, "redis.auth.kind").as_deref() == Some("reauth"));
            again.any(is_wanted)
        })
        .await;
    };
    again(&|span| !is_failed(span)).await;
    azure.controls.set_redis(RedisFault::RefuseAuth);
    again(&|span| failed_with(span, "command", Some("WRONGPASS"))).await;
}
