//! Durations in findings.

use std::time::Duration;

/// Formats a duration as `90 s` or `60 min`.
pub(super) fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        short @ 0..120 => format!("{short} s"),
        long => format!("{} min", long / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_durations_are_in_seconds_and_long_ones_in_minutes() {
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3599, "59 min")] {
            assert_eq!(in_words(Duration::from_secs(seconds)), text);
        }
    }
}
