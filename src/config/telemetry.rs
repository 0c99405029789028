//! The telemetry section: logging, and OpenTelemetry's standard variables (OpenTelemetry specification, "SDK environment
//! variables" and "OTLP exporter configuration").
//!
//! Three signals share one scheme: `OTEL_EXPORTER_OTLP_ENDPOINT` is for all, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` for
//! traces only and takes precedence.
//!
//! # Invariants
//! - A value that the SDK would ignore silently is a fault here.

use std::time::Duration;

use serde::Deserialize;

use super::{
    Environment, LogFormat, Otlp, OtlpProtocol, Parser, Roots, Telemetry, Warning, parse,
    variables::known,
};

#[derive(Deserialize)]
struct TelemetryVariables {
    log_format: Option<String>,
    rust_log: Option<String>,
    otel_sdk_disabled: Option<String>,
    otel_service_name: Option<String>,
    otel_resource_attributes: Option<String>,
    container_app_replica_name: Option<String>,
    hostname: Option<String>,
    otel_traces_sampler: Option<String>,
    otel_traces_sampler_arg: Option<String>,
    otel_bsp_schedule_delay: Option<String>,
    otel_bsp_max_queue_size: Option<String>,
    otel_blrp_schedule_delay: Option<String>,
    otel_blrp_max_queue_size: Option<String>,
    otel_metric_export_interval: Option<String>,
}

/// The names of one signal's variables.
struct Signal {
    exporter: &'static str,
    endpoint: &'static str,
    protocol: &'static str,
    timeout: &'static str,
    headers: &'static str,
    /// The path that `http/protobuf` adds to the endpoint for all signals.
    path: &'static str,
}

const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    timeout: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    headers: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    path: "v1/traces",
};

const LOGS: Signal = Signal {
    exporter: "OTEL_LOGS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
    timeout: "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
    headers: "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    path: "v1/logs",
};

const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    headers: "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    path: "v1/metrics",
};

pub(super) fn telemetry(
    parser: &mut Parser<'_>,
    environment: &Environment,
    roots: Roots,
    warnings: &mut Vec<Warning>,
) -> Telemetry {
    let mut raw: TelemetryVariables = environment.section();
    let disabled = parser.defaulted(
        "OTEL_SDK_DISABLED",
        raw.otel_sdk_disabled.take(),
        parse::boolean,
    );
    let all = AllSignals::read(parser, environment);
    let mut signal = |signal: &Signal| {
        let otlp = all.signal(parser, environment, signal, warnings);
        otlp.filter(|_| !disabled)
    };
    let (traces, logs, metrics) = (signal(&TRACES), signal(&LOGS), signal(&METRICS));

    check_sdk_variables(parser, &raw);
    Telemetry {
        log_format: parser.optional("LOG_FORMAT", raw.log_format, log_format),
        log_filter: parser.defaulted("RUST_LOG", raw.rust_log, log_filter),
        traces,
        logs,
        metrics,
        service_name: raw.otel_service_name,
        on_container_apps: raw.container_app_replica_name.is_some(),
        instance: raw.container_app_replica_name.or(raw.hostname),
        spans_waiting: parser.defaulted(
            "OTEL_BSP_MAX_QUEUE_SIZE",
            raw.otel_bsp_max_queue_size,
            parse::count,
        ),
        records_waiting: parser.defaulted(
            "OTEL_BLRP_MAX_QUEUE_SIZE",
            raw.otel_blrp_max_queue_size,
            parse::count,
        ),
        roots,
    }
}

/// Checks the variables that the SDK reads itself: it ignores invalid values.
fn check_sdk_variables(parser: &mut Parser<'_>, raw: &TelemetryVariables) {
    let attributes = raw.otel_resource_attributes.clone();
    parser.optional("OTEL_RESOURCE_ATTRIBUTES", attributes, parse::attributes);
    let name = raw.otel_traces_sampler.clone();
    parser.defaulted("OTEL_TRACES_SAMPLER", name, sampler);
    let share = raw.otel_traces_sampler_arg.clone();
    parser.defaulted("OTEL_TRACES_SAMPLER_ARG", share, parse::share);
    for (name, value) in [
        ("OTEL_BSP_SCHEDULE_DELAY", &raw.otel_bsp_schedule_delay),
        ("OTEL_BLRP_SCHEDULE_DELAY", &raw.otel_blrp_schedule_delay),
        (
            "OTEL_METRIC_EXPORT_INTERVAL",
            &raw.otel_metric_export_interval,
        ),
    ] {
        parser.defaulted(name, value.clone(), parse::milliseconds);
    }
}

/// The settings for all signals.
struct AllSignals {
    endpoint: Option<String>,
    protocol: OtlpProtocol,
    timeout: Duration,
}

impl AllSignals {
    fn read(parser: &mut Parser<'_>, environment: &Environment) -> Self {
        let value = |name| environment.value(name);
        let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let protocol_name = "OTEL_EXPORTER_OTLP_PROTOCOL";
        let timeout = "OTEL_EXPORTER_OTLP_TIMEOUT";
        let headers = "OTEL_EXPORTER_OTLP_HEADERS";
        let all = Self {
            endpoint: parser.optional(endpoint, value(endpoint), parse::collector_of_all),
            protocol: parser.defaulted(protocol_name, value(protocol_name), protocol),
            timeout: parser.defaulted(timeout, value(timeout), parse::milliseconds),
        };
        parser.optional(headers, value(headers), parse::headers);
        all
    }

    /// Returns the export of one signal; `None` if it is not exported.
    fn signal(
        &self,
        parser: &mut Parser<'_>,
        environment: &Environment,
        signal: &Signal,
        warnings: &mut Vec<Warning>,
    ) -> Option<Otlp> {
        let value = |name| environment.value(name);
        let is_explicit = value(signal.exporter).is_some();
        let is_enabled = parser.defaulted(signal.exporter, value(signal.exporter), exporter);
        let own = parser.optional(signal.endpoint, value(signal.endpoint), parse::collector);
        let protocol = parser
            .optional(signal.protocol, value(signal.protocol), protocol)
            .unwrap_or(self.protocol);
        let timeout = parser
            .optional(signal.timeout, value(signal.timeout), parse::milliseconds)
            .unwrap_or(self.timeout);
        parser.optional(signal.headers, value(signal.headers), parse::headers);
        if !is_enabled {
            return None;
        }
        let endpoint = match (own, &self.endpoint, protocol) {
            (Some(own), _, _) => own,
            (None, Some(all), OtlpProtocol::Grpc) => all.clone(),
            (None, Some(all), OtlpProtocol::HttpProtobuf) => {
                format!("{}/{}", all.trim_end_matches('/'), signal.path)
            }
            (None, None, _) => {
                if is_explicit {
                    warnings.push(Warning::NoOtlpEndpoint(signal.exporter));
                }
                return None;
            }
        };
        Some(Otlp {
            endpoint,
            protocol,
            timeout,
        })
    }
}

fn exporter(text: &str) -> Result<bool, &'static str> {
    parse::choice(text, &[("otlp", true), ("none", false)], "otlp or none")
}

fn protocol(text: &str) -> Result<OtlpProtocol, &'static str> {
    let choices = [
        ("grpc", OtlpProtocol::Grpc),
        ("http/protobuf", OtlpProtocol::HttpProtobuf),
    ];
    parse::choice(text, &choices, "grpc or http/protobuf")
}

/// Checks the name of a sampler; the SDK reads it itself, in lower case.
fn sampler(text: &str) -> Result<(), &'static str> {
    let default = known("OTEL_TRACES_SAMPLER").and_then(|variable| variable.default);
    let names = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];
    if names.contains(&text) || Some(text) == default {
        Ok(())
    } else {
        Err(
            "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio",
        )
    }
}

fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    let choices = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    parse::choice(text, &choices, "json or text")
}

/// Checks a log filter: `RUST_LOG`, or its replacement while the service runs.
///
/// # Errors
/// A description of valid values.
pub fn log_filter(text: &str) -> Result<String, &'static str> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let expected = "a level (off, error, warn, info, debug, trace), or directives such as entra_redis=debug,info";
    if tracing_subscriber::EnvFilter::builder()
        .parse(text)
        .is_err()
    {
        return Err(expected);
    }
    // Any other word would be read as the name of the only module to log, and silence all others.
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let mut directives = text.split(',').map(str::trim);
    if directives.all(|directive| directive.contains('=') || is_level(directive)) {
        Ok(text.to_owned())
    } else {
        Err(expected)
    }
}
