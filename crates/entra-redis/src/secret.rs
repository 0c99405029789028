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

/// The text shown instead of a secret.
pub(crate) const HIDDEN: &str = "(hidden)";

/// The longest part of a value that is quoted, in characters.
const MAX_QUOTED: usize = 100;

/// Returns whether a value, perhaps pasted into the wrong variable, could be a secret: a connection string, a URL with a
/// password, a token, or a word like a key or a client secret (20 characters and more, of all three kinds).
pub(crate) fn may_hold_a_secret(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    if lower.contains('@') || lower.contains("password=") || lower.contains("key=") {
        return true;
    }
    let is_of_a_word = |c: char| c.is_ascii_alphanumeric() || "+=_~-".contains(c);
    value.split(|c| !is_of_a_word(c)).any(|word| {
        let has = |kind: fn(&char) -> bool| word.chars().any(|c| kind(&c));
        word.len() >= 20
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit)
    })
}

/// Returns a value for display: on one line, of bounded length, hidden where it may contain a secret.
pub(crate) fn quoted(value: &str, is_secret: bool) -> String {
    if is_secret || may_hold_a_secret(value) {
        return HIDDEN.to_owned();
    }
    let mut text: String = value
        .chars()
        .take(MAX_QUOTED)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(MAX_QUOTED).is_some() {
        text.push('…');
    }
    format!("`{text}`")
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
