//! The command `completions`.

use clap::CommandFactory;

use super::{Cli, output::print};

/// Prints the completion script of `shell`.
pub(super) fn print_script(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "entra-redis", &mut script);
    print(String::from_utf8(script)?.trim_end())
}
