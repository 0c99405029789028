//! Standard output and standard error of the commands.
//!
//! # Invariants
//! - A reader that has closed its end of a pipe is not an error.
//! - Escape sequences are written only to a terminal that takes them.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context;

/// Prints a line to standard error; a closed standard error is ignored.
pub(super) fn print_error(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints text without styles and a line feed.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    unless_closed(writeln!(io::stdout().lock(), "{text}"))
        .context("cannot write to standard output")
}

/// Prints text with styles, as it is, without a line feed. Styles are removed where they cannot be displayed.
pub(super) fn print_styled(text: &str) -> io::Result<()> {
    let mut output = anstream::stdout().lock();
    unless_closed(write!(output, "{text}").and_then(|()| output.flush()))
}

/// Returns true if standard output is a terminal that takes escape sequences, so that a line can be overwritten.
pub(super) fn can_overwrite_lines() -> bool {
    let output = io::stdout();
    output.is_terminal() && AutoStream::choice(&output) != ColorChoice::Never
}

fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
