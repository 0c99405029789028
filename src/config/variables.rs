//! The table of variables: name, default, meaning. It is what `entra-redis config` prints, what the parser takes its
//! defaults from, and what the README's table is checked against, so that the three cannot differ.

/// One environment variable the program knows.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The name, as it stands in the environment.
    pub name: &'static str,
    /// The value used when the variable is unset or empty, in the form one would write it.
    pub default: Option<&'static str>,
    /// What it decides, in one line.
    pub meaning: &'static str,
    /// Whether the value must be hidden wherever it would be shown.
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

/// Every variable, in the order in which a reader meets them.
pub(super) const VARIABLES: &[Variable] = &[
    plain(
        "HOST",
        "0.0.0.0",
        "address of the listeners (`dev` and `emulate`: 127.0.0.1)",
    ),
    plain(
        "PORT",
        "8080",
        "public port: /sample, /swagger, /openapi.json",
    ),
    unset(
        "ADMIN_PORT",
        "when set, /healthz, /readyz and /metrics move to this port and leave the public one",
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
        "shared connections, with OSSCluster to each master; 1 to 256",
    ),
    plain(
        "REDIS_CONNECT_TIMEOUT",
        "5s",
        "limit for TCP, TLS and sign-in of one connection together",
    ),
    plain(
        "REDIS_COMMAND_TIMEOUT",
        "1s",
        "limit for one command, and for how long it waits to be sent",
    ),
    plain(
        "REQUEST_TIMEOUT",
        "3s",
        "a request's whole deadline, retries included; then 504",
    ),
    plain(
        "MAX_CONCURRENT_REQUESTS",
        "4096",
        "requests in progress above which the next is answered 503 at once",
    ),
    plain(
        "REDIS_SCOPE",
        "https://redis.azure.com/.default",
        "scope of the token",
    ),
    unset(
        "REDIS_USERNAME",
        "user name for AUTH; default the token's oid claim, for tokens without one",
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
        "password of that file, where it has one",
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
    plain("RUST_LOG", "info", "what is logged, as tracing directives"),
    plain(
        "DRAIN_DELAY",
        "5s",
        "wait between not ready and not accepting, for load balancers to notice; may be 0s",
    ),
    plain(
        "DRAIN_TIMEOUT",
        "20s",
        "limit for open requests to finish after that",
    ),
];

/// The variable of this name, if it is one of ours.
pub(super) fn known(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}
