//! Parsers of values: one function per format. Each returns the value or a description of what was expected; it does not
//! know the variable's name and never quotes the text, which may be a secret.

use std::time::Duration;

use crate::tls::{self, CaCertificates};

/// A description of valid values: the rest of "expected …".
pub(super) type Expected = &'static str;

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

/// Parses `500ms`, `5s` or `2m`, the format of durations in every variable and flag; zero is an error.
///
/// # Errors
/// A description of valid values.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    let expected = "a duration above zero such as 500ms, 5s or 2m";
    match duration_or_zero(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(expected),
    }
}

/// Parses a duration like [`duration`], or zero.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, Expected> {
    let expected = "a duration such as 0s, 500ms, 5s or 2m";
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(expected)?;
    let (number, unit) = text.split_at(digits);
    // No timeout here is longer than a day; the bound keeps later sums of durations far from overflow.
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let number: u64 = number.parse().map_err(|_| expected)?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60 * 1000),
        _ => return Err(expected),
    };
    milliseconds
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or("a duration of at most a day")
}

/// Parses a port; 0 selects a free one.
pub(super) fn port(text: &str) -> Result<u16, Expected> {
    text.parse().map_err(|_| "a port from 0 to 65535")
}

/// Parses an IP address to listen on.
pub(super) fn ip_address(text: &str) -> Result<std::net::IpAddr, Expected> {
    text.parse()
        .map_err(|_| "an IP address such as 0.0.0.0, 127.0.0.1 or ::")
}

/// Returns whether a text looks like a JSON Web Token (RFC 7519): three parts, the first an object in base64.
pub(super) fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}

/// Parses a user name of Redis. A token pasted here would be shown: in the log, by `doctor`, on the admin port.
pub(super) fn user_name(text: &str) -> Result<String, Expected> {
    if is_token(text) {
        return Err(
            "a user name, such as an object id, and not a token; unset, the token's own oid claim is used",
        );
    }
    Ok(text.to_owned())
}

/// Parses `true` or `false`, in any letter case.
pub(super) fn boolean(text: &str) -> Result<bool, Expected> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false"),
    }
}

/// Parses a number of connections.
pub(super) fn pool_size(text: &str) -> Result<usize, Expected> {
    match text.parse() {
        Ok(size @ 1..=256) => Ok(size),
        _ => Err("a whole number from 1 to 256"),
    }
}

/// Parses a limit.
pub(super) fn count(text: &str) -> Result<usize, Expected> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("a whole number from 1 to 1000000"),
    }
}

/// Returns the text as it is.
pub(super) fn text(text: &str) -> Result<String, Expected> {
    Ok(text.to_owned())
}

/// Parses one of the names in `choices`, in any letter case.
pub(super) fn choice<T: Copy>(
    text: &str,
    choices: &[(&str, T)],
    expected: Expected,
) -> Result<T, Expected> {
    choices
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, value)| *value)
        .ok_or(expected)
}

/// Parses the URL of an authority that issues tokens: https, as azure_identity requires.
pub(super) fn authority(text: &str) -> Result<String, Expected> {
    let expected = "an https URL such as https://login.microsoftonline.com/";
    if !text.contains('?') && is_url(text, &["https"])? {
        Ok(text.to_owned())
    } else {
        Err(expected)
    }
}

/// Parses the URL of a telemetry collector.
pub(super) fn collector(text: &str) -> Result<String, Expected> {
    if is_url(text, &["http", "https"])? {
        Ok(text.to_owned())
    } else {
        Err("an http:// or https:// URL such as http://collector:4318")
    }
}

/// Parses the URL of a collector of all signals, each of which adds a path of its own.
pub(super) fn collector_of_all(text: &str) -> Result<String, Expected> {
    if text.contains('?') {
        return Err("a URL without a query, such as http://collector:4318");
    }
    collector(text)
}

/// Returns whether every library that gets this URL reads it alike, unchanged: they differ in what they encode, correct or
/// reject.
///
/// # Errors
/// The URL contains a user or password: URLs are shown in logs and by `config`.
fn is_url(text: &str, schemes: &[&str]) -> Result<bool, Expected> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(false);
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("a URL without user and password");
    }
    let is_url_char = |c: char| c.is_ascii_graphic() && !"\"#<>\\^`{|}".contains(c);
    let is_port = |port: &str| port.parse().is_ok_and(|port: u16| port != 0);
    Ok(schemes
        .iter()
        .any(|known| known.eq_ignore_ascii_case(scheme))
        && rest.chars().all(is_url_char)
        && split_port(authority)
            .is_some_and(|(host, port)| is_host(host) && port.is_none_or(is_port))
        && azure_core::http::Url::parse(text).is_ok())
}

/// Parses a duration in the format of OpenTelemetry's variables.
pub(super) fn milliseconds(text: &str) -> Result<Duration, Expected> {
    match text.parse() {
        Ok(number @ 1..=86_400_000) => Ok(Duration::from_millis(number)),
        _ => Err("a whole number of milliseconds from 1 to 86400000"),
    }
}

/// Parses a fraction.
pub(super) fn share(text: &str) -> Result<f64, Expected> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0.0 to 1.0"),
    }
}

/// Checks `name=value,name=value`.
pub(super) fn attributes(text: &str) -> Result<(), Expected> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let mut pairs = pairs.map(|pair| pair.split_once('='));
    if pairs.all(|pair| pair.is_some_and(|(name, _)| !name.trim().is_empty())) {
        Ok(())
    } else {
        Err("name=value,name=value")
    }
}

/// Checks `name=value,name=value` with valid names of HTTP headers.
pub(super) fn headers(text: &str) -> Result<(), Expected> {
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let is_name = |name: &str| !name.is_empty() && name.chars().all(is_name_char);
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let mut pairs = pairs.map(|pair| pair.split_once('='));
    if pairs.all(|pair| pair.is_some_and(|(name, _)| is_name(name.trim()))) {
        Ok(())
    } else {
        Err("name=value,name=value, with names of HTTP headers and values percent-encoded")
    }
}

/// Parses the scope of a token.
pub(super) fn scope(text: &str) -> Result<String, Expected> {
    if text.ends_with("/.default") && !text.contains(char::is_whitespace) {
        Ok(text.to_owned())
    } else {
        Err("one scope that ends in /.default")
    }
}

/// Parses a tenant: its id or one of its domains, as azure_identity accepts them.
pub(super) fn tenant(text: &str) -> Result<String, Expected> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match guid(text) {
        Ok(tenant) => Ok(tenant),
        Err(_) if text.contains('.') && text.split('.').all(is_part) => Ok(text.to_owned()),
        Err(_) => Err("a tenant id (a GUID) or a domain of the tenant"),
    }
}

/// Parses 8-4-4-4-12 hexadecimal digits.
pub(super) fn guid(text: &str) -> Result<String, Expected> {
    let parts: Vec<_> = text.split('-').collect();
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    let is_hexadecimal = |part: &&str| part.bytes().all(|b| b.is_ascii_hexdigit());
    if lengths == [8, 4, 4, 4, 12] && parts.iter().all(is_hexadecimal) {
        Ok(text.to_owned())
    } else {
        Err("a GUID such as 00000000-0000-0000-0000-000000000000")
    }
}

/// Reads a PEM file of certificate authorities.
pub(super) fn certificates(text: &str) -> Result<CaCertificates, Expected> {
    CaCertificates::from_file(text).map_err(|error| match error {
        tls::Error::Unreadable { .. } => "the path of a file of at most 4 MiB that can be read",
        tls::Error::Malformed { .. } => "a PEM file in which every certificate can be read",
        _ => "a PEM file with at least one certificate",
    })
}

/// Reads a directory of PEM files of certificate authorities.
pub(super) fn directory(text: &str) -> Result<CaCertificates, Expected> {
    CaCertificates::from_directory(text).map_err(|error| match error {
        tls::Error::Unreadable { .. } => "the path of a directory that can be read",
        _ => "a directory with at least one PEM certificate",
    })
}

/// Parses `host[:port]`; a missing port is that of Azure's suffix.
pub(super) fn endpoint(text: &str) -> Result<super::Endpoint, Expected> {
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
    Ok(super::Endpoint { host, port })
}

/// Splits host and port; an IPv6 address must be in brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
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

fn is_host(host: &str) -> bool {
    rustls::pki_types::ServerName::try_from(host).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        for wrong in [
            "",
            "5",
            "s",
            "5 s",
            "-1s",
            "0s",
            "1.5s",
            "5h",
            "5S",
            "99999999999999999999s",
            "18446744073709551615m",
            "25000m",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_the_reported_fault() {
        let expected = "a URL without user and password";
        assert_eq!(collector("http://user:pass@collector"), Err(expected));
        assert_eq!(authority("https://user@login.example/"), Err(expected));
    }

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
            let endpoint = endpoint(text).expect(text);
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
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
