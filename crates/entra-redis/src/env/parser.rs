//! The parser of an environment, which collects all faults instead of stopping at the first.

use super::{
    environment::Environment,
    fault::{Error, Fault},
    parse::Expected,
    variables::Variable,
};
use crate::secret::quoted;

/// Parses values by a table of variables and collects the faults.
#[derive(Debug)]
pub struct Parser<'a> {
    variables: &'a [Variable],
    faults: Vec<Fault>,
}

impl<'a> Parser<'a> {
    /// Returns a parser for these variables. Those whose values are not UTF-8 are its first faults.
    pub fn new(environment: &Environment, variables: &'a [Variable]) -> Self {
        let unreadable = variables
            .iter()
            .filter(|variable| environment.is_not_utf8(variable.name));
        let faults = unreadable.map(|variable| Fault {
            variable: variable.name,
            found: Some("(bytes that are not UTF-8)".to_owned()),
            expected: "UTF-8 text",
        });
        Self {
            faults: faults.collect(),
            variables,
        }
    }

    /// Parses a variable that may be unset.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        raw: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let raw = raw?;
        match parse(&raw) {
            Ok(value) => Some(value),
            Err(expected) => {
                let hidden = self.known(name).is_some_and(|variable| variable.secret);
                self.fault(name, Some(quoted(&raw, hidden)), expected);
                None
            }
        }
    }

    /// Parses a variable with a default in the table; after a fault, continues with the default.
    pub fn defaulted<T>(
        &mut self,
        name: &'static str,
        raw: Option<String>,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> T {
        self.optional(name, raw, &parse).unwrap_or_else(|| {
            let default = self.known(name).and_then(|variable| variable.default);
            match parse(default.expect("the table has a default for it")) {
                Ok(value) => value,
                Err(expected) => {
                    unreachable!("the default of {name} is invalid, expected {expected}")
                }
            }
        })
    }

    /// Adds a fault; `found` is `None` if the variable is not set.
    pub fn fault(&mut self, variable: &'static str, found: Option<String>, expected: Expected) {
        self.faults.push(Fault {
            variable,
            found,
            expected,
        });
    }

    /// Returns true if the variable has a fault already.
    pub(super) fn has_fault(&self, variable: &str) -> bool {
        self.faults.iter().any(|fault| fault.variable == variable)
    }

    /// Keeps only the faults of these variables.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.faults.retain(|fault| keep(fault.variable));
    }

    /// Ends parsing.
    ///
    /// # Errors
    /// All faults in the order of the table, if there is at least one.
    pub fn finish(mut self) -> Result<(), Error> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let variables = self.variables;
        let position = |fault: &Fault| variables.iter().position(|v| v.name == fault.variable);
        self.faults.sort_by_key(position);
        Err(Error {
            faults: self.faults,
        })
    }

    fn known(&self, name: &str) -> Option<&'a Variable> {
        self.variables.iter().find(|variable| variable.name == name)
    }
}
