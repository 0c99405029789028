//! The library's table of variables: name, default, meaning.
//!
//! The parser takes its defaults from the table, and `entra-redis config` and the README show it, so that they cannot differ.

/// An environment variable.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Variable {
    /// The name.
    pub name: &'static str,
    /// The value that applies when the variable is unset or empty, as one would write it.
    pub default: Option<&'static str>,
    /// The purpose, in one line.
    pub meaning: &'static str,
    /// True if the value must be hidden wherever it would be shown.
    pub secret: bool,
}

impl Variable {
    /// Returns a row with a default.
    #[doc(hidden)]
    pub const fn plain(name: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            default: Some(default),
            meaning,
            secret: false,
        }
    }

    /// Returns a row without a default.
    #[doc(hidden)]
    pub const fn unset(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            default: None,
            meaning,
            secret: false,
        }
    }

    /// Returns a row whose value is hidden.
    #[doc(hidden)]
    pub const fn secret(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            default: None,
            meaning,
            secret: true,
        }
    }
}

/// Every variable that the library reads.
pub const VARIABLES: &[Variable] = &[
    Variable::unset(
        "REDIS_ENDPOINT",
        "host[:port] of the cache; without a port 10000 for *.redis.azure.net and the sovereign suffixes, 6380 for *.redis.cache.*; required",
    ),
    Variable::plain(
        "REDIS_CLUSTERING_POLICY",
        "Auto",
        "Auto, OSSCluster, EnterpriseCluster or NoCluster",
    ),
    Variable::plain("REDIS_AUTH", "entra", "entra, key (with REDIS_KEY) or none"),
    Variable::plain(
        "REDIS_TLS",
        "true",
        "true or false; false is refused together with entra",
    ),
    Variable::secret("REDIS_KEY", "access key, with REDIS_AUTH=key"),
    Variable::unset(
        "REDIS_CA_FILE",
        "PEM file of certificate authorities trusted for Redis in addition to the system's",
    ),
    Variable::unset(
        "SSL_CERT_FILE",
        "PEM file that replaces the system's certificate authorities, for the token endpoint too",
    ),
    Variable::unset(
        "SSL_CERT_DIR",
        "directory that replaces the system's certificate authorities, for the token endpoint too",
    ),
    Variable::plain(
        "REDIS_POOL_SIZE",
        "2",
        "shared connections, with OSSCluster to each primary; 1 to 256",
    ),
    Variable::plain(
        "REDIS_CONNECT_TIMEOUT",
        "5s",
        "timeout for TCP, TLS and authentication of one connection together",
    ),
    Variable::plain(
        "REDIS_COMMAND_TIMEOUT",
        "1s",
        "timeout of one command, and of its wait to be sent",
    ),
    Variable::plain(
        "REDIS_SCOPE",
        "https://redis.azure.com/.default",
        "scope of the token",
    ),
    Variable::unset(
        "REDIS_USERNAME",
        "user name for AUTH, for tokens without an oid claim; default: the token's oid claim",
    ),
    Variable::unset(
        "AZURE_TOKEN_CREDENTIALS",
        "prod, dev, or one credential by name; unset: the first that is configured",
    ),
    Variable::unset("AZURE_TENANT_ID", "tenant, as in every Azure SDK"),
    Variable::unset(
        "AZURE_CLIENT_ID",
        "application, or the user-assigned managed identity",
    ),
    Variable::secret("AZURE_CLIENT_SECRET", "secret of the service principal"),
    Variable::unset(
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "PEM or PFX file with the service principal's certificate and private key, instead of a secret",
    ),
    Variable::secret(
        "AZURE_CLIENT_CERTIFICATE_PASSWORD",
        "password of that file, if it has one",
    ),
    Variable::unset(
        "AZURE_FEDERATED_TOKEN_FILE",
        "service-account token; set by the workload identity webhook",
    ),
    Variable::plain(
        "AZURE_AUTHORITY_HOST",
        "https://login.microsoftonline.com/",
        "Entra ID's address; https only",
    ),
    Variable::unset(
        "IDENTITY_ENDPOINT",
        "managed identity endpoint; set by Container Apps and App Service",
    ),
    Variable::secret(
        "IDENTITY_HEADER",
        "set by Container Apps and App Service together with IDENTITY_ENDPOINT",
    ),
];
