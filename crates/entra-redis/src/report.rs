//! An error with its sources on one line, for logs and terminals.
//!
//! Our errors say what we were doing and leave the why to `source`; a log line must be readable alone.

use std::{error::Error, fmt};

/// Shows an error as `what: why: why`, leaving out a source whose text the text so far already has.
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(inner) = source {
            let why = inner.to_string();
            if !text.contains(&why) {
                text = format!("{text}: {why}");
            }
            source = inner.source();
        }
        f.write_str(&text)
    }
}
