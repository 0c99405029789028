//! The options that `dev` and `emulate` share.

use std::{io, net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::config::{self, Endpoint};

use entra_redis_emulator as emulator;

use entra_redis_emulator::{ClusteringPolicy, FederatedCredential, KeySource};

/// Options of both commands.
#[derive(Args)]
pub(super) struct EmulatorOptions {
    /// Lifetime of tokens, such as 5s or 2m; at least 1s
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = lifetime)]
    pub(super) token_lifetime: Duration,
    /// A real Redis behind the emulated proxy, without TLS or password; default: an in-memory store
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(super) redis: Option<String>,
    /// Clustering policy of the emulated Redis, by Azure's name; default: that of the server behind it
    #[arg(long, value_name = "POLICY", value_parser = clustering_policy())]
    clustering_policy: Option<ClusteringPolicy>,
    #[command(flatten)]
    federated: Option<Federated>,
    /// Certificate of the application (PEM, RSA): assertions signed with its key are exchanged for tokens
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
}

/// A federated identity credential: all three or none.
#[derive(Args)]
#[group(requires_all = ["issuer", "subject", "keys"])]
struct Federated {
    /// Issuer of the assertions to accept instead of the emulator's own, such as a Kubernetes cluster
    #[arg(long = "federated-issuer", value_name = "URL", required = false)]
    issuer: String,
    /// Required subject of these assertions, such as system:serviceaccount:default:app
    #[arg(long = "federated-subject", value_name = "SUBJECT", required = false)]
    subject: String,
    /// Keys of the issuer: a JSON Web Key Set, as from kubectl get --raw /openid/v1/jwks
    #[arg(long = "federated-keys", value_name = "FILE|URL", required = false)]
    keys: KeySource,
}

impl EmulatorOptions {
    /// Returns the emulator's options for listeners on `host`.
    pub(super) fn on(&self, host: IpAddr) -> emulator::Options {
        emulator::Options {
            host,
            token_lifetime: self.token_lifetime,
            redis: self.redis.clone(),
            clustering_policy: self.clustering_policy.unwrap_or_default(),
            federated_credential: self
                .federated
                .as_ref()
                .map(|federated| FederatedCredential {
                    issuer: federated.issuer.clone(),
                    subject: federated.subject.clone(),
                    keys: federated.keys.clone(),
                }),
            client_certificate: self.client_certificate.clone(),
            ..Default::default()
        }
    }
}

/// Returns the port of `address` if another program listens there.
pub(super) fn port_in_use(address: SocketAddr, error: &io::Error) -> Option<u16> {
    (error.kind() == io::ErrorKind::AddrInUse).then_some(address.port())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match config::duration(text) {
        Ok(lifetime) if lifetime >= Duration::from_secs(1) => Ok(lifetime),
        Ok(_) => {
            Err("expected at least 1s: the lifetime of a token is in whole seconds".to_owned())
        }
        Err(expected) => Err(format!("expected {expected}")),
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => Ok(endpoint.to_string()),
        Err(error) => Err(format!("expected {}", error.expected())),
    }
}

/// Parses the one policy that the emulator does not take over from the server behind it.
fn clustering_policy() -> impl TypedValueParser<Value = ClusteringPolicy> {
    PossibleValuesParser::new(["EnterpriseCluster"]).map(|_| ClusteringPolicy::EnterpriseCluster)
}
