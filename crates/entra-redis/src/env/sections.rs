//! The sections: the variables that envy reads for each, and their typed values, checked against each other.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    Auth, ClusteringPolicy, CredentialChoice, CredentialName, Environment, Identity,
    IdentityEndpoint, Redis, Roots, Warning, parse, parser::Parser, variables::VARIABLES,
};
use crate::{endpoint, secret::Secret};

/// Reads all sections; `None` in place of the connection's settings if there is no valid endpoint, which is a fault.
pub fn read(
    parser: &mut Parser<'_>,
    environment: &Environment,
    warnings: &mut Vec<Warning>,
) -> (Option<Redis>, Identity) {
    warnings.extend(unknown_variables(environment));
    let identity = identity(parser, environment.section());
    let roots = identity.roots.clone();
    let redis = redis(parser, environment.section(), roots, warnings);
    if redis
        .as_ref()
        .is_some_and(|redis| redis.auth == Auth::Entra)
    {
        check_named_credential(parser, &identity);
    }
    (redis, identity)
}

// For envy every field is optional text, so that reading a section cannot fail and our own parser can report every fault
// instead of the first. The field names are the variables' names.

#[derive(Deserialize)]
pub(super) struct RedisVariables {
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
pub(super) struct IdentityVariables {
    ssl_cert_file: Option<String>,
    ssl_cert_dir: Option<String>,
    redis_scope: Option<String>,
    redis_username: Option<String>,
    azure_token_credentials: Option<String>,
    azure_tenant_id: Option<String>,
    azure_client_id: Option<String>,
    azure_client_secret: Option<String>,
    azure_client_certificate_path: Option<String>,
    azure_client_certificate_password: Option<String>,
    azure_federated_token_file: Option<String>,
    azure_authority_host: Option<String>,
    identity_endpoint: Option<String>,
    identity_header: Option<String>,
}

pub(super) fn redis(
    parser: &mut Parser<'_>,
    raw: RedisVariables,
    roots: Roots,
    warnings: &mut Vec<Warning>,
) -> Option<Redis> {
    if raw.redis_endpoint.is_none() && !parser.has_fault("REDIS_ENDPOINT") {
        parser.fault(
            "REDIS_ENDPOINT",
            None,
            "host[:port] of the cache, such as NAME.REGION.redis.azure.net",
        );
    }
    let endpoint = parser.optional("REDIS_ENDPOINT", raw.redis_endpoint, endpoint::parse);
    let clustering_policy = parser.defaulted(
        "REDIS_CLUSTERING_POLICY",
        raw.redis_clustering_policy,
        clustering_policy,
    );
    let tls = parser.defaulted("REDIS_TLS", raw.redis_tls, parse::boolean);
    let auth = auth(parser, raw.redis_auth, raw.redis_key, tls, warnings);
    let ca_file = parser.optional("REDIS_CA_FILE", raw.redis_ca_file, parse::certificates);
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

/// Parses `REDIS_AUTH` with the key that belongs to it, and checks it against `REDIS_TLS`.
fn auth(
    parser: &mut Parser<'_>,
    raw: Option<String>,
    key: Option<String>,
    tls: bool,
    warnings: &mut Vec<Warning>,
) -> Auth {
    // First parsed into `AuthName`, because `key` is complete only with REDIS_KEY.
    let name = parser.defaulted("REDIS_AUTH", raw, auth_name);
    let key = key.map(Secret::new);
    if key.is_some() && name != AuthName::Key {
        warnings.push(Warning::UnusedKey);
    }
    match name {
        AuthName::Entra => {
            if !tls {
                parser.fault(
                    "REDIS_TLS",
                    Some("`false`".to_owned()),
                    "true while REDIS_AUTH is entra: a token must not be sent unencrypted",
                );
            }
            Auth::Entra
        }
        AuthName::Key => access_key(parser, key).map_or(Auth::None, Auth::Key),
        AuthName::None => Auth::None,
    }
}

/// Checks the access key that `REDIS_AUTH=key` needs.
fn access_key(parser: &mut Parser<'_>, key: Option<Secret>) -> Option<Secret> {
    let Some(key) = key else {
        parser.fault(
            "REDIS_KEY",
            None,
            "the access key, because REDIS_AUTH is key",
        );
        return None;
    };
    if parse::is_token(key.expose()) {
        parser.fault(
            "REDIS_KEY",
            Some("(a token)".to_owned()),
            "the cache's access key: a token expires within hours and would not be renewed; unset REDIS_AUTH and REDIS_KEY, and the service gets its own",
        );
        return None;
    }
    Some(key)
}

pub(super) fn identity(parser: &mut Parser<'_>, raw: IdentityVariables) -> Identity {
    Identity {
        choice: parser
            .optional(
                "AZURE_TOKEN_CREDENTIALS",
                raw.azure_token_credentials,
                credential_choice,
            )
            .unwrap_or(CredentialChoice::Any),
        tenant_id: parser.optional("AZURE_TENANT_ID", raw.azure_tenant_id, parse::tenant),
        client_id: parser.optional("AZURE_CLIENT_ID", raw.azure_client_id, parse::guid),
        client_secret: raw.azure_client_secret.map(Secret::new),
        client_certificate: raw.azure_client_certificate_path.map(PathBuf::from),
        client_certificate_password: raw.azure_client_certificate_password.map(Secret::new),
        federated_token_file: raw.azure_federated_token_file.map(PathBuf::from),
        authority_host: parser.defaulted(
            "AZURE_AUTHORITY_HOST",
            raw.azure_authority_host,
            parse::authority,
        ),
        identity_endpoint: match (raw.identity_endpoint, raw.identity_header) {
            (Some(_), Some(_)) => IdentityEndpoint::Complete,
            (Some(_), None) => IdentityEndpoint::WithoutHeader,
            (None, _) => IdentityEndpoint::Unset,
        },
        scope: parser.defaulted("REDIS_SCOPE", raw.redis_scope, parse::scope),
        username: parser.optional("REDIS_USERNAME", raw.redis_username, parse::user_name),
        roots: Roots {
            file: parser.optional("SSL_CERT_FILE", raw.ssl_cert_file, parse::certificates),
            directory: parser.optional("SSL_CERT_DIR", raw.ssl_cert_dir, parse::directory),
        },
    }
}

/// Checks that a credential selected by name has its variables: without them, requests would fail forever.
pub(super) fn check_named_credential(parser: &mut Parser<'_>, identity: &Identity) {
    let CredentialChoice::Only(name) = identity.choice else {
        return;
    };
    let mut need = |variable, is_set: bool, expected| {
        if !is_set {
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
                identity.client_secret.is_some() || identity.client_certificate.is_some(),
                "a value, or AZURE_CLIENT_CERTIFICATE_PATH, because AZURE_TOKEN_CREDENTIALS is EnvironmentCredential",
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
        // Managed identity may be IMDS, which no variable configures; the command-line tools have their own login.
        CredentialName::ManagedIdentityCredential
        | CredentialName::AzureCliCredential
        | CredentialName::AzureDeveloperCliCredential => {}
    }
}

/// Returns warnings for variables that look like ours and are not known.
pub(super) fn unknown_variables(environment: &Environment) -> Vec<Warning> {
    // Kubernetes sets these where a Service is called `redis` ("Discovering services").
    let from_kubernetes =
        |name: &str| name.starts_with("REDIS_SERVICE_") || name.starts_with("REDIS_PORT");
    environment
        .values
        .keys()
        .filter(|name| {
            name.starts_with("REDIS_") && VARIABLES.iter().all(|known| known.name != name.as_str())
        })
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
