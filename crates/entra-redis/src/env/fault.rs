//! Faults and warnings of an environment.

use std::fmt;

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
    pub(crate) faults: Vec<Fault>,
}

impl Error {
    /// Returns the faults, in the order of the table of variables.
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
#[non_exhaustive]
pub enum Warning {
    /// A variable with our prefix that is not known.
    UnknownVariable(String),
    /// `REDIS_KEY` is set though `REDIS_AUTH` is not `key`.
    UnusedKey,
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
        }
    }
}
