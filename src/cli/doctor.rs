//! The command `doctor`: findings as they come, on a terminal or for a program. What is looked at is the library's
//! question, `crate::doctor`.

use std::{io::IsTerminal, io::Write, process::ExitCode, time::Duration};

use super::{block_on, complain};
use crate::{
    config::Environment,
    doctor::{Progress, Report, examine},
    lifecycle,
};
use anstream::{AutoStream, ColorChoice};
use clap::{Args, ValueEnum};

/// Pause before the next round of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

/// Ends the line that says what is being done, for the finding to take its place.
const CLEAR_LINE: &str = "\r\x1b[K";

#[derive(Args)]
pub(crate) struct Options {
    /// Lines for a person, or a JSON document for a program (with --watch one a line)
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Begin again 5 seconds after the end, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// 0 when no step failed or had to be skipped, in the last round that ended; 1 else.
pub(crate) fn doctor(environment: &Environment, options: &Options) -> ExitCode {
    let mut latest = None;
    let examined = block_on(async {
        let stop = lifecycle::stop_signal()?;
        let rounds = async {
            loop {
                latest = Some(round(environment, options).await?.is_well());
                if !options.watch {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(WATCH_PAUSE).await;
            }
        };
        tokio::select! {
            ended = rounds => ended,
            () = stop => {
                if has_moving_line() {
                    say(CLEAR_LINE)?; // the step that is not ended, and the terminal's ^C
                }
                Ok(())
            }
        }
    });
    match (examined, latest) {
        (Ok(()), Some(true)) => ExitCode::SUCCESS,
        (Ok(()), _) => ExitCode::FAILURE,
        (Err(error), _) => {
            complain(&format!("entra-redis: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn round(environment: &Environment, options: &Options) -> std::io::Result<Report> {
    if options.output == Output::Json {
        let report = examine(environment, |_| {}).await;
        let document = report.to_json();
        match options.watch {
            true => say(&format!("{document}\n"))?,
            false => say(&format!("{document:#}\n"))?,
        }
        return Ok(report);
    }
    let moves = has_moving_line();
    let mut unsaid = Ok(());
    let report = examine(environment, |progress| {
        let line = match progress {
            Progress::Begun(step) if moves => format!("  {step} ..."),
            Progress::Begun(_) => return,
            Progress::Ended(finding) if moves => format!("{CLEAR_LINE}{finding}\n"),
            Progress::Ended(finding) => format!("{finding}\n"),
        };
        if unsaid.is_ok() {
            unsaid = say(&line);
        }
    })
    .await;
    unsaid?;
    say(&format!("\n{report}\n"))?;
    Ok(report)
}

/// Whether the output is a terminal that takes escapes: without them nothing can take the place of a line.
fn has_moving_line() -> bool {
    let output = std::io::stdout();
    output.is_terminal() && AutoStream::choice(&output) != ColorChoice::Never
}

/// Writes to standard output, with colours where there are any to be seen; a reader that went away is no failure.
fn say(text: &str) -> std::io::Result<()> {
    let mut output = anstream::stdout().lock();
    let said = write!(output, "{text}").and_then(|()| output.flush());
    match said {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
