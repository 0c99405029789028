//! The settings that the library reads from the environment: `REDIS_*`, `AZURE_*`, `IDENTITY_*` and `SSL_CERT_*`.
//!
//! [`Settings`] are parsed from one [`Environment`], a snapshot of the process's variables or of pairs; no other module reads
//! a variable.
//!
//! # Invariants
//! - Parsing reports every fault, not just the first, so that a deployment can be fixed in one go.
//! - A variable that is set but empty is unset.
//! - No fault quotes a secret.
//! - Variables of the host program are not read.
//!
//! Decisions about what to do with a value do not belong here.

mod environment;
mod fault;
#[doc(hidden)]
// for entra-redis-service, which parses its own variables by the same rules and reports all faults together
pub mod parse;
mod parser;
mod sections;
mod variables;

use std::{fmt, path::PathBuf, time::Duration};

pub use self::{
    environment::Environment,
    fault::{Error, Fault, Warning},
    parse::duration,
    variables::{VARIABLES, Variable},
};
#[doc(hidden)]
pub use self::{parser::Parser, sections::read};
pub use crate::{endpoint::Endpoint, tls::Roots};
use crate::{secret::Secret, tls::CaCertificates};

/// All settings of the library.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The connection to Redis.
    pub redis: Redis,
    /// The identity that authenticates.
    pub identity: Identity,
    /// Settings that look like mistakes and do no harm: to be logged once at start.
    pub warnings: Vec<Warning>,
}

impl Settings {
    /// Parses and checks one snapshot of the environment.
    ///
    /// # Errors
    /// All faults at once, if there is at least one.
    pub fn new(environment: &Environment) -> Result<Self, Error> {
        let mut parser = Parser::new(environment, VARIABLES);
        let mut warnings = Vec::new();
        let (redis, identity) = read(&mut parser, environment, &mut warnings);
        match (redis, parser.finish()) {
            (_, Err(error)) => Err(error),
            (Some(redis), Ok(())) => Ok(Self {
                redis,
                identity,
                warnings,
            }),
            (None, Ok(())) => unreachable!("a missing endpoint is a fault"),
        }
    }
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
    /// Returns the settings for this endpoint with the defaults of all variables.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            clustering_policy: ClusteringPolicy::Auto,
            auth: Auth::Entra,
            tls: true,
            ca_file: None,
            roots: Roots::default(),
            pool_size: 2,
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(1),
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

impl Identity {
    /// Parses the variables of the identity alone, for a program that needs a credential and no Redis endpoint.
    ///
    /// # Errors
    /// All faults at once, if there is at least one.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        let mut parser = Parser::new(environment, VARIABLES);
        let identity = sections::identity(&mut parser, environment.section());
        sections::check_named_credential(&mut parser, &identity);
        parser.retain(|variable| {
            !variable.starts_with("REDIS_")
                || variable == "REDIS_SCOPE"
                || variable == "REDIS_USERNAME"
        });
        parser.finish().map(|()| identity)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_in_code_are_those_of_the_table() {
        let endpoint: Endpoint = "localhost:1".parse().expect("an endpoint");
        let environment = Environment::from_iter([("REDIS_ENDPOINT", "localhost:1")]);
        let parsed = Settings::new(&environment).expect("it is complete");
        let expected = format!("{:?}", parsed.redis);
        assert_eq!(format!("{:?}", Redis::new(endpoint)), expected);
        assert_eq!(parsed.warnings, []);
    }

    #[test]
    fn variables_of_the_host_program_are_not_read() {
        let host = [
            ("HOST", "build-agent-7"),
            ("PORT", "tcp://10.0.0.1:80"),
            ("REQUEST_TIMEOUT", "30"),
            ("LOG_FORMAT", "pretty"),
            ("RUST_LOG", "my_app=debug,[{"),
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("MAX_CONCURRENT_REQUESTS", "0"),
        ];
        let endpoint = [("REDIS_ENDPOINT", "localhost:1")];
        let environment = Environment::from_iter(host.into_iter().chain(endpoint));
        assert!(Settings::new(&environment).is_ok());
    }

    #[test]
    fn an_identity_needs_no_endpoint_and_reports_its_own_faults_alone() {
        let faults = |pairs: &[(&str, &str)]| -> Vec<_> {
            let environment = pairs.iter().copied().collect();
            let result = Identity::from_environment(&environment);
            let error = result.err().map(|error| error.faults().to_vec());
            let names = error.iter().flatten().map(|fault| fault.variable);
            names.collect()
        };
        assert!(faults(&[("REDIS_POOL_SIZE", "none")]).is_empty());
        let wrong = [
            ("AZURE_CLIENT_ID", "me"),
            ("REDIS_SCOPE", "all"),
            ("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential"),
        ];
        let expected = [
            "REDIS_SCOPE",
            "AZURE_TENANT_ID",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
        ];
        assert_eq!(faults(&wrong), expected);
    }
}
