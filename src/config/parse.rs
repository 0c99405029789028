//! Parsers of the service's values, beside those of the library. Each returns the value or a description of what was
//! expected; it does not know the variable's name and never quotes the text, which may be a secret.

use std::time::Duration;

pub(super) use entra_redis::env::parse::*;

/// Parses a port; 0 selects a free one.
pub(super) fn port(text: &str) -> Result<u16, Expected> {
    text.parse().map_err(|_| "a port from 0 to 65535")
}

/// Parses an IP address to listen on.
pub(super) fn ip_address(text: &str) -> Result<std::net::IpAddr, Expected> {
    text.parse()
        .map_err(|_| "an IP address such as 0.0.0.0, 127.0.0.1 or ::")
}

/// Parses a limit.
pub(super) fn count(text: &str) -> Result<usize, Expected> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("a whole number from 1 to 1000000"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_the_reported_fault() {
        let expected = "a URL without user and password";
        assert_eq!(collector("http://user:pass@collector"), Err(expected));
    }
}
