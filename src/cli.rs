//! The command line of `entra-redis`: parses the arguments and runs one command.
//!
//! Exit codes: 0 success; 1 failed while running; 64 wrong command line or configuration, with every fault on a line of
//! its own. Out of scope: anything that a test could not reach through the library.

mod completions;
mod config;
#[cfg(feature = "emulator")]
mod dev;
mod doctor;
#[cfg(feature = "emulator")]
mod emulate;
#[cfg(feature = "emulator")]
mod emulator_options;
mod healthcheck;
mod help;
mod openapi;
mod output;
mod serve;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use self::output::print_error;
use crate::config::{Environment, Error as ConfigurationError};

/// `EX_USAGE` of `sysexits.h`.
const EXIT_USAGE: u8 = 64;

/// GET /sample from Azure Managed Redis, authenticated with Microsoft Entra ID: no password, no access key.
#[derive(Parser)]
#[command(
    name = "entra-redis",
    version,
    max_term_width = 100,
    after_help = "The default command is serve. Configuration is by environment variables: see `entra-redis config`.",
    after_long_help = help::page(help::COMMAND_LINE)
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service (the default)
    #[command(after_long_help = help::page(help::SERVE))]
    Serve,
    /// Run the service with an emulated Entra ID and Redis on this machine; needs nothing else
    #[cfg(feature = "emulator")]
    #[command(after_long_help = help::page(help::DEV))]
    Dev(dev::Options),
    /// Run only the emulated Entra ID and Redis, and print the variables that clients need
    #[cfg(feature = "emulator")]
    #[command(after_long_help = help::page(help::EMULATE))]
    Emulate(emulate::Options),
    /// Check the path from this environment to Redis step by step, and show how to fix what fails
    #[command(after_long_help = help::page(help::DOCTOR))]
    Doctor(doctor::Options),
    /// Print every variable with its current value and its meaning
    #[command(after_long_help = help::page(help::CONFIG))]
    Config,
    /// Print the OpenAPI document
    #[command(after_long_help = help::page(help::OPENAPI))]
    Openapi,
    /// Print a completion script for a shell
    #[command(after_long_help = help::page(help::COMPLETIONS))]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Request /healthz of the service that runs with the same environment; for a container's HEALTHCHECK
    #[command(after_long_help = help::page(help::HEALTHCHECK))]
    Healthcheck,
}

/// Runs the command that the process's arguments name, and returns the exit code of the process.
///
/// # Panics
/// A crypto provider of rustls is installed already: call it once, first in `main`.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                EXIT_USAGE.into()
            } else {
                ExitCode::SUCCESS // --help and --version
            };
        }
    };
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        unreachable!("nothing before this line installs a crypto provider");
    }
    let environment = Environment::from_process();
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(&environment),
        #[cfg(feature = "emulator")]
        Command::Dev(options) => dev::dev(environment, options),
        #[cfg(feature = "emulator")]
        Command::Emulate(options) => emulate::emulate(environment, options),
        Command::Doctor(options) => return doctor::doctor(&environment, &options),
        Command::Config => config::print_variables(&environment),
        Command::Openapi => openapi::print_document(),
        Command::Completions { shell } => completions::print_script(shell),
        Command::Healthcheck => healthcheck::healthcheck(&environment),
    };
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(faults) = error.downcast_ref::<ConfigurationError>() {
        print_error(&faults.to_string());
        return EXIT_USAGE.into();
    }
    print_error(&format!("entra-redis: {error:#}"));
    ExitCode::FAILURE
}

/// Runs a future to completion on a runtime of its own.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(future);
    // A name resolution in progress blocks a thread until DNS gives up, which must not delay the exit.
    runtime.shutdown_background();
    result
}
