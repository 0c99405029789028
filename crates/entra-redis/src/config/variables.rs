//! The table of variables: name, default, meaning. `entra-redis config` prints it, the parser takes its defaults from it,
//! and the README's table is checked against it, so that the three cannot differ.

/// A known environment variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The name in the environment.
    pub name: &'static str,
    /// The value used when the variable is unset or empty, as it would be written.
    pub default: Option<&'static str>,
    /// The meaning, in one line.
    pub meaning: &'static str,
    /// True if the value must be hidden wherever it would be shown.
    pub secret: bool,
}

const fn plain(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        default: Some(default),
        meaning,
        secret: false,
    }
}

const fn unset(name: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        default: None,
        meaning,
        secret: false,
    }
}

const fn secret(name: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        default: None,
        meaning,
        secret: true,
    }
}

/// Every variable, in the order of the documentation.
pub(super) const VARIABLES: &[Variable] = &[
    plain(
        "HOST",
        "0.0.0.0",
        "address of the listeners (`dev` and `emulate`: 127.0.0.1)",
    ),
    plain(
        "PORT",
        "8080",
        "public port: /sample, the status page at /, /swagger, /openapi.json",
    ),
    unset(
        "ADMIN_PORT",
        "when set, /healthz, /readyz and /metrics move from the public port to this one, which also serves /log-level to this machine",
    ),
    unset(
        "REDIS_ENDPOINT",
        "host[:port] of the cache; without a port 10000 for *.redis.azure.net and the sovereign suffixes, 6380 for *.redis.cache.*; required",
    ),
    plain(
        "REDIS_CLUSTERING_POLICY",
        "Auto",
        "Auto, OSSCluster, EnterpriseCluster or NoCluster",
    ),
    plain("REDIS_AUTH", "entra", "entra, key (with REDIS_KEY) or none"),
    plain(
        "REDIS_TLS",
        "true",
        "true or false; false is refused together with entra",
    ),
    secret("REDIS_KEY", "access key, with REDIS_AUTH=key"),
    unset(
        "REDIS_CA_FILE",
        "PEM file of certificate authorities trusted for Redis in addition to the system's",
    ),
    unset(
        "SSL_CERT_FILE",
        "PEM file that replaces the system's certificate authorities, for the token endpoint too",
    ),
    unset(
        "SSL_CERT_DIR",
        "directory that replaces the system's certificate authorities, for the token endpoint too",
    ),
    plain(
        "REDIS_POOL_SIZE",
        "2",
        "shared connections, with OSSCluster to each primary; 1 to 256",
    ),
    plain(
        "REDIS_CONNECT_TIMEOUT",
        "5s",
        "timeout for TCP, TLS and authentication of one connection together",
    ),
    plain(
        "REDIS_COMMAND_TIMEOUT",
        "1s",
        "timeout of one command, and of its wait to be sent",
    ),
    plain(
        "REQUEST_TIMEOUT",
        "3s",
        "timeout of a whole request, retries included; then 504",
    ),
    plain(
        "MAX_CONCURRENT_REQUESTS",
        "4096",
        "limit of requests in progress; further ones are answered 503 immediately",
    ),
    plain(
        "REDIS_SCOPE",
        "https://redis.azure.com/.default",
        "scope of the token",
    ),
    unset(
        "REDIS_USERNAME",
        "user name for AUTH, for tokens without an oid claim; default: the token's oid claim",
    ),
    plain(
        "SAMPLE_KEY",
        "PreviousVisitTime",
        "key that /sample reads and writes",
    ),
    unset(
        "AZURE_TOKEN_CREDENTIALS",
        "prod, dev, or one credential by name; unset: the first that is configured",
    ),
    unset("AZURE_TENANT_ID", "tenant, as in every Azure SDK"),
    unset(
        "AZURE_CLIENT_ID",
        "application, or the user-assigned managed identity",
    ),
    secret("AZURE_CLIENT_SECRET", "secret of the service principal"),
    unset(
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "PEM or PFX file with the service principal's certificate and private key, instead of a secret",
    ),
    secret(
        "AZURE_CLIENT_CERTIFICATE_PASSWORD",
        "password of that file, if it has one",
    ),
    unset(
        "AZURE_FEDERATED_TOKEN_FILE",
        "service-account token; set by the workload identity webhook",
    ),
    plain(
        "AZURE_AUTHORITY_HOST",
        "https://login.microsoftonline.com/",
        "Entra ID's address; https only",
    ),
    unset(
        "IDENTITY_ENDPOINT",
        "managed identity endpoint; set by Container Apps and App Service",
    ),
    secret(
        "IDENTITY_HEADER",
        "set by Container Apps and App Service together with IDENTITY_ENDPOINT",
    ),
    unset(
        "LOG_FORMAT",
        "json or text; default text on a terminal, json elsewhere",
    ),
    plain(
        "RUST_LOG",
        "info",
        "log filter, as tracing directives; info,access=off disables the line per request",
    ),
    plain(
        "OTEL_SDK_DISABLED",
        "false",
        "true disables every export by OTLP",
    ),
    plain(
        "OTEL_TRACES_EXPORTER",
        "otlp",
        "otlp or none; otlp exports if there is an endpoint",
    ),
    plain("OTEL_LOGS_EXPORTER", "none", "otlp or none"),
    plain(
        "OTEL_METRICS_EXPORTER",
        "none",
        "otlp or none; /metrics is served either way",
    ),
    unset(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "collector, as http:// or https:// URL; http/protobuf adds /v1/traces, /v1/logs, /v1/metrics; without an endpoint nothing is exported",
    ),
    plain(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "http/protobuf",
        "grpc or http/protobuf",
    ),
    plain(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "10000",
        "timeout of one export, in milliseconds",
    ),
    secret(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "sent with each export: name=value,name=value, values percent-encoded",
    ),
    unset(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "for traces only; used as it is, without a path added",
    ),
    unset("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "for traces only"),
    unset("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "for traces only"),
    secret("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "for traces only"),
    unset(
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "for logs only; used as it is, without a path added",
    ),
    unset("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "for logs only"),
    unset("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "for logs only"),
    secret("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "for logs only"),
    unset(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "for metrics only; used as it is, without a path added",
    ),
    unset("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "for metrics only"),
    unset("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "for metrics only"),
    secret("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "for metrics only"),
    plain(
        "OTEL_SERVICE_NAME",
        "entra-redis",
        "service.name of everything exported; overrides service.name in OTEL_RESOURCE_ATTRIBUTES",
    ),
    unset(
        "OTEL_RESOURCE_ATTRIBUTES",
        "further attributes of everything exported: name=value,name=value",
    ),
    unset(
        "CONTAINER_APP_REPLICA_NAME",
        "service.instance.id of everything exported; set by Container Apps",
    ),
    unset(
        "HOSTNAME",
        "the same if that is unset; the pod's name, set by Kubernetes",
    ),
    plain(
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio; those of parentbased_ follow the caller's traceparent",
    ),
    plain(
        "OTEL_TRACES_SAMPLER_ARG",
        "1.0",
        "fraction of traces for the samplers of traceidratio, 0.0 to 1.0",
    ),
    plain(
        "OTEL_BSP_SCHEDULE_DELAY",
        "5000",
        "longest delay before a span is exported, in milliseconds",
    ),
    plain(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "2048",
        "limit of spans waiting for export; beyond it the newest are dropped and counted",
    ),
    plain(
        "OTEL_BLRP_SCHEDULE_DELAY",
        "1000",
        "longest delay before a log record is exported, in milliseconds",
    ),
    plain(
        "OTEL_BLRP_MAX_QUEUE_SIZE",
        "2048",
        "limit of log records waiting for export; beyond it the newest are dropped and counted",
    ),
    plain(
        "OTEL_METRIC_EXPORT_INTERVAL",
        "60000",
        "time between two exports of metrics, in milliseconds",
    ),
    plain(
        "DRAIN_DELAY",
        "5s",
        "delay between not ready and not accepting, for load balancers to notice; may be 0s",
    ),
    plain(
        "DRAIN_TIMEOUT",
        "20s",
        "timeout for open requests to finish after that",
    ),
];

/// Returns the variable of this name, if it is known.
pub(super) fn known(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}
