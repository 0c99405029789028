//! The type of secret texts: access keys, tokens, client secrets.
//!
//! # Invariants
//! - No formatting trait shows the text.
//! - The text is overwritten in memory when its owner drops it.
//! - [`Secret::expose`] is called where the bytes leave the process, and nowhere else.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text, hidden in `Debug` output and without `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the text as a secret; the caller should not keep a copy.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the text itself, for the call that sends it.
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
