//! Parsers of values: one function per format. Each returns the value or a description of what was expected; it does not
//! know the variable's name and never quotes the text, which may be a secret.

use std::time::Duration;

use crate::{
    endpoint::{is_host, split_port},
    tls::{self, CaCertificates},
};

/// A description of valid values: the rest of "expected …".
pub type Expected = &'static str;

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
pub fn duration_or_zero(text: &str) -> Result<Duration, Expected> {
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

/// Returns whether a text looks like a JSON Web Token (RFC 7519): three parts, the first an object in base64.
pub fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}

/// Parses a user name of Redis. A token pasted here would be shown: in the log, by `doctor`, on the admin port.
pub fn user_name(text: &str) -> Result<String, Expected> {
    if is_token(text) {
        return Err(
            "a user name, such as an object id, and not a token; unset, the token's own oid claim is used",
        );
    }
    Ok(text.to_owned())
}

/// Parses `true` or `false`, in any letter case.
pub fn boolean(text: &str) -> Result<bool, Expected> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false"),
    }
}

/// Parses a number of connections.
pub fn pool_size(text: &str) -> Result<usize, Expected> {
    match text.parse() {
        Ok(size @ 1..=256) => Ok(size),
        _ => Err("a whole number from 1 to 256"),
    }
}

/// Returns the text as it is.
pub fn text(text: &str) -> Result<String, Expected> {
    Ok(text.to_owned())
}

/// Parses one of the names in `choices`, in any letter case.
pub fn choice<T: Copy>(
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
pub fn authority(text: &str) -> Result<String, Expected> {
    let expected = "an https URL such as https://login.microsoftonline.com/";
    if !text.contains('?') && is_url(text, &["https"])? {
        Ok(text.to_owned())
    } else {
        Err(expected)
    }
}

/// Returns whether every library that gets this URL reads it alike, unchanged: they differ in what they encode, correct or
/// reject.
///
/// # Errors
/// The URL contains a user or password: URLs are shown in logs and by `config`.
pub fn is_url(text: &str, schemes: &[&str]) -> Result<bool, Expected> {
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

/// Parses the scope of a token.
pub fn scope(text: &str) -> Result<String, Expected> {
    if text.ends_with("/.default") && !text.contains(char::is_whitespace) {
        Ok(text.to_owned())
    } else {
        Err("one scope that ends in /.default")
    }
}

/// Parses a tenant: its id or one of its domains, as azure_identity accepts them.
pub fn tenant(text: &str) -> Result<String, Expected> {
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
pub fn guid(text: &str) -> Result<String, Expected> {
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
pub fn certificates(text: &str) -> Result<CaCertificates, Expected> {
    CaCertificates::from_file(text).map_err(|error| match error {
        tls::Error::Unreadable { .. } => "the path of a file of at most 4 MiB that can be read",
        tls::Error::Malformed { .. } => "a PEM file in which every certificate can be read",
        _ => "a PEM file with at least one certificate",
    })
}

/// Reads a directory of PEM files of certificate authorities.
pub fn directory(text: &str) -> Result<CaCertificates, Expected> {
    CaCertificates::from_directory(text).map_err(|error| match error {
        tls::Error::Unreadable { .. } => "the path of a directory that can be read",
        _ => "a directory with at least one PEM certificate",
    })
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
        assert_eq!(authority("https://user@login.example/"), Err(expected));
    }
}
