//! The command `config`.

use super::output::print;
use crate::config::{Config, Environment};

/// Prints every variable with its value and its default, then checks the configuration.
pub(super) fn print_variables(environment: &Environment) -> anyhow::Result<()> {
    let variables = Config::variables();
    let width = variables.iter().map(|v| v.name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for variable in variables {
        let value = environment.shown(variable).unwrap_or("-");
        table += &format!(
            "{:width$}  {value}\n{:width$}  {}\n",
            variable.name, "", variable.meaning
        );
        if let Some(default) = variable.default {
            table += &format!("{:width$}  default: {default}\n", "");
        }
        table.push('\n');
    }
    print(table.trim_end())?;
    Config::new(environment)?;
    Ok(())
}
