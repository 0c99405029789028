//! What is wrong with an environment, and the list in which everything wrong is kept.

use std::fmt;

use super::variables::{VARIABLES, known};

/// One variable that cannot be used: what was met and what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable's name.
    pub variable: &'static str,
    /// The value met; `None` where nothing was set; hidden where it is a secret.
    pub met: Option<String>,
    /// What would have been right.
    pub expected: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            met,
            expected,
        } = self;
        match met {
            Some(met) => write!(f, "{variable}: met {met}, expected {expected}"),
            None => write!(f, "{variable}: not set, expected {expected}"),
        }
    }
}

/// Every fault found in one environment.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    pub(super) faults: Vec<Fault>,
}

impl Error {
    /// The faults, in the order of [`Config::variables`](super::Config::variables).
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for Error {
    /// One line a fault.
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

/// Something that looks like a slip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A variable of our prefix that nothing reads.
    UnknownVariable(String),
    /// `REDIS_KEY` is set though `REDIS_AUTH` is not `key`.
    UnusedKey,
    /// This variable asks for an export, and nothing says where to.
    NoOtlpEndpoint(&'static str),
    /// `REDIS_COMMAND_TIMEOUT` is not below `REQUEST_TIMEOUT`.
    CommandOutlastsRequest,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariable(name) => {
                write!(f, "{name} is set but nothing reads a variable of this name")
            }
            Self::UnusedKey => {
                f.write_str("REDIS_KEY is set but not used, because REDIS_AUTH is not `key`")
            }
            Self::NoOtlpEndpoint(name) => write!(
                f,
                "{name} is otlp but nothing is exported, because OTEL_EXPORTER_OTLP_ENDPOINT is not set"
            ),
            Self::CommandOutlastsRequest => f.write_str(
                "REDIS_COMMAND_TIMEOUT is not below REQUEST_TIMEOUT: a request ends before a connection that says nothing is found",
            ),
        }
    }
}

pub(super) const HIDDEN: &str = "(hidden)";

/// Longest part of a value that is repeated.
const LONGEST_SHOWN: usize = 100;

/// Whether a value pasted into the wrong variable could be a secret: a connection string, a URL with a password, a token,
/// or a word such as keys and client secrets are (20 characters and more, of all three kinds).
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

/// A value as it may be repeated: on one line, of bounded length, hidden where it may hold a secret.
pub(super) fn repeated(value: &str, is_secret: bool) -> String {
    if is_secret || may_hold_a_secret(value) {
        return HIDDEN.to_owned();
    }
    let mut text: String = value
        .chars()
        .take(LONGEST_SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(LONGEST_SHOWN).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}

/// Types values and keeps the list of what went wrong.
pub(super) struct Parser {
    pub(super) faults: Vec<Fault>,
}

impl Parser {
    /// A variable that may be unset.
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

    /// A variable with a default in the table; after a fault it goes on with the default.
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
                Err(expected) => unreachable!("the default of {name} is {expected}"),
            }
        })
    }

    pub(super) fn fault(
        &mut self,
        variable: &'static str,
        met: Option<String>,
        expected: &'static str,
    ) {
        self.faults.push(Fault {
            variable,
            met,
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
