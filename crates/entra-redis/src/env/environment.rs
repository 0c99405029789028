//! A snapshot of the environment: the only place that reads the process's variables.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::de::DeserializeOwned;

use super::variables::Variable;
use crate::secret::{HIDDEN, may_hold_a_secret};

/// A snapshot of variables, taken from the process or made from pairs.
///
/// Its `Debug` output contains no values, which may be secrets.
#[derive(Clone, Default)]
pub struct Environment {
    pub(super) values: BTreeMap<String, String>,
    /// The variables whose values are not UTF-8.
    not_utf8: BTreeSet<String>,
}

impl Environment {
    /// Returns a snapshot of the process's variables.
    pub fn from_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue; // not one of ours
            };
            match value.into_string() {
                Ok(value) => environment.set(name, value),
                Err(_) => _ = environment.not_utf8.insert(name),
            }
        }
        environment
    }

    pub(super) fn is_not_utf8(&self, name: &str) -> bool {
        self.not_utf8.contains(name)
    }

    /// Sets one variable; an empty value unsets it.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if value.is_empty() {
            self.values.remove(&name);
        } else {
            self.values.insert(name, value);
        }
    }

    /// Unsets one variable.
    pub fn unset(&mut self, name: &str) {
        self.values.remove(name);
    }

    /// Sets one variable unless it is set.
    pub fn set_default(&mut self, name: &str, value: &str) {
        if !self.values.contains_key(name) {
            self.set(name, value);
        }
    }

    /// Returns whether a variable has this value.
    pub fn is(&self, name: &str, value: &str) -> bool {
        self.values.get(name).is_some_and(|found| found == value)
    }

    /// Returns the effective value for display: hidden when it is a secret, `None` when there is none.
    pub fn shown(&self, variable: &Variable) -> Option<&str> {
        match self.values.get(variable.name) {
            Some(value) if variable.secret || may_hold_a_secret(value) => Some(HIDDEN),
            Some(value) => Some(value),
            None => variable.default,
        }
    }

    /// Returns one variable outside the sections, such as one of OpenTelemetry's per-signal variables.
    pub fn value(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// Reads a section: a struct of optional texts, whose fields are named like the variables.
    ///
    /// # Panics
    /// A field is of another type.
    pub fn section<T: DeserializeOwned>(&self) -> T {
        let pairs = self.values.iter().map(|(k, v)| (k.clone(), v.clone()));
        envy::from_iter(pairs).expect("a section has only optional strings")
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.set(name, value);
        }
        environment
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.values.len())
            .finish_non_exhaustive()
    }
}
