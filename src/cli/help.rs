//! The part of `--help` after the options: examples to copy, environment, exit codes. `-h` leaves it out.
//!
//! # Invariants
//! - No line is longer than 80 columns.
//! - A line that starts at the margin and ends with a colon is a heading.
//!
//! Out of scope: the description of an option, which is at the option.

use clap::builder::{StyledStr, Styles};

#[cfg(feature = "emulator")]
macro_rules! with_emulator {
    ($text:literal) => {
        $text
    };
}
#[cfg(not(feature = "emulator"))]
macro_rules! with_emulator {
    ($text:literal) => {
        ""
    };
}

pub(super) const COMMAND_LINE: &str = concat!(
    "
Examples:
",
    with_emulator!(
        "  entra-redis dev                         everything on this machine; prints
                                          what to open and what to copy
"
    ),
    "  REDIS_ENDPOINT=NAME.REGION.redis.azure.net entra-redis
                                          the service, after `az login`
  entra-redis doctor                      checks the path to Redis
  entra-redis config                      all variables and their values
  source <(entra-redis completions bash)  in the shell's startup file

Environment:
  Configuration is by environment variables only: `entra-redis config` prints
  each with its default, its meaning and its current value. REDIS_ENDPOINT is
  required.
  NO_COLOR=1 or TERM=dumb disables colours; output to a pipe has none.

Exit codes:
  0   success
  1   failed while running
  64  wrong command line or configuration; every fault is listed, one per line
"
);

pub(super) const SERVE: &str = "
Examples:
  REDIS_ENDPOINT=NAME.REGION.redis.azure.net entra-redis serve
  ADMIN_PORT=9090 REDIS_ENDPOINT=NAME.REGION.redis.azure.net entra-redis serve
                                            probes and metrics on port 9090

Signals:
  SIGTERM, SIGINT (Ctrl-C): become not ready, wait DRAIN_DELAY, finish open
  requests within DRAIN_TIMEOUT, exit with 0. A second signal exits immediately
  with 1.

Environment:
  Configuration is by environment variables: see `entra-redis config`.
  REDIS_ENDPOINT is required.
  LOG_FORMAT is text on a terminal by default, json elsewhere.
  NO_COLOR=1 or TERM=dumb disables colours.

Exit codes:
  0   stopped by a signal, in order
  1   failed while running, for example because a port is in use
  64  wrong command line or configuration; every fault is listed, one per line
";

#[cfg(feature = "emulator")]
pub(super) const DEV: &str = "
Examples:
  entra-redis dev                           then: curl localhost:8080/sample
  entra-redis dev --open                    opens the status page in a browser
  entra-redis dev --token-lifetime 5s       shows how tokens rotate
  entra-redis dev --redis 127.0.0.1:6379    a real Redis behind the proxy
  PORT=8081 entra-redis dev                 another port; 0 for a free port

Environment:
  Defaults: HOST 127.0.0.1, PORT 8080, DRAIN_DELAY 0s; for the others see
  `entra-redis config`. Redis endpoint and identity are set by the emulator.
  The log shows requests, warnings and rotations; RUST_LOG=info shows more,
  LOG_FORMAT=json is for programs. NO_COLOR=1 or TERM=dumb disables colours.

Exit codes:
  0   stopped by Ctrl-C or SIGTERM; a second signal exits immediately with 1
  1   failed while running, for example because a port is in use
  64  wrong command line or configuration
";

#[cfg(feature = "emulator")]
pub(super) const EMULATE: &str = "
Examples:
  entra-redis emulate                       prints NAME=value lines and runs
  entra-redis emulate --redis-port 6380 --authority-port 8443
  entra-redis emulate --redis 127.0.0.1:6379 --token-lifetime 5m
  entra-redis emulate --host-name emulator.default.svc
                                            for clients on other machines

  Secrets in these lines are generated at each start and valid only for it.

Environment:
  HOST              address of all three ports; default 127.0.0.1

Exit codes:
  0   stopped by Ctrl-C or SIGTERM; a second signal exits immediately with 1
  1   failed while running, for example because a port is in use
  64  wrong command line, or wrong HOST
";

pub(super) const DOCTOR: &str = "
Examples:
  entra-redis doctor
  entra-redis doctor --output json | jq .healthy
  entra-redis doctor --watch                repeats every 5 seconds
  kubectl exec -n NAMESPACE deploy/entra-redis -- entra-redis doctor

Output:
  text  one line per step (✔ passed, ! warned, ✘ failed, - skipped because an
        earlier step failed, · not applicable), with the cause and the fix of
        what is wrong
  json  one document with the same findings: step, outcome, observed, cause, fix
  Neither contains a token, a key or an assertion.

Environment:
  The variables of the service: see `entra-redis config`.
  NO_COLOR=1 or TERM=dumb disables colours; output to a pipe has none.

Exit codes:
  0   no step failed or was skipped; with --watch, in the last complete run
  1   a step failed, for example because of a wrong variable
  64  wrong command line
";

pub(super) const CONFIG: &str = "
Examples:
  entra-redis config
  REDIS_ENDPOINT=cache.example entra-redis config    lists what is wrong

  Secrets are shown as (hidden), unset variables as a dash.

Exit codes:
  0   the configuration is valid
  64  it is not; every fault is listed on standard error, one per line
";

pub(super) const OPENAPI: &str = "
Examples:
  entra-redis openapi > openapi.json

  A running service returns the same document at /openapi.json.
";

pub(super) const COMPLETIONS: &str = "
Examples:
  source <(entra-redis completions bash)    in ~/.bashrc, to keep it
  entra-redis completions zsh > ~/.zfunc/_entra-redis
  entra-redis completions fish > ~/.config/fish/completions/entra-redis.fish
";

pub(super) const HEALTHCHECK: &str = "
Examples:
  entra-redis healthcheck && echo alive

Environment:
  HOST and PORT, or ADMIN_PORT where it is set: the address of the service

Exit codes:
  0   the response has status 200
  1   it has another status, or there is no response
  64  wrong command line, or one of these variables is wrong
";

/// Formats a page as clap prints it, with headings like clap's own.
pub(super) fn page(text: &str) -> StyledStr {
    let styles = Styles::styled();
    let heading = styles.get_header();
    let lines = text.trim().lines().map(|line| {
        if line.ends_with(':') && !line.starts_with(' ') {
            format!("{heading}{line}{heading:#}")
        } else {
            line.to_owned()
        }
    });
    StyledStr::from(lines.collect::<Vec<_>>().join("\n"))
}
