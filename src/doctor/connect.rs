//! TCP: a connection to one of the endpoint's addresses.

use std::net::SocketAddr;

use super::examination::{Checked, Failed, Passed};
use crate::config::Config;
use entra_redis::{
    diagnostics::{self, Connected, Error, Fault},
    error_chain::ErrorChain,
};

/// Connects to the first address that accepts.
pub(super) async fn check(config: &Config, addresses: &[SocketAddr]) -> Checked<Connected> {
    let connected = diagnostics::connect(&config.redis, addresses).await;
    let connected = connected.map_err(|error| explain(&error))?;
    Ok(Passed::new(
        format!("connected to {}", connected.peer),
        connected,
    ))
}

fn explain(error: &Error) -> Failed {
    const ALLOW: &str = "allow outbound traffic to the cache (network policy, firewall, network security group), and check that the cache has a private endpoint in this network or allows public network access";
    let (cause, fix) = match error.fault() {
        Fault::ConnectionRefused => (
            "the host is up, but nothing listens on that port",
            "check the port in REDIS_ENDPOINT: Azure Managed Redis uses 10000, Azure Cache for Redis 6380",
        ),
        Fault::TimedOut(_) => (
            "packets do not reach the cache, or its responses do not come back",
            ALLOW,
        ),
        _ => ("there is no route to that address", ALLOW),
    };
    Failed::new(ErrorChain(error), cause, fix)
}
