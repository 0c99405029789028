//! The table of all variables of the service, the library's included: name, default, meaning.

use std::sync::LazyLock;

use entra_redis::env::{self, Variable};

/// The variables of the listeners.
pub(super) const HTTP: &[Variable] = &[
    Variable::plain(
        "HOST",
        "0.0.0.0",
        "address of the listeners (`dev` and `emulate`: 127.0.0.1)",
    ),
    Variable::plain(
        "PORT",
        "8080",
        "public port: /sample, the status page at /, /swagger, /openapi.json",
    ),
    Variable::unset(
        "ADMIN_PORT",
        "when set, /healthz, /readyz and /metrics move from the public port to this one, which also serves /log-level to this machine",
    ),
    Variable::plain(
        "REQUEST_TIMEOUT",
        "3s",
        "timeout of a whole request, retries included; then 504",
    ),
    Variable::plain(
        "MAX_CONCURRENT_REQUESTS",
        "4096",
        "limit of requests in progress; further ones are answered 503 immediately",
    ),
];

/// The variables of `/sample`, telemetry and shutdown.
const REST: &[Variable] = &[
    Variable::plain(
        "SAMPLE_KEY",
        "PreviousVisitTime",
        "key that /sample reads and writes",
    ),
    Variable::unset(
        "LOG_FORMAT",
        "json or text; default text on a terminal, json elsewhere",
    ),
    Variable::plain(
        "RUST_LOG",
        "info",
        "log filter, as tracing directives; info,access=off disables the line per request",
    ),
    Variable::plain(
        "OTEL_SDK_DISABLED",
        "false",
        "true disables every export by OTLP",
    ),
    Variable::plain(
        "OTEL_TRACES_EXPORTER",
        "otlp",
        "otlp or none; otlp exports if there is an endpoint",
    ),
    Variable::plain("OTEL_LOGS_EXPORTER", "none", "otlp or none"),
    Variable::plain(
        "OTEL_METRICS_EXPORTER",
        "none",
        "otlp or none; /metrics is served either way",
    ),
    Variable::unset(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "collector, as http:// or https:// URL; http/protobuf adds /v1/traces, /v1/logs, /v1/metrics; without an endpoint nothing is exported",
    ),
    Variable::plain(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "http/protobuf",
        "grpc or http/protobuf",
    ),
    Variable::plain(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "10000",
        "timeout of one export, in milliseconds",
    ),
    Variable::secret(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "sent with each export: name=value,name=value, values percent-encoded",
    ),
    Variable::unset(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "for traces only; used as it is, without a path added",
    ),
    Variable::unset("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "for traces only"),
    Variable::unset("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "for traces only"),
    Variable::secret("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "for traces only"),
    Variable::unset(
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "for logs only; used as it is, without a path added",
    ),
    Variable::unset("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "for logs only"),
    Variable::unset("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "for logs only"),
    Variable::secret("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "for logs only"),
    Variable::unset(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "for metrics only; used as it is, without a path added",
    ),
    Variable::unset("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "for metrics only"),
    Variable::unset("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "for metrics only"),
    Variable::secret("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "for metrics only"),
    Variable::plain(
        "OTEL_SERVICE_NAME",
        "entra-redis",
        "service.name of everything exported; overrides service.name in OTEL_RESOURCE_ATTRIBUTES",
    ),
    Variable::unset(
        "OTEL_RESOURCE_ATTRIBUTES",
        "further attributes of everything exported: name=value,name=value",
    ),
    Variable::unset(
        "CONTAINER_APP_REPLICA_NAME",
        "service.instance.id of everything exported; set by Container Apps",
    ),
    Variable::unset(
        "HOSTNAME",
        "the same if that is unset; the pod's name, set by Kubernetes",
    ),
    Variable::plain(
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio; those of parentbased_ follow the caller's traceparent",
    ),
    Variable::plain(
        "OTEL_TRACES_SAMPLER_ARG",
        "1.0",
        "fraction of traces for the samplers of traceidratio, 0.0 to 1.0",
    ),
    Variable::plain(
        "OTEL_BSP_SCHEDULE_DELAY",
        "5000",
        "longest delay before a span is exported, in milliseconds",
    ),
    Variable::plain(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "2048",
        "limit of spans waiting for export; beyond it the newest are dropped and counted",
    ),
    Variable::plain(
        "OTEL_BLRP_SCHEDULE_DELAY",
        "1000",
        "longest delay before a log record is exported, in milliseconds",
    ),
    Variable::plain(
        "OTEL_BLRP_MAX_QUEUE_SIZE",
        "2048",
        "limit of log records waiting for export; beyond it the newest are dropped and counted",
    ),
    Variable::plain(
        "OTEL_METRIC_EXPORT_INTERVAL",
        "60000",
        "time between two exports of metrics, in milliseconds",
    ),
    Variable::plain(
        "DRAIN_DELAY",
        "5s",
        "delay between not ready and not accepting, for load balancers to notice; may be 0s",
    ),
    Variable::plain(
        "DRAIN_TIMEOUT",
        "20s",
        "timeout for open requests to finish after that",
    ),
];

/// Every variable, in the order in which they are shown.
pub(super) static VARIABLES: LazyLock<Vec<Variable>> =
    LazyLock::new(|| [HTTP, env::VARIABLES, REST].concat());

/// Returns the variable of this name, if it is known.
pub(super) fn known(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}
