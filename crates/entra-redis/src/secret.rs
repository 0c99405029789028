//! A text that must not be seen: keys, tokens, client secrets.
//!
//! Every module that holds one holds it as [`Secret`]. What always holds: no formatting trait shows the text, and it is
//! overwritten in memory when the last owner drops it. [`Secret::expose`] is called where the bytes leave the process
//! and nowhere else.

use std::fmt;

use zeroize::Zeroizing;

/// A text that shows itself in no `Debug` output and has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; the caller should not keep a copy.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the call that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_nothing_of_the_text() {
        let secret = Secret::new("open sesame");
        let shown = format!("{secret:?} {:#?}", Some(&secret));
        assert!(!shown.contains("sesame"), "{shown}");
        assert_eq!(secret.expose(), "open sesame");
    }
}
