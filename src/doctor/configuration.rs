//! The variables of the service.

use super::{
    examination::{Checked, Failed, Passed},
    identity::LABEL_THE_POD,
};
use crate::config::{Auth, Config, Environment, Fault};

/// Parses the configuration as the service does at start.
pub(super) fn check(environment: &Environment) -> Checked<Config> {
    let config = Config::new(environment).map_err(|faults| {
        let fix = if faults.faults().iter().any(is_missing_token_file) {
            LABEL_THE_POD
        } else {
            "set the variables as expected; `entra-redis config` lists all of them"
        };
        Failed::new(
            faults,
            "the service does not start with this configuration",
            fix,
        )
    })?;
    if !config.warnings.is_empty() {
        let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
        return Ok(Passed::warned(
            warnings.join("\n"),
            "probably a mistake; the service starts nevertheless",
            "correct or remove the variable; `entra-redis config` lists all variables",
            config,
        ));
    }
    let authentication = match config.redis.auth {
        Auth::Entra => "authentication with Entra ID",
        Auth::Key(_) => "authentication with an access key",
        Auth::None => "no authentication",
    };
    let observed = format!("{}, {authentication}", config.redis.endpoint);
    Ok(Passed::new(observed, config))
}

fn is_missing_token_file(fault: &Fault) -> bool {
    fault.variable == "AZURE_FEDERATED_TOKEN_FILE" && fault.found.is_none()
}
