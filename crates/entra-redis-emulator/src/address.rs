//! The addresses at which clients on this machine reach a listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the address at which a listener bound to `ip` is reached: loopback if it is bound to every address.
pub(crate) fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Returns an address as it is written in a URL.
pub(crate) fn in_url(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Returns the name under which a listener bound to `ip` is reached: `localhost`, or the address itself.
pub(crate) fn name(ip: IpAddr) -> String {
    if ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST {
        "localhost".to_owned()
    } else {
        in_url(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_an_address_and_a_name() {
        for (bound, address, expected) in [
            ("127.0.0.1", "127.0.0.1", "localhost"),
            ("0.0.0.0", "127.0.0.1", "localhost"),
            ("::", "[::1]", "localhost"),
            ("::1", "[::1]", "[::1]"),
            ("10.0.0.4", "10.0.0.4", "10.0.0.4"),
            ("fd00::4", "[fd00::4]", "[fd00::4]"),
        ] {
            let bound: IpAddr = bound.parse().expect("an address");
            assert_eq!(in_url(reachable(bound)), address);
            assert_eq!(name(bound), expected);
        }
    }
}
