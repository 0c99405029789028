//! What were we told? The environment, read once and turned into typed, checked values.
//!
//! `main` takes one [`Environment`] and makes a [`Config`] of it; every other module gets its section and reads no
//! variable itself. What always holds: parsing reports everything that is wrong, not the first thing, so that a
//! deployment is mended in one go; set but empty means unset; no fault quotes a secret.
//!
//! What does not belong here: deciding what to do with a value.

mod parse;
mod variables;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};

pub use self::parse::duration;
use self::variables::VARIABLES;
pub use self::variables::Variable;
use crate::secret::Secret;

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
    /// What is logged, and how.
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
    pub ca_file: Option<PathBuf>,
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
        let mut environment = Environment::default();
        environment.set("REDIS_ENDPOINT", endpoint.to_string());
        redis(
            &mut parser,
            environment.section(),
            Roots::default(),
            &mut Vec::new(),
        )
        .expect("an endpoint is all that is needed")
    }
}

/// A host name and a port; the name is what the certificate is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// DNS name or IP address, in lower case, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::str::FromStr for Endpoint {
    type Err = Error;

    /// Reads `host[:port]` by the rules of `REDIS_ENDPOINT`.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse::endpoint(text).map_err(|expected| Error {
            faults: vec![Fault {
                variable: "REDIS_ENDPOINT",
                met: (!may_hold_a_secret(text)).then(|| format!("`{text}`")),
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

/// Which certificate authorities replace the system's; both unset means the system's.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// `SSL_CERT_FILE`.
    pub file: Option<PathBuf>,
    /// `SSL_CERT_DIR`.
    pub directory: Option<PathBuf>,
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
    /// `AZURE_FEDERATED_TOKEN_FILE`.
    pub federated_token_file: Option<PathBuf>,
    /// `AZURE_AUTHORITY_HOST`.
    pub authority_host: String,
    /// Whether `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` are both there. azure_identity reads their values from the
    /// process itself, at each request, because the platform rotates the header.
    pub has_identity_endpoint: bool,
    /// `REDIS_SCOPE`.
    pub scope: String,
    /// `REDIS_USERNAME`.
    pub username: Option<String>,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`, for the token endpoint.
    pub roots: Roots,
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

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// `LOG_FORMAT`; `None` asks whether standard output is a terminal.
    pub log_format: Option<LogFormat>,
    /// `RUST_LOG`, checked.
    pub log_filter: String,
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

/// One variable that cannot be used: what was met and what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable's name.
    pub variable: &'static str,
    /// The value met; `None` where nothing was set; hidden where it is a secret.
    pub met: Option<String>,
    /// What would have been right.
    pub expected: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            met,
            expected,
        } = self;
        match met {
            Some(met) => write!(f, "{variable}: met {met}, expected {expected}"),
            None => write!(f, "{variable}: not set, expected {expected}"),
        }
    }
}

/// Every fault found in one environment.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    faults: Vec<Fault>,
}

impl Error {
    /// The faults, in the order of [`Config::variables`].
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for Error {
    /// One line a fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// Something that looks like a slip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A variable of our prefix that nothing reads.
    UnknownVariable(String),
    /// `REDIS_KEY` is set though `REDIS_AUTH` is not `key`.
    UnusedKey,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariable(name) => {
                write!(f, "{name} is set but nothing reads a variable of this name")
            }
            Self::UnusedKey => {
                f.write_str("REDIS_KEY is set but not used, because REDIS_AUTH is not `key`")
            }
        }
    }
}

/// One snapshot of variables, taken from the process or made from pairs.
#[derive(Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl Environment {
    /// The process's own variables, now.
    pub fn from_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue; // none of ours
            };
            match value.into_string() {
                Ok(value) => environment.set(name, value),
                Err(_) => environment
                    .faults
                    .extend(known(&name).map(|variable| Fault {
                        variable: variable.name,
                        met: Some("bytes that are not UTF-8".to_owned()),
                        expected: "UTF-8 text",
                    })),
            }
        }
        environment
    }

    /// Sets one variable; an empty value unsets it.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if value.is_empty() {
            self.values.remove(&name);
        } else {
            self.values.insert(name, value);
        }
    }

    /// Sets one variable where nothing else did.
    pub fn set_default(&mut self, name: &str, value: &str) {
        if !self.values.contains_key(name) {
            self.set(name, value);
        }
    }

    /// The value in force as one may show it: hidden where it is a secret, `None` where there is none.
    pub fn shown(&self, variable: &Variable) -> Option<&str> {
        match self.values.get(variable.name) {
            Some(value) if variable.secret || may_hold_a_secret(value) => Some(HIDDEN),
            Some(value) => Some(value),
            None => variable.default,
        }
    }

    fn section<T: DeserializeOwned>(&self) -> T {
        let pairs = self.values.iter().map(|(k, v)| (k.clone(), v.clone()));
        envy::from_iter(pairs).expect("a section has only optional strings, which any text fits")
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.set(name, value);
        }
        environment
    }
}

const HIDDEN: &str = "(hidden)";

/// Whether a value pasted into the wrong variable could be a connection string or a URL with a password in it.
fn may_hold_a_secret(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    lower.contains('@') || lower.contains("password=") || lower.contains("key=")
}

fn known(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

// What envy reads: every field is optional text, so that reading a section cannot fail and our own parser can report
// every fault instead of the first. The field names are the variables' names.

#[derive(Deserialize)]
struct HttpVariables {
    host: Option<String>,
    port: Option<String>,
    admin_port: Option<String>,
    request_timeout: Option<String>,
    max_concurrent_requests: Option<String>,
}

#[derive(Deserialize)]
struct RedisVariables {
    redis_endpoint: Option<String>,
    redis_clustering_policy: Option<String>,
    redis_auth: Option<String>,
    redis_tls: Option<String>,
    redis_key: Option<String>,
    redis_ca_file: Option<String>,
    redis_pool_size: Option<String>,
    redis_connect_timeout: Option<String>,
    redis_command_timeout: Option<String>,
}

#[derive(Deserialize)]
struct IdentityVariables {
    ssl_cert_file: Option<String>,
    ssl_cert_dir: Option<String>,
    redis_scope: Option<String>,
    redis_username: Option<String>,
    azure_token_credentials: Option<String>,
    azure_tenant_id: Option<String>,
    azure_client_id: Option<String>,
    azure_client_secret: Option<String>,
    azure_federated_token_file: Option<String>,
    azure_authority_host: Option<String>,
    identity_endpoint: Option<String>,
    identity_header: Option<String>,
}

#[derive(Deserialize)]
struct ServiceVariables {
    sample_key: Option<String>,
    log_format: Option<String>,
    rust_log: Option<String>,
    drain_delay: Option<String>,
    drain_timeout: Option<String>,
}

/// Types values and keeps the list of what went wrong.
struct Parser {
    faults: Vec<Fault>,
}

impl Parser {
    /// A variable that may be unset.
    fn optional<T>(
        &mut self,
        name: &'static str,
        raw: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        let raw = raw?;
        match parse(&raw) {
            Ok(value) => Some(value),
            Err(expected) => {
                let hidden = known(name).is_some_and(|variable| variable.secret);
                let met = match hidden || may_hold_a_secret(&raw) {
                    true => HIDDEN,
                    false => &raw,
                };
                self.fault(name, Some(met), expected);
                None
            }
        }
    }

    /// A variable with a default in the table; after a fault it goes on with the default.
    fn defaulted<T>(
        &mut self,
        name: &'static str,
        raw: Option<String>,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> T {
        self.optional(name, raw, &parse).unwrap_or_else(|| {
            let default = known(name).and_then(|variable| variable.default);
            match parse(default.expect("the table has a default for it")) {
                Ok(value) => value,
                Err(expected) => unreachable!("the default of {name} is {expected}"),
            }
        })
    }

    fn fault(&mut self, variable: &'static str, met: Option<&str>, expected: &'static str) {
        self.faults.push(Fault {
            variable,
            met: met.map(|met| format!("`{met}`")),
            expected,
        });
    }
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
        let telemetry = Telemetry {
            log_format: parser.optional("LOG_FORMAT", raw.log_format, log_format),
            log_filter: parser.defaulted("RUST_LOG", raw.rust_log, log_filter),
        };
        let drain = Drain {
            delay: parser.defaulted("DRAIN_DELAY", raw.drain_delay, parse::duration_or_zero),
            timeout: parser.defaulted("DRAIN_TIMEOUT", raw.drain_timeout, parse::duration),
        };

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
        let mut parser = Parser { faults: Vec::new() };
        let http = http(&mut parser, environment.section());
        match parser.faults.is_empty() {
            true => Ok(http),
            false => Err(parser.into_error()),
        }
    }
}

impl Parser {
    fn into_error(mut self) -> Error {
        let position = |fault: &Fault| VARIABLES.iter().position(|v| v.name == fault.variable);
        self.faults.sort_by_key(position);
        Error {
            faults: self.faults,
        }
    }
}

fn http(parser: &mut Parser, raw: HttpVariables) -> Http {
    let host: IpAddr = parser.defaulted("HOST", raw.host, parse::ip_address);
    let port = parser.defaulted("PORT", raw.port, parse::port);
    let admin_port = parser.optional("ADMIN_PORT", raw.admin_port, |text| {
        match parse::port(text)? {
            same if same == port && same != 0 => Err("a port other than PORT"),
            other => Ok(other),
        }
    });
    Http {
        public: SocketAddr::new(host, port),
        admin: admin_port.map(|port| SocketAddr::new(host, port)),
        request_timeout: parser.defaulted("REQUEST_TIMEOUT", raw.request_timeout, parse::duration),
        max_concurrent_requests: parser.defaulted(
            "MAX_CONCURRENT_REQUESTS",
            raw.max_concurrent_requests,
            parse::count,
        ),
    }
}

fn redis(
    parser: &mut Parser,
    raw: RedisVariables,
    roots: Roots,
    warnings: &mut Vec<Warning>,
) -> Option<Redis> {
    if raw.redis_endpoint.is_none() {
        parser.fault(
            "REDIS_ENDPOINT",
            None,
            "host[:port] of the cache, such as NAME.REGION.redis.azure.net",
        );
    }
    let endpoint = parser.optional("REDIS_ENDPOINT", raw.redis_endpoint, parse::endpoint);
    let clustering_policy = parser.defaulted(
        "REDIS_CLUSTERING_POLICY",
        raw.redis_clustering_policy,
        clustering_policy,
    );
    if clustering_policy == ClusteringPolicy::OssCluster {
        parser.fault(
            "REDIS_CLUSTERING_POLICY",
            Some("OSSCluster"),
            "Auto, EnterpriseCluster or NoCluster: this version reaches one endpoint and cannot follow a cluster's nodes",
        );
    }
    // The three that sign in are written like `AuthName` first, because `key` is complete only with REDIS_KEY.
    let tls = parser.defaulted("REDIS_TLS", raw.redis_tls, parse::boolean);
    let auth = parser.defaulted("REDIS_AUTH", raw.redis_auth, auth_name);
    let key = raw.redis_key.map(Secret::new);
    if key.is_some() && auth != AuthName::Key {
        warnings.push(Warning::UnusedKey);
    }
    let auth = match (auth, key) {
        (AuthName::Entra, _) => {
            if !tls {
                parser.fault(
                    "REDIS_TLS",
                    Some("false"),
                    "true while REDIS_AUTH is entra: a token never travels in the clear",
                );
            }
            Auth::Entra
        }
        (AuthName::Key, Some(key)) => Auth::Key(key),
        (AuthName::Key, None) => {
            parser.fault(
                "REDIS_KEY",
                None,
                "the access key, because REDIS_AUTH is key",
            );
            Auth::None
        }
        (AuthName::None, _) => Auth::None,
    };
    let ca_file = parser.optional("REDIS_CA_FILE", raw.redis_ca_file, existing_file);
    let pool_size = parser.defaulted("REDIS_POOL_SIZE", raw.redis_pool_size, parse::pool_size);
    let connect_timeout = parser.defaulted(
        "REDIS_CONNECT_TIMEOUT",
        raw.redis_connect_timeout,
        parse::duration,
    );
    let command_timeout = parser.defaulted(
        "REDIS_COMMAND_TIMEOUT",
        raw.redis_command_timeout,
        parse::duration,
    );
    Some(Redis {
        endpoint: endpoint?,
        clustering_policy,
        auth,
        tls,
        ca_file,
        roots,
        pool_size,
        connect_timeout,
        command_timeout,
    })
}

fn identity(parser: &mut Parser, raw: IdentityVariables) -> Identity {
    Identity {
        choice: parser
            .optional(
                "AZURE_TOKEN_CREDENTIALS",
                raw.azure_token_credentials,
                credential_choice,
            )
            .unwrap_or(CredentialChoice::Any),
        tenant_id: raw.azure_tenant_id,
        client_id: raw.azure_client_id,
        client_secret: raw.azure_client_secret.map(Secret::new),
        federated_token_file: raw.azure_federated_token_file.map(PathBuf::from),
        authority_host: parser.defaulted(
            "AZURE_AUTHORITY_HOST",
            raw.azure_authority_host,
            parse::authority,
        ),
        has_identity_endpoint: raw.identity_endpoint.is_some() && raw.identity_header.is_some(),
        scope: parser.defaulted("REDIS_SCOPE", raw.redis_scope, parse::scope),
        username: raw.redis_username,
        roots: Roots {
            file: parser.optional("SSL_CERT_FILE", raw.ssl_cert_file, existing_file),
            directory: raw.ssl_cert_dir.map(PathBuf::from),
        },
    }
}

/// A credential asked for by name must have what it needs: waiting for it to appear would be waiting for ever.
fn check_named_credential(parser: &mut Parser, identity: &Identity) {
    let CredentialChoice::Only(name) = identity.choice else {
        return;
    };
    let mut need = |variable, is_there: bool, expected| {
        if !is_there {
            parser.fault(variable, None, expected);
        }
    };
    match name {
        CredentialName::EnvironmentCredential => {
            let expected = "a value, because AZURE_TOKEN_CREDENTIALS is EnvironmentCredential";
            need("AZURE_TENANT_ID", identity.tenant_id.is_some(), expected);
            need("AZURE_CLIENT_ID", identity.client_id.is_some(), expected);
            need(
                "AZURE_CLIENT_SECRET",
                identity.client_secret.is_some(),
                expected,
            );
        }
        CredentialName::WorkloadIdentityCredential => {
            let expected = "the value that the workload identity webhook sets: the pod needs the label azure.workload.identity/use: \"true\" and its service account the annotation azure.workload.identity/client-id";
            need("AZURE_TENANT_ID", identity.tenant_id.is_some(), expected);
            need("AZURE_CLIENT_ID", identity.client_id.is_some(), expected);
            need(
                "AZURE_FEDERATED_TOKEN_FILE",
                identity.federated_token_file.is_some(),
                expected,
            );
        }
        // Managed identity may be IMDS, which no variable announces; the command-line tools have their own sign-in.
        CredentialName::ManagedIdentityCredential
        | CredentialName::AzureCliCredential
        | CredentialName::AzureDeveloperCliCredential => {}
    }
}

fn unknown_variables(environment: &Environment) -> Vec<Warning> {
    // Kubernetes sets these by itself where a Service is called `redis` ("Discovering services").
    let from_kubernetes =
        |name: &str| name.starts_with("REDIS_SERVICE_") || name.starts_with("REDIS_PORT");
    environment
        .values
        .keys()
        .filter(|name| name.starts_with("REDIS_") && known(name).is_none())
        .filter(|name| !from_kubernetes(name))
        .map(|name| Warning::UnknownVariable(name.clone()))
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthName {
    Entra,
    Key,
    None,
}

fn auth_name(text: &str) -> Result<AuthName, &'static str> {
    let choices = [
        ("entra", AuthName::Entra),
        ("key", AuthName::Key),
        ("none", AuthName::None),
    ];
    parse::choice(text, &choices, "entra, key or none")
}

fn clustering_policy(text: &str) -> Result<ClusteringPolicy, &'static str> {
    let choices = [
        ("Auto", ClusteringPolicy::Auto),
        ("OSSCluster", ClusteringPolicy::OssCluster),
        ("EnterpriseCluster", ClusteringPolicy::EnterpriseCluster),
        ("NoCluster", ClusteringPolicy::NoCluster),
    ];
    parse::choice(
        text,
        &choices,
        "Auto, OSSCluster, EnterpriseCluster or NoCluster",
    )
}

fn credential_choice(text: &str) -> Result<CredentialChoice, &'static str> {
    let named = CredentialName::ALL.map(|name| (name.as_str(), CredentialChoice::Only(name)));
    let groups = [
        ("prod", CredentialChoice::Production),
        ("dev", CredentialChoice::Development),
    ];
    let choices: Vec<_> = groups.into_iter().chain(named).collect();
    parse::choice(
        text,
        &choices,
        "prod, dev, EnvironmentCredential, WorkloadIdentityCredential, ManagedIdentityCredential, AzureCliCredential or AzureDeveloperCliCredential",
    )
}

fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    let choices = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    parse::choice(text, &choices, "json or text")
}

fn log_filter(text: &str) -> Result<String, &'static str> {
    #[cfg(feature = "service")]
    if tracing_subscriber::EnvFilter::builder()
        .parse(text)
        .is_err()
    {
        return Err("tracing directives such as info or entra_redis=debug,info");
    }
    Ok(text.to_owned())
}

fn existing_file(text: &str) -> Result<PathBuf, &'static str> {
    match std::fs::File::open(text) {
        Ok(_) => Ok(PathBuf::from(text)),
        Err(_) => Err("the path of a file that can be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        Config::new(&pairs.iter().copied().collect())
    }

    #[test]
    fn the_endpoint_is_all_one_must_give() {
        let config = config(&[("REDIS_ENDPOINT", "c.r.redis.azure.net")]).expect("it is complete");
        assert_eq!(config.http.public.to_string(), "0.0.0.0:8080");
        assert_eq!(config.http.admin, None);
        assert_eq!(config.redis.auth, Auth::Entra);
        assert_eq!(
            config.redis.endpoint.to_string(),
            "c.r.redis.azure.net:10000"
        );
        assert_eq!(config.sample.key, "PreviousVisitTime");
        assert_eq!(config.drain.timeout, Duration::from_secs(20));
        assert_eq!(config.warnings, []);
    }

    #[test]
    fn every_fault_is_listed_at_once_in_the_tables_order() {
        let error = config(&[
            ("DRAIN_TIMEOUT", "0s"),
            ("PORT", "eighty"),
            ("REDIS_AUTH", "password"),
            ("REDIS_POOL_SIZE", "0"),
            ("AZURE_AUTHORITY_HOST", "http://localhost"),
        ])
        .expect_err("six faults");
        let variables: Vec<_> = error.faults().iter().map(|f| f.variable).collect();
        assert_eq!(
            variables,
            [
                "PORT",
                "REDIS_ENDPOINT",
                "REDIS_AUTH",
                "REDIS_POOL_SIZE",
                "AZURE_AUTHORITY_HOST",
                "DRAIN_TIMEOUT"
            ]
        );
        assert!(
            error
                .to_string()
                .contains("PORT: met `eighty`, expected a port")
        );
    }

    #[test]
    fn a_token_never_travels_in_the_clear() {
        let pairs = [("REDIS_ENDPOINT", "localhost:6379"), ("REDIS_TLS", "false")];
        let error = config(&pairs).expect_err("refused with entra");
        assert_eq!(error.faults()[0].variable, "REDIS_TLS");
        let without = [pairs[0], pairs[1], ("REDIS_AUTH", "none")];
        assert!(!config(&without).expect("fine without a token").redis.tls);
    }

    #[test]
    fn empty_means_unset() {
        let config = config(&[
            ("REDIS_ENDPOINT", "localhost:6379"),
            ("AZURE_CLIENT_ID", ""),
            ("PORT", ""),
        ])
        .expect("nothing is wrong");
        assert_eq!(config.identity.client_id, None);
        assert_eq!(config.http.public.port(), 8080);
    }

    #[test]
    fn a_key_is_needed_with_key_and_noticed_without() {
        let endpoint = ("REDIS_ENDPOINT", "localhost:6379");
        let error = config(&[endpoint, ("REDIS_AUTH", "key")]).expect_err("no key");
        assert_eq!(error.faults()[0].variable, "REDIS_KEY");
        let config = config(&[endpoint, ("REDIS_KEY", "k"), ("REDIS_TSL", "true")]).expect("fine");
        assert_eq!(
            config.warnings,
            [
                Warning::UnknownVariable("REDIS_TSL".to_owned()),
                Warning::UnusedKey
            ]
        );
    }

    #[test]
    fn a_named_credential_must_be_complete() {
        let error = config(&[
            ("REDIS_ENDPOINT", "localhost:6379"),
            ("AZURE_TOKEN_CREDENTIALS", "workloadidentitycredential"),
            ("AZURE_CLIENT_ID", "app"),
        ])
        .expect_err("two are missing");
        let variables: Vec<_> = error.faults().iter().map(|f| f.variable).collect();
        assert_eq!(variables, ["AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"]);
    }

    #[test]
    fn kubernetes_own_variables_are_no_slip() {
        let config = config(&[
            ("REDIS_ENDPOINT", "localhost:6379"),
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
            ("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
        ])
        .expect("fine");
        assert_eq!(config.warnings, []);
    }

    #[test]
    fn secrets_are_hidden_where_values_are_shown() {
        let environment: Environment = [("REDIS_KEY", "k3y"), ("PORT", "1")].into_iter().collect();
        let shown = |name| environment.shown(known(name).expect("it is known"));
        assert_eq!(shown("REDIS_KEY"), Some("(hidden)"));
        assert_eq!(shown("PORT"), Some("1"));
        assert_eq!(shown("HOST"), Some("0.0.0.0"));
        assert_eq!(shown("REDIS_ENDPOINT"), None);
    }
}
