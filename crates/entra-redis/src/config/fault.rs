//! Faults of an environment, and the parser that collects all of them.

use std::fmt;

use super::variables::{VARIABLES, known};

/// A variable with an unusable value: the value found and the value expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable's name.
    pub variable: &'static str,
    /// The value found; `None` when the variable is not set; hidden when it is a secret.
    pub found: Option<String>,
    /// A description of valid values.
    pub expected: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            found,
            expected,
        } = self;
        match found {
            Some(found) => write!(f, "{variable}: invalid value {found}, expected {expected}"),
            None => write!(f, "{variable}: not set, expected {expected}"),
        }
    }
}

/// All faults of one environment.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    pub(super) faults: Vec<Fault>,
}

impl Error {
    /// Returns the faults, in the order of [`Config::variables`](super::Config::variables).
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for Error {
    /// One line per fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// A setting that looks like a mistake and does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A variable with our prefix that is not known.
    UnknownVariable(String),
    /// `REDIS_KEY` is set though `REDIS_AUTH` is not `key`.
    UnusedKey,
    /// This variable enables an export without an endpoint.
    NoOtlpEndpoint(&'static str),
    /// `REDIS_COMMAND_TIMEOUT` is not below `REQUEST_TIMEOUT`.
    CommandOutlastsRequest,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariable(name) => {
                write!(f, "{name} is set, but no variable of this name is known")
            }
            Self::UnusedKey => {
                f.write_str("REDIS_KEY is set but ignored, because REDIS_AUTH is not `key`")
            }
            Self::NoOtlpEndpoint(name) => write!(
                f,
                "{name} is otlp but nothing is exported, because OTEL_EXPORTER_OTLP_ENDPOINT is not set"
            ),
            Self::CommandOutlastsRequest => f.write_str(
                "REDIS_COMMAND_TIMEOUT is not below REQUEST_TIMEOUT: requests time out before an unresponsive connection is detected",
            ),
        }
    }
}

/// The text shown instead of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// The longest part of a value that is quoted, in characters.
const MAX_QUOTED: usize = 100;

/// Returns whether a value, perhaps pasted into the wrong variable, could be a secret: a connection string, a URL with a
/// password, a token, or a word like a key or a client secret (20 characters and more, of all three kinds).
pub(super) fn may_hold_a_secret(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    if lower.contains('@') || lower.contains("password=") || lower.contains("key=") {
        return true;
    }
    let is_of_a_word = |c: char| c.is_ascii_alphanumeric() || "+=_~-".contains(c);
    value.split(|c| !is_of_a_word(c)).any(|word| {
        let has = |kind: fn(&char) -> bool| word.chars().any(|c| kind(&c));
        word.len() >= 20
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit)
    })
}

/// Returns a value for display: on one line, of bounded length, hidden where it may contain a secret.
pub(super) fn repeated(value: &str, is_secret: bool) -> String {
    if is_secret || may_hold_a_secret(value) {
        return HIDDEN.to_owned();
    }
    let mut text: String = value
        .chars()
        .take(MAX_QUOTED)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(MAX_QUOTED).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}

/// Parses values and collects the faults.
pub(super) struct Parser {
    pub(super) faults: Vec<Fault>,
}

impl Parser {
    /// Parses a variable that may be unset.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        raw: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        let raw = raw?;
        match parse(&raw) {
            Ok(value) => Some(value),
            Err(expected) => {
                let hidden = known(name).is_some_and(|variable| variable.secret);
                self.fault(name, Some(repeated(&raw, hidden)), expected);
                None
            }
        }
    }

    /// Parses a variable with a default in the table; after a fault, continues with the default.
    pub(super) fn defaulted<T>(
        &mut self,
        name: &'static str,
        raw: Option<String>,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> T {
        self.optional(name, raw, &parse).unwrap_or_else(|| {
            let default = known(name).and_then(|variable| variable.default);
            match parse(default.expect("the table has a default for it")) {
                Ok(value) => value,
                Err(expected) => {
                    unreachable!("the default of {name} is invalid, expected {expected}")
                }
            }
        })
    }

    pub(super) fn fault(
        &mut self,
        variable: &'static str,
        found: Option<String>,
        expected: &'static str,
    ) {
        self.faults.push(Fault {
            variable,
            found,
            expected,
        });
    }

    pub(super) fn into_error(mut self) -> Error {
        let position = |fault: &Fault| VARIABLES.iter().position(|v| v.name == fault.variable);
        self.faults.sort_by_key(position);
        Error {
            faults: self.faults,
        }
    }
}
