//! The address of a cache or of a node: host and port, with Azure's default ports.

use std::fmt;

use crate::secret::quoted;

/// A description of valid values: the rest of "expected …".
type Expected = &'static str;

/// Ports of Azure's endpoints by the host's suffix: Azure Managed Redis first, Azure Cache for Redis after it.
/// Source: `sample/Sample.cs` of Microsoft.Azure.StackExchangeRedis.
const PORTS_BY_SUFFIX: &[(&str, u16)] = &[
    (".redis.azure.net", 10000),
    (".redis.chinacloudapi.cn", 10000),
    (".redis.usgovcloudapi.net", 10000),
    (".redis.sovcloud-api.fr", 10000),
    (".redis.sovcloud-api.de", 10000),
    (".redis.sovcloud-api.sg", 10000),
    (".redis.cache.windows.net", 6380),
    (".redis.cache.chinacloudapi.cn", 6380),
    (".redis.cache.usgovcloudapi.net", 6380),
];

/// A host name and a port. Certificates are checked against the host name of the cache's endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Returns an address that a cluster announced for one of its nodes, unchecked.
    pub(crate) fn announced(host: &str, port: u16) -> Self {
        Self {
            host: host.to_ascii_lowercase(),
            port,
        }
    }

    /// Returns the DNS name or IP address, in lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A text that is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid endpoint {found}, expected {expected}")]
pub struct InvalidEndpoint {
    found: String,
    expected: Expected,
}

impl InvalidEndpoint {
    /// Returns a description of valid endpoints.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

impl std::str::FromStr for Endpoint {
    type Err = InvalidEndpoint;

    /// Parses `host[:port]` by the rules of `REDIS_ENDPOINT`: only the host names of Azure have a default port.
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        parse(text).map_err(|expected| InvalidEndpoint {
            found: quoted(text, false),
            expected,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Parses `host[:port]`; a missing port is that of Azure's suffix.
pub(crate) fn parse(text: &str) -> Result<Endpoint, Expected> {
    if text.contains("://") {
        return Err(
            "host[:port] only: remove the scheme (`rediss://`) and everything after the port",
        );
    }
    if text.contains([',', '=', '@', ';']) && text.contains('.') {
        return Err(
            "host[:port] only: this looks like a connection string; remove options, user and password",
        );
    }
    let expected = "host[:port], such as NAME.REGION.redis.azure.net";
    let (host, port) = split_port(text).ok_or(expected)?;
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if !is_host(&host) {
        return Err(expected);
    }
    let port = match port {
        Some(port) => port
            .parse()
            .ok()
            .filter(|number: &u16| *number != 0 && number.to_string() == port)
            .ok_or("a port from 1 to 65535 after the host")?,
        None => PORTS_BY_SUFFIX
            .iter()
            .find(|(suffix, _)| host.ends_with(suffix))
            .map(|(_, port)| *port)
            .ok_or("host:port: only Azure's own host names have a default port")?,
    };
    Ok(Endpoint { host, port })
}

/// Splits host and port; an IPv6 address must be in brackets.
pub(crate) fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

pub(crate) fn is_host(host: &str) -> bool {
    rustls::pki_types::ServerName::try_from(host).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_azures_ports_and_other_texts_are_errors() {
        let good = [
            (
                "cache.westeurope.redis.azure.net",
                "cache.westeurope.redis.azure.net",
                10000,
            ),
            (
                "Cache.WestEurope.Redis.Azure.net.",
                "cache.westeurope.redis.azure.net",
                10000,
            ),
            (
                "cache.redis.cache.windows.net",
                "cache.redis.cache.windows.net",
                6380,
            ),
            (
                "cache.x.redis.chinacloudapi.cn",
                "cache.x.redis.chinacloudapi.cn",
                10000,
            ),
            (
                "cache.redis.cache.chinacloudapi.cn",
                "cache.redis.cache.chinacloudapi.cn",
                6380,
            ),
            ("localhost:6379", "localhost", 6379),
            ("[::1]:6379", "::1", 6379),
            ("10.0.0.4:10000", "10.0.0.4", 10000),
        ];
        for (text, host, port) in good {
            let endpoint = parse(text).expect(text);
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
        }
        for wrong in [
            "localhost",
            "localhost:0",
            "localhost:port",
            "localhost:70000",
            "::1:6379",
            "[::1]6379",
            "cache.redis.azure.net..",
            "localhost:+6379",
            "localhost:06379",
            "",
            ":6379",
            "rediss://localhost:6379",
            "cache.redis.azure.net:10000,password=x,ssl=True",
            "user@host:6379",
            "two words:1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
