//! The configuration of the service: the environment, read once and parsed into typed, checked values.
//!
//! The command line takes one [`Environment`] and parses it into a [`Config`], the library's settings included; every other
//! module gets its section and reads no variable itself.
//!
//! # Invariants
//! - Parsing reports every fault, not just the first, so that a deployment can be fixed in one go.
//! - No fault quotes a secret.
//!
//! Decisions about what to do with a value do not belong here.

mod parse;
mod sections;
mod telemetry;
mod variables;
mod warning;

use std::{net::SocketAddr, time::Duration};

use entra_redis::env::{self, Parser};
pub use entra_redis::env::{
    Auth, ClusteringPolicy, CredentialChoice, CredentialName, Endpoint, Environment, Error, Fault,
    Identity, IdentityEndpoint, Redis, Roots, Variable, duration,
};

use self::{
    sections::{ServiceVariables, http},
    variables::VARIABLES,
};
pub use self::{telemetry::log_filter, warning::Warning};

/// The whole configuration of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// The listeners and their limits.
    pub http: Http,
    /// The connection to Redis.
    pub redis: Redis,
    /// The identity that authenticates.
    pub identity: Identity,
    /// The settings of `/sample`.
    pub sample: Sample,
    /// Logging and export.
    pub telemetry: Telemetry,
    /// The timeouts of shutdown.
    pub drain: Drain,
    /// Settings that look like mistakes and do no harm: to be logged once at start.
    pub warnings: Vec<Warning>,
}

/// The listeners and their limits.
#[derive(Debug, Clone)]
pub struct Http {
    /// `HOST` and `PORT`.
    pub public: SocketAddr,
    /// `HOST` and `ADMIN_PORT`; probes and metrics stay on the public listener without it.
    pub admin: Option<SocketAddr>,
    /// `REQUEST_TIMEOUT`.
    pub request_timeout: Duration,
    /// `MAX_CONCURRENT_REQUESTS`.
    pub max_concurrent_requests: usize,
}

/// The settings of `/sample`.
#[derive(Debug, Clone)]
pub struct Sample {
    /// `SAMPLE_KEY`.
    pub key: String,
}

/// Logging, and export by OTLP. OpenTelemetry's variables without a field here (headers, resource attributes, sampler,
/// delays) are checked by the parser and read by the OpenTelemetry SDK, from the process itself.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// `LOG_FORMAT`; `None` is text when standard output is a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// `RUST_LOG`, checked.
    pub log_filter: String,
    /// The collector of traces; `None` exports none.
    pub traces: Option<Otlp>,
    /// The collector of log records, besides standard output.
    pub logs: Option<Otlp>,
    /// The collector of metrics, besides `/metrics`.
    pub metrics: Option<Otlp>,
    /// `OTEL_SERVICE_NAME`; `None` leaves it to `OTEL_RESOURCE_ATTRIBUTES` and the default.
    pub service_name: Option<String>,
    /// True on Container Apps, which sets `CONTAINER_APP_REPLICA_NAME`.
    pub on_container_apps: bool,
    /// `CONTAINER_APP_REPLICA_NAME`, else `HOSTNAME`: the name of this replica.
    pub instance: Option<String>,
    /// `OTEL_BSP_MAX_QUEUE_SIZE`.
    pub spans_waiting: usize,
    /// `OTEL_BLRP_MAX_QUEUE_SIZE`.
    pub records_waiting: usize,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`, for collectors reached over https.
    pub roots: Roots,
}

/// The export of one kind of telemetry to its collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The whole URL, with the signal's path where the protocol has one.
    pub endpoint: String,
    /// The protocol.
    pub protocol: OtlpProtocol,
    /// The timeout of one export.
    pub timeout: Duration,
}

/// OTLP's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`.
    HttpProtobuf,
}

/// The formats of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Readable text.
    Text,
}

/// The timeouts of shutdown.
#[derive(Debug, Clone)]
pub struct Drain {
    /// `DRAIN_DELAY`.
    pub delay: Duration,
    /// `DRAIN_TIMEOUT`.
    pub timeout: Duration,
}

impl Config {
    /// Returns every known variable.
    pub fn variables() -> &'static [Variable] {
        &VARIABLES
    }

    /// Parses and checks one snapshot of the environment.
    ///
    /// # Errors
    /// All faults at once, if there is at least one.
    pub fn new(environment: &Environment) -> Result<Self, Error> {
        let mut parser = Parser::new(environment, &VARIABLES);
        let http = http(&mut parser, environment.section());
        let mut of_library = Vec::new();
        let (redis, identity) = env::read(&mut parser, environment, &mut of_library);
        let mut warnings: Vec<_> = of_library.into_iter().map(Warning::Library).collect();

        let raw: ServiceVariables = environment.section();
        let sample = Sample {
            key: parser.defaulted("SAMPLE_KEY", raw.sample_key, parse::text),
        };
        let roots = identity.roots.clone();
        let telemetry = telemetry::telemetry(&mut parser, environment, roots, &mut warnings);
        let drain = Drain {
            delay: parser.defaulted("DRAIN_DELAY", raw.drain_delay, parse::duration_or_zero),
            timeout: parser.defaulted("DRAIN_TIMEOUT", raw.drain_timeout, parse::duration),
        };
        parser.finish()?;
        let Some(redis) = redis else {
            unreachable!("a missing endpoint is a fault");
        };
        if redis.command_timeout >= http.request_timeout {
            warnings.push(Warning::CommandOutlastsRequest);
        }
        Ok(Self {
            http,
            redis,
            identity,
            sample,
            telemetry,
            drain,
            warnings,
        })
    }
}

impl Http {
    /// Parses the listeners alone, for a command that only queries the running service.
    ///
    /// # Errors
    /// The faults of this section's variables.
    pub fn new(environment: &Environment) -> Result<Self, Error> {
        let mut parser = Parser::new(environment, variables::HTTP);
        let http = http(&mut parser, environment.section());
        parser.finish().map(|()| http)
    }
}

#[cfg(test)]
mod tests;
