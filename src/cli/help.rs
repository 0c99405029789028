//! What `--help` tells beyond the options: examples to copy, the environment that is heeded, the exit codes.
//!
//! `cli` hangs each page under its command; `-h` stays without them. What always holds: no line is longer than 80
//! columns, and a line that begins at the margin and ends with a colon is a heading. What does not belong here: what an
//! option does, which stands at the option.

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

pub(crate) const COMMAND_LINE: &str = concat!(
    "
Examples:
",
    with_emulator!(
        "  entra-redis dev                         everything on this machine; it says
                                          what to open and what to copy
"
    ),
    "  REDIS_ENDPOINT=NAME.REGION.redis.azure.net entra-redis
                                          the service, after `az login`
  entra-redis doctor                      what is wrong on the way to Redis
  entra-redis config                      every variable and its value now
  source <(entra-redis completions bash)  in the shell's start-up file

Environment:
  Variables configure it, and nothing else does: `entra-redis config` prints
  each with its default, its meaning and its value now. REDIS_ENDPOINT is
  required.
  NO_COLOR=1 or TERM=dumb takes the colours away; a pipe has none.

Exit codes:
  0   good
  1   failed while running
  64  the command line or the configuration is wrong; every fault is told, one
      a line
"
);

pub(crate) const SERVE: &str = "
Examples:
  REDIS_ENDPOINT=NAME.REGION.redis.azure.net entra-redis serve
  ADMIN_PORT=9090 REDIS_ENDPOINT=NAME.REGION.redis.azure.net entra-redis serve
                                            probes and metrics on port 9090

Signals:
  SIGTERM, SIGINT (Ctrl-C): not ready, wait DRAIN_DELAY, finish open requests
  within DRAIN_TIMEOUT, exit code 0. The second one ends it at once, with 1.

Environment:
  Variables configure it: see `entra-redis config`. REDIS_ENDPOINT is required.
  LOG_FORMAT=text is the default on a terminal, json elsewhere.
  NO_COLOR=1 or TERM=dumb takes the colours away.

Exit codes:
  0   told to stop, and stopped in order
  1   failed while running, such as for a port that is taken
  64  the command line or the configuration is wrong; every fault is told, one
      a line
";

#[cfg(feature = "emulator")]
pub(crate) const DEV: &str = "
Examples:
  entra-redis dev                           then: curl localhost:8080/sample
  entra-redis dev --open                    with the status page in a browser
  entra-redis dev --token-lifetime 5s       watch tokens rotate
  entra-redis dev --redis 127.0.0.1:6379    a real Redis behind the front
  PORT=8081 entra-redis dev                 another port; 0 takes a free one

Environment:
  HOST is 127.0.0.1 by default, PORT 8080, DRAIN_DELAY 0s; see `entra-redis
  config` for the others. Which Redis, and which identity, the emulator says.
  RUST_LOG=info shows more than requests, trouble and rotations, LOG_FORMAT=json
  is for programs. NO_COLOR=1 or TERM=dumb takes the colours away.

Exit codes:
  0   stopped by Ctrl-C or SIGTERM; the second one ends it at once, with 1
  1   failed while running, such as for a port that is taken
  64  the command line or the configuration is wrong
";

#[cfg(feature = "emulator")]
pub(crate) const EMULATE: &str = "
Examples:
  entra-redis emulate                       prints NAME=value lines, runs on
  entra-redis emulate --redis-port 6380 --authority-port 8443
  entra-redis emulate --redis 127.0.0.1:6379 --token-lifetime 5m
  entra-redis emulate --host-name emulator.default.svc
                                            for clients on other machines

  Secrets among the lines are made up at each start and good for it alone.

Environment:
  HOST              address of all three ports; default 127.0.0.1

Exit codes:
  0   stopped by Ctrl-C or SIGTERM; the second one ends it at once, with 1
  1   failed while running, such as for a port that is taken
  64  the command line is wrong, or HOST
";

pub(crate) const DOCTOR: &str = "
Examples:
  entra-redis doctor
  entra-redis doctor --output json | jq .well
  entra-redis doctor --watch                begins again every 5 seconds
  kubectl exec -n NAMESPACE deploy/entra-redis -- entra-redis doctor

Output:
  text  a line a step (✔ passed, ! look at it, ✘ failed, - skipped because an
        earlier one failed, · nothing to look at), then what to do
  json  one document with the same findings
  No token, key or assertion is in either.

Environment:
  That of the service: see `entra-redis config`.
  NO_COLOR=1 or TERM=dumb takes the colours away; a pipe has none.

Exit codes:
  0   no step failed or was skipped; with --watch, in the last round that ended
  1   one did, wrong variables included
  64  the command line is wrong
";

pub(crate) const CONFIG: &str = "
Examples:
  entra-redis config
  REDIS_ENDPOINT=cache.example entra-redis config    says what is wrong with it

  Secrets are shown as (hidden), what is unset as a dash.

Exit codes:
  0   the service would take this configuration
  64  it would not; every fault is told on standard error, one a line
";

pub(crate) const OPENAPI: &str = "
Examples:
  entra-redis openapi > openapi.json

  A running service answers the same at /openapi.json.
";

pub(crate) const COMPLETIONS: &str = "
Examples:
  source <(entra-redis completions bash)    now; for good, in ~/.bashrc
  entra-redis completions zsh > ~/.zfunc/_entra-redis
  entra-redis completions fish > ~/.config/fish/completions/entra-redis.fish
";

pub(crate) const HEALTHCHECK: &str = "
Examples:
  entra-redis healthcheck && echo alive

Environment:
  PORT, or ADMIN_PORT where it is set, says where the service is; HOST, too.

Exit codes:
  0   it answered 200
  1   it did not, or there was no answer
  64  the command line or one of these variables is wrong
";

/// A page as clap prints it, its headings as clap's own.
pub(crate) fn page(text: &str) -> StyledStr {
    let styles = Styles::styled();
    let heading = styles.get_header();
    let lines =
        text.trim()
            .lines()
            .map(|line| match line.ends_with(':') && !line.starts_with(' ') {
                true => format!("{heading}{line}{heading:#}"),
                false => line.to_owned(),
            });
    StyledStr::from(lines.collect::<Vec<_>>().join("\n"))
}
