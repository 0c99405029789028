//! What were we told? The environment, read once and turned into typed, checked values.
//!
//! `main` takes one [`Environment`] and makes a [`Config`] of it; every other module gets its section and reads no
//! variable itself. What always holds: parsing reports everything that is wrong, not the first thing, so that a
//! deployment is mended in one go; set but empty means unset; no fault quotes a secret.
//!
//! What does not belong here: deciding what to do with a value.

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

/// Everything the service was told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The listeners and their limits.
    pub http: Http,
    /// How Redis is reached.
    pub redis: Redis,
    /// Who signs in.
    pub identity: Identity,
    /// What `/sample` reads and writes.
    pub sample: Sample,
    /// What is logged and exported.
    pub telemetry: Telemetry,
    /// How long stopping may take.
    pub drain: Drain,
    /// What looks like a slip but harms nothing: to be logged once at start.
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

/// How Redis is reached.
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
    /// `REDIS_CONNECT_TIMEOUT`: TCP, TLS and sign-in together.
    pub connect_timeout: Duration,
    /// `REDIS_COMMAND_TIMEOUT`.
    pub command_timeout: Duration,
}

impl Redis {
    /// `endpoint` with the defaults of all other variables.
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

/// A host name and a port. Of the cache's endpoint, the name is what certificates are checked against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// What a cluster says of its nodes, taken as it is.
    pub(crate) fn announced(host: &str, port: u16) -> Self {
        Self {
            host: host.to_ascii_lowercase(),
            port,
        }
    }

    /// DNS name or IP address, in lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl std::str::FromStr for Endpoint {
    type Err = Error;

    /// Reads `host[:port]` by the rules of `REDIS_ENDPOINT`.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse::endpoint(text).map_err(|expected| Error {
            faults: vec![Fault {
                variable: "REDIS_ENDPOINT",
                met: Some(repeated(text, false)),
                expected,
            }],
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

/// Azure's clustering policies (Azure page "Azure Managed Redis architecture").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusteringPolicy {
    /// Ask the server.
    Auto,
    /// The Redis Cluster protocol: the client talks to each node.
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

/// How a connection signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// With a Microsoft Entra ID token.
    Entra,
    /// With an access key.
    Key(Secret),
    /// Not at all.
    None,
}

/// Who signs in.
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

/// What the platform says of its managed identity endpoint. azure_identity reads the values from the process itself, at
/// each request, because the platform rotates the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityEndpoint {
    /// Both variables are there: Container Apps or App Service.
    Complete,
    /// `IDENTITY_ENDPOINT` alone: another platform's protocol.
    WithoutHeader,
    /// Neither: a virtual machine has one all the same.
    Unset,
}

/// Which credentials may be used.
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

/// The credentials by the names Azure's SDKs give them.
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
    /// In the order in which the SDKs try them.
    pub const ALL: [Self; 5] = [
        Self::EnvironmentCredential,
        Self::WorkloadIdentityCredential,
        Self::ManagedIdentityCredential,
        Self::AzureCliCredential,
        Self::AzureDeveloperCliCredential,
    ];

    /// The name as Azure writes it.
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

/// What `/sample` reads and writes.
#[derive(Debug, Clone)]
pub struct Sample {
    /// `SAMPLE_KEY`.
    pub key: String,
}

/// What is logged, and what is exported by OTLP. What is not here of OpenTelemetry's variables (headers, resource
/// attributes, sampler, delays) is checked here and read by the OpenTelemetry SDK, from the process itself.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// `LOG_FORMAT`; `None` asks whether standard output is a terminal.
    pub log_format: Option<LogFormat>,
    /// `RUST_LOG`, checked.
    pub log_filter: String,
    /// Where traces go; `None` exports none.
    pub traces: Option<Otlp>,
    /// Where log records go besides standard output.
    pub logs: Option<Otlp>,
    /// Where metrics go besides `/metrics`.
    pub metrics: Option<Otlp>,
    /// `OTEL_SERVICE_NAME`; `None` leaves it to `OTEL_RESOURCE_ATTRIBUTES` and the default.
    pub service_name: Option<String>,
    /// Whether Container Apps runs this: it sets `CONTAINER_APP_REPLICA_NAME`.
    pub on_container_apps: bool,
    /// `CONTAINER_APP_REPLICA_NAME`, else `HOSTNAME`: which of several replicas this is.
    pub instance: Option<String>,
    /// `OTEL_BSP_MAX_QUEUE_SIZE`.
    pub spans_waiting: usize,
    /// `OTEL_BLRP_MAX_QUEUE_SIZE`.
    pub records_waiting: usize,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`, for collectors spoken to over https.
    pub roots: Roots,
}

/// How one kind of telemetry reaches its collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The whole URL, with the signal's path where the protocol has one.
    pub endpoint: String,
    /// What is spoken there.
    pub protocol: OtlpProtocol,
    /// Limit of one export.
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

/// The shapes of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person.
    Text,
}

/// How long stopping may take.
#[derive(Debug, Clone)]
pub struct Drain {
    /// `DRAIN_DELAY`.
    pub delay: Duration,
    /// `DRAIN_TIMEOUT`.
    pub timeout: Duration,
}

impl Config {
    /// Every variable the program knows.
    pub fn variables() -> &'static [Variable] {
        VARIABLES
    }

    /// Types and checks one snapshot of the environment.
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
    /// The listeners alone, for a command that only asks the running service.
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
        match parser.faults.is_empty() {
            true => Ok(http),
            false => Err(parser.into_error()),
        }
    }
}

#[cfg(test)]
mod tests;
