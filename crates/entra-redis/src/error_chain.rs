//! An error with its sources on one line, for logs and terminals.
//!
//! Our errors name the operation that failed and leave the cause to `source`; a log line must be readable alone.

use std::{error::Error, fmt};

/// An error displayed as `operation: cause: cause`, without a source whose text is already there.
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(inner) = source {
            let cause = inner.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
            source = inner.source();
        }
        f.write_str(&text)
    }
}
