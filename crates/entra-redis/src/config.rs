//! The configuration: the environment, read once and parsed into typed, checked values.
//!
//! `main` takes one [`Environment`] and parses it into a [`Config`]; every other module gets its section and reads no
//! variable itself.
//!
//! # Invariants
//! - Parsing reports every fault, not just the first, so that a deployment can be fixed in one go.
//! - A variable that is set but empty is unset.
//! - No fault quotes a secret.
//!
//! Decisions about what to do with a value do not belong here.

mod environment;
mod fault;
mod parse;
mod sections;
mod telemetry;
mod variables;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub use self::{
    environment::Environment,
    fault::{Error, Fault, Warning},
    parse::duration,
    telemetry::log_filter,
    variables::Variable,
};
use self::{
    fault::{Parser, repeated},
    sections::{
        ServiceVariables, check_named_credential, http, identity, redis, unknown_variables,
    },
    variables::VARIABLES,
};
pub use crate::tls::Roots;
use crate::{secret::Secret, tls::CaCertificates};

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

/// The connection to Redis.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `REDIS_ENDPOINT`.
    pub endpoint: Endpoint,
    /// `REDIS_CLUSTERING_POLICY`.
    pub clustering_policy: ClusteringPolicy,
    /// `REDIS_AUTH`, with `REDIS_KEY` where it is `key`.
    pub auth: Auth,
    /// `REDIS_TLS`.
    pub tls: bool,
    /// `REDIS_CA_FILE`.
    pub ca_file: Option<CaCertificates>,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub roots: Roots,
    /// `REDIS_POOL_SIZE`.
    pub pool_size: usize,
    /// `REDIS_CONNECT_TIMEOUT`: TCP, TLS and authentication together.
    pub connect_timeout: Duration,
    /// `REDIS_COMMAND_TIMEOUT`.
    pub command_timeout: Duration,
}

impl Redis {
    /// Returns the defaults of all other variables with this endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        let mut parser = Parser { faults: Vec::new() };
        let environment = Environment::from_iter([("REDIS_ENDPOINT", "localhost:1")]);
        let defaults = redis(
            &mut parser,
            environment.section(),
            Roots::default(),
            &mut Vec::new(),
        );
        Self {
            endpoint,
            ..defaults.expect("an endpoint is all that is needed")
        }
    }
}

/// A host name and a port. Certificates are checked against the host name of the cache's endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Returns an address that a cluster announced for one of its nodes, unchecked.
    pub(crate) fn announced(host: &str, port: u16) -> Self {
        Self {
            host: host.to_ascii_lowercase(),
            port,
        }
    }

    /// Returns the DNS name or IP address, in lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl std::str::FromStr for Endpoint {
    type Err = Error;

    /// Parses `host[:port]` by the rules of `REDIS_ENDPOINT`.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse::endpoint(text).map_err(|expected| Error {
            faults: vec![Fault {
                variable: "REDIS_ENDPOINT",
                found: Some(repeated(text, false)),
                expected,
            }],
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Azure's clustering policies (Azure page "Azure Managed Redis architecture").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusteringPolicy {
    /// Detected from the server.
    Auto,
    /// The Redis Cluster protocol: the client connects to each node.
    OssCluster,
    /// One proxy endpoint in front of the shards.
    EnterpriseCluster,
    /// One shard.
    NoCluster,
}

impl fmt::Display for ClusteringPolicy {
    /// Azure's own word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "Auto",
            Self::OssCluster => "OSSCluster",
            Self::EnterpriseCluster => "EnterpriseCluster",
            Self::NoCluster => "NoCluster",
        })
    }
}

/// The authentication of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// With a Microsoft Entra ID token.
    Entra,
    /// With an access key.
    Key(Secret),
    /// No authentication.
    None,
}

/// The identity that authenticates.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `AZURE_TOKEN_CREDENTIALS`.
    pub choice: CredentialChoice,
    /// `AZURE_TENANT_ID`.
    pub tenant_id: Option<String>,
    /// `AZURE_CLIENT_ID`.
    pub client_id: Option<String>,
    /// `AZURE_CLIENT_SECRET`.
    pub client_secret: Option<Secret>,
    /// `AZURE_CLIENT_CERTIFICATE_PATH`.
    pub client_certificate: Option<PathBuf>,
    /// `AZURE_CLIENT_CERTIFICATE_PASSWORD`.
    pub client_certificate_password: Option<Secret>,
    /// `AZURE_FEDERATED_TOKEN_FILE`.
    pub federated_token_file: Option<PathBuf>,
    /// `AZURE_AUTHORITY_HOST`.
    pub authority_host: String,
    /// `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`.
    pub identity_endpoint: IdentityEndpoint,
    /// `REDIS_SCOPE`.
    pub scope: String,
    /// `REDIS_USERNAME`.
    pub username: Option<String>,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`, for the token endpoint.
    pub roots: Roots,
}

/// The platform's variables of its managed identity endpoint. azure_identity reads the values from the process itself, at
/// each request, because the platform rotates the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityEndpoint {
    /// Both variables are set: Container Apps or App Service.
    Complete,
    /// `IDENTITY_ENDPOINT` alone: another platform's protocol.
    WithoutHeader,
    /// Neither: a virtual machine may have a managed identity nevertheless.
    Unset,
}

/// The credentials that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialChoice {
    /// Unset: every credential, in the SDKs' order.
    Any,
    /// `prod`: environment, workload identity, managed identity.
    Production,
    /// `dev`: Azure CLI, Azure Developer CLI.
    Development,
    /// Exactly this one.
    Only(CredentialName),
}

/// The credentials, by their names in Azure's SDKs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each variant is Azure's own name and is described by the constant it maps to"
)]
pub enum CredentialName {
    EnvironmentCredential,
    WorkloadIdentityCredential,
    ManagedIdentityCredential,
    AzureCliCredential,
    AzureDeveloperCliCredential,
}

impl CredentialName {
    /// All of them, in the order in which the SDKs try them.
    pub const ALL: [Self; 5] = [
        Self::EnvironmentCredential,
        Self::WorkloadIdentityCredential,
        Self::ManagedIdentityCredential,
        Self::AzureCliCredential,
        Self::AzureDeveloperCliCredential,
    ];

    /// Returns the name as Azure writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EnvironmentCredential => "EnvironmentCredential",
            Self::WorkloadIdentityCredential => "WorkloadIdentityCredential",
            Self::ManagedIdentityCredential => "ManagedIdentityCredential",
            Self::AzureCliCredential => "AzureCliCredential",
            Self::AzureDeveloperCliCredential => "AzureDeveloperCliCredential",
        }
    }
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
        VARIABLES
    }

    /// Parses and checks one snapshot of the environment.
    ///
    /// # Errors
    /// All faults at once, when there is at least one.
    pub fn new(environment: &Environment) -> Result<Self, Error> {
        let mut parser = Parser {
            faults: environment.faults.clone(),
        };
        let mut warnings = unknown_variables(environment);
        let http = http(&mut parser, environment.section());
        let identity = identity(&mut parser, environment.section());
        let redis = redis(
            &mut parser,
            environment.section(),
            identity.roots.clone(),
            &mut warnings,
        );
        if let Some(Redis {
            auth: Auth::Entra, ..
        }) = &redis
        {
            check_named_credential(&mut parser, &identity);
        }

        let raw: ServiceVariables = environment.section();
        let sample = Sample {
            key: parser.defaulted("SAMPLE_KEY", raw.sample_key, parse::text),
        };
        let telemetry = telemetry::telemetry(
            &mut parser,
            environment,
            identity.roots.clone(),
            &mut warnings,
        );
        let drain = Drain {
            delay: parser.defaulted("DRAIN_DELAY", raw.drain_delay, parse::duration_or_zero),
            timeout: parser.defaulted("DRAIN_TIMEOUT", raw.drain_timeout, parse::duration),
        };

        if redis
            .as_ref()
            .is_some_and(|redis| redis.command_timeout >= http.request_timeout)
        {
            warnings.push(Warning::CommandOutlastsRequest);
        }
        match redis {
            Some(redis) if parser.faults.is_empty() => Ok(Self {
                http,
                redis,
                identity,
                sample,
                telemetry,
                drain,
                warnings,
            }),
            _ => Err(parser.into_error()),
        }
    }
}

impl Http {
    /// Parses the listeners alone, for a command that only queries the running service.
    ///
    /// # Errors
    /// The faults of this section's variables.
    pub fn new(environment: &Environment) -> Result<Self, Error> {
        let names = [
            "HOST",
            "PORT",
            "ADMIN_PORT",
            "REQUEST_TIMEOUT",
            "MAX_CONCURRENT_REQUESTS",
        ];
        let mut faults = environment.faults.clone();
        faults.retain(|fault| names.contains(&fault.variable));
        let mut parser = Parser { faults };
        let http = http(&mut parser, environment.section());
        if parser.faults.is_empty() {
            Ok(http)
        } else {
            Err(parser.into_error())
        }
    }
}

#[cfg(test)]
mod tests;
