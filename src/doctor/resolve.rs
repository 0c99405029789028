//! DNS: the addresses of the endpoint.

use std::net::{IpAddr, SocketAddr};

use super::examination::{Checked, Failed, Passed};
use crate::config::Config;
use entra_redis::{
    diagnostics::{self, Error, Fault},
    error_chain::ErrorChain,
};

/// Resolves the name of the endpoint.
pub(super) async fn check(config: &Config) -> Checked<Vec<SocketAddr>> {
    let host = config.redis.endpoint.host();
    let resolved = diagnostics::resolve(&config.redis).await;
    let addresses = resolved.map_err(|error| explain(&error))?.addresses;
    let shown: Vec<_> = addresses
        .iter()
        .map(|address| format!("{} ({})", address.ip(), kind(address.ip())))
        .collect();
    let observed = format!("{host} resolves to {}", shown.join(", "));
    if host.contains(".privatelink.") {
        let public = host.replace(".privatelink.", ".");
        return Ok(Passed::warned(
            observed,
            "this is the DNS alias of the private endpoint; the certificate is not valid for it",
            format!("set REDIS_ENDPOINT to {public}"),
            addresses,
        ));
    }
    Ok(Passed::new(observed, addresses))
}

fn explain(error: &Error) -> Failed {
    let (cause, fix) = match error.fault() {
        Fault::TimedOut(_) => (
            "the DNS server does not respond",
            "allow outbound UDP and TCP port 53, and check /etc/resolv.conf",
        ),
        _ => (
            "DNS has no address for this name",
            "check REDIS_ENDPOINT: `az redisenterprise show --cluster-name NAME --resource-group RESOURCE_GROUP --query hostName` prints the name; with a private endpoint, link the zone privatelink.redis.azure.net to this network",
        ),
    };
    Failed::new(ErrorChain(error), cause, fix)
}

/// Returns the scope of an address.
fn kind(address: IpAddr) -> &'static str {
    match address {
        address if address.is_loopback() => "this machine",
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => "private",
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => "private",
        _ => "public",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_this_machines_private_or_public() {
        for (address, expected) in [
            ("127.0.0.9", "this machine"),
            ("::1", "this machine"),
            ("10.1.2.3", "private"),
            ("172.16.0.1", "private"),
            ("192.168.0.1", "private"),
            ("169.254.1.1", "private"),
            ("fd00::1", "private"),
            ("fe80::1", "private"),
            ("20.1.2.3", "public"),
            ("172.32.0.1", "public"),
            ("2603:1030::1", "public"),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(kind(parsed), expected, "{address}");
        }
    }
}
