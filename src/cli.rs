//! Which command, which exit code? The command line of `entra-redis`.
//!
//! Exit codes: 0 good; 1 failed while running; 64 the command line or the configuration is wrong, with every fault on a
//! line of its own. What does not belong here: anything a test could not reach through the library.

#[cfg(feature = "emulator")]
mod dev;
mod doctor;
mod help;

use std::{io::Write, process::ExitCode};

use crate::{
    app::{self, App},
    config::{self, Config, Environment, Http},
    doctor::local,
    http, lifecycle, telemetry,
};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

/// `EX_USAGE` of `sysexits.h`.
const EXIT_USAGE: u8 = 64;

/// GET /sample from Azure Managed Redis, signed in with Microsoft Entra ID: no password, no access key.
#[derive(Parser)]
#[command(
    name = "entra-redis",
    version,
    max_term_width = 100,
    after_help = "Without a command: serve. Variables configure it: see `entra-redis config`.",
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
    /// Run the service with an emulated Entra ID and Redis on this machine; nothing else is needed
    #[cfg(feature = "emulator")]
    #[command(after_long_help = help::page(help::DEV))]
    Dev(dev::DevOptions),
    /// Run the emulated Entra ID and Redis alone and print the variables that clients need
    #[cfg(feature = "emulator")]
    #[command(after_long_help = help::page(help::EMULATE))]
    Emulate(dev::EmulateOptions),
    /// Say what is wrong between this environment and Redis, step by step, and what to do
    #[command(after_long_help = help::page(help::DOCTOR))]
    Doctor(doctor::Options),
    /// Print every variable: name, value in force, meaning
    #[command(after_long_help = help::page(help::CONFIG))]
    Config,
    /// Print the OpenAPI document
    #[command(after_long_help = help::page(help::OPENAPI))]
    Openapi,
    /// Print completions for a shell
    #[command(after_long_help = help::page(help::COMPLETIONS))]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Ask /healthz of the service that runs with the same environment; for a container's HEALTHCHECK
    #[command(after_long_help = help::page(help::HEALTHCHECK))]
    Healthcheck,
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let good = !error.use_stderr(); // --help and --version
            let _ = error.print();
            return if good {
                ExitCode::SUCCESS
            } else {
                EXIT_USAGE.into()
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
        Command::Serve => serve(&environment),
        #[cfg(feature = "emulator")]
        Command::Dev(options) => dev::dev(environment, options),
        #[cfg(feature = "emulator")]
        Command::Emulate(options) => dev::emulate(environment, options),
        Command::Doctor(options) => return doctor::doctor(&environment, &options),
        Command::Config => print_config(&environment),
        Command::Openapi => print_document(),
        Command::Completions { shell } => print_completions(shell),
        Command::Healthcheck => healthcheck(&environment),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let configuration = error.downcast_ref::<config::Error>();
            match configuration {
                Some(faults) => complain(&faults.to_string()),
                None => complain(&format!("entra-redis: {error:#}")),
            }
            if configuration.is_some() {
                EXIT_USAGE.into()
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Runs a future to its end in a runtime of its own.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(future);
    // A name that is being resolved holds a thread until DNS gives up, which must not hold up the exit.
    runtime.shutdown_background();
    result
}

fn serve(environment: &Environment) -> anyhow::Result<()> {
    let config = Config::new(environment)?;
    block_on(async {
        let stop = lifecycle::stop_signal().context("cannot listen for signals")?;
        serve_until(config, |_| Ok(()), stop).await
    })
}

/// Runs the service until `stop`, tells `bound` where it listens, and reports to the last, however the service ends.
async fn serve_until(
    config: Config,
    bound: impl FnOnce(&App) -> anyhow::Result<()>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let telemetry = telemetry::start(&config.telemetry)?;
    // Each client is a file, and the soft limit (1024 mostly) is meant for programs that use select(2). What cannot be raised
    // is no reason not to serve.
    #[cfg(unix)]
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let service = async {
        let metrics = app::install_metrics(Some(&telemetry)).context("cannot set up metrics")?;
        let app = App::bind(config, metrics).await?;
        bound(&app)?;
        Ok(app.log_filter(telemetry.log_filter()).run(stop).await?)
    };
    let result = service.await;
    telemetry.finish().await;
    result
}

fn print_config(environment: &Environment) -> anyhow::Result<()> {
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

fn print_document() -> anyhow::Result<()> {
    let document = http::document().to_pretty_json();
    print(&document.context("cannot write the OpenAPI document")?)
}

fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "entra-redis", &mut script);
    print(String::from_utf8(script)?.trim_end())
}

/// Prints to standard error, if anybody is there to read it.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints to standard output; a reader that went away is no failure of ours.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

fn healthcheck(environment: &Environment) -> anyhow::Result<()> {
    let listeners = Http::new(environment)?;
    let address = local::address(&listeners);
    block_on(async {
        let (status, _) = local::get(address, "/healthz").await?;
        anyhow::ensure!(status == 200, "it is {status}, not 200");
        Ok(())
    })
    .with_context(|| format!("no good answer from http://{address}/healthz"))
}
