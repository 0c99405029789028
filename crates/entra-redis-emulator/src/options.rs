//! The settings of an emulator.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::FederatedCredential;

/// The clustering policy of the endpoint, by Azure's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusteringPolicy {
    /// The policy of the server behind the proxy: `OSSCluster` if it is a node of a cluster, else `NoCluster`.
    #[default]
    OfServer,
    /// `EnterpriseCluster`: one endpoint that hides its shards. The server behind the proxy must not be a cluster, because
    /// the proxy routes nothing.
    EnterpriseCluster,
}

/// The settings of an [`Emulator`](crate::Emulator).
///
/// The default listens on loopback, on free ports, issues tokens for a minute, and has the store in memory behind the
/// proxy.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address of all listeners.
    pub host: IpAddr,
    /// The name by which clients on other machines reach the emulator, such as a Kubernetes Service's. `None` if all
    /// clients run on this machine.
    pub host_name: Option<String>,
    /// Port of the managed identity endpoints, HTTP; 0 for any free one.
    pub identity_port: u16,
    /// Port of the tenant's token endpoint, HTTPS; 0 for any free one.
    pub authority_port: u16,
    /// Port of the proxy before Redis, TLS; 0 for any free one.
    pub redis_port: u16,
    /// Lifetime of issued tokens: whole seconds, at least one.
    pub token_lifetime: Duration,
    /// A real Redis server behind the proxy, `host:port`, without TLS and password. `None` for the store in memory.
    ///
    /// If it is a node of a cluster, each node gets a proxy of its own, on port 8500 and the free ones after it, and every
    /// address in a reply is that of a proxy.
    pub redis: Option<String>,
    /// The clustering policy of the endpoint.
    pub clustering_policy: ClusteringPolicy,
    /// The issuer and subject whose assertions are exchanged for a token. `None` for the emulator's own, which
    /// `AZURE_FEDERATED_TOKEN_FILE` names.
    pub federated_credential: Option<FederatedCredential>,
    /// A PEM file with the certificate (RSA) by which the application can authenticate. `None` for no such certificate.
    pub client_certificate: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            host_name: None,
            identity_port: 0,
            authority_port: 0,
            redis_port: 0,
            token_lifetime: Duration::from_secs(60),
            redis: None,
            clustering_policy: ClusteringPolicy::default(),
            federated_credential: None,
            client_certificate: None,
        }
    }
}
