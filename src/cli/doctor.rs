//! The command `doctor`: prints findings as they come, for a terminal or for a program. The examination itself is
//! `crate::doctor`.

use std::{io, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    block_on,
    output::{can_overwrite_lines, print_error, print_styled},
};
use crate::{
    config::Environment,
    doctor::{Progress, Report, examine},
    lifecycle,
};

/// Pause before the next round of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

/// Removes the line of a step in progress, which its finding replaces.
const CLEAR_LINE: &str = "\r\x1b[K";

#[derive(Args)]
pub(super) struct Options {
    /// Text for people, or JSON for programs; with --watch one document per line
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Repeat 5 seconds after each run, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the examination. The exit code is 0 when no step of the last complete round failed or was skipped, 1 otherwise.
pub(super) fn doctor(environment: &Environment, options: &Options) -> ExitCode {
    let mut healthy = None;
    let examined = block_on(async {
        let stop = lifecycle::stop_signal()?;
        let rounds = async {
            loop {
                healthy = Some(round(environment, options).await?.is_healthy());
                if !options.watch {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(WATCH_PAUSE).await;
            }
        };
        tokio::select! {
            result = rounds => result,
            () = stop => {
                if can_overwrite_lines() {
                    print_styled(CLEAR_LINE)?; // the step in progress, and the terminal's ^C
                }
                Ok(())
            }
        }
    });
    if let Err(error) = examined {
        print_error(&format!("entra-redis: {error:#}"));
        return ExitCode::FAILURE;
    }
    if healthy == Some(true) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn round(environment: &Environment, options: &Options) -> io::Result<Report> {
    match options.output {
        Output::Json => round_in_json(environment, options.watch).await,
        Output::Text => round_in_text(environment).await,
    }
}

async fn round_in_json(environment: &Environment, one_line: bool) -> io::Result<Report> {
    let report = examine(environment, |_| {}).await;
    let document = report.to_json();
    if one_line {
        print_styled(&format!("{document}\n"))?;
    } else {
        print_styled(&format!("{document:#}\n"))?;
    }
    Ok(report)
}

async fn round_in_text(environment: &Environment) -> io::Result<Report> {
    let overwrites = can_overwrite_lines();
    let mut printed = Ok(());
    let report = examine(environment, |progress| {
        let line = match progress {
            Progress::Started(step) if overwrites => format!("  {step} ..."),
            Progress::Started(_) => return,
            Progress::Finished(finding) if overwrites => format!("{CLEAR_LINE}{finding}\n"),
            Progress::Finished(finding) => format!("{finding}\n"),
        };
        if printed.is_ok() {
            printed = print_styled(&line);
        }
    })
    .await;
    printed?;
    print_styled(&format!("\n{report}\n"))?;
    Ok(report)
}
