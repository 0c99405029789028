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
    /// The faults, in the order of [`Config::variables`].
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
        }
    }
}

pub(super) const HIDDEN: &str = "(hidden)";

/// Whether a value pasted into the wrong variable could be a connection string or a URL with a password in it.
pub(super) fn may_hold_a_secret(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    lower.contains('@') || lower.contains("password=") || lower.contains("key=")
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
                let met = match hidden || may_hold_a_secret(&raw) {
                    true => HIDDEN,
                    false => &raw,
                };
                self.fault(name, Some(met), expected);
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
        met: Option<&str>,
        expected: &'static str,
    ) {
        self.faults.push(Fault {
            variable,
            met: met.map(|met| format!("`{met}`")),
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
