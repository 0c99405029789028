//! An error with its sources on one line, for logs and terminals.
//!
//! Errors describe the operation and leave the cause to `source`; a log line must be understandable on its own.

use std::{error::Error, fmt};

use redis::{RedisError, ServerError};

/// An error displayed as `operation: cause: cause`, without a source whose text is already there.
///
/// Redis' error replies are shown as Redis writes them (`READONLY You can't write …`), so that a search for the code finds
/// them; redis-rs displays its own names of the kinds (`ReadOnly: You can't write …`).
#[derive(Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = text(self.0);
        let mut source = self.0.source();
        while let Some(inner) = source {
            let cause = self::text(inner);
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
            source = inner.source();
        }
        f.write_str(&text)
    }
}

fn text(error: &(dyn Error + 'static)) -> String {
    let reply = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(error), _) => code_and_detail(error),
        (_, Some(error)) => Some((ServerError::code(error), ServerError::details(error))),
        (None, None) => None,
    };
    match reply {
        Some((code, Some(detail))) => format!("{code} {detail}"),
        Some((code, None)) => code.to_owned(),
        None => error.to_string(),
    }
}

fn code_and_detail(error: &RedisError) -> Option<(&str, Option<&str>)> {
    Some((error.code()?, error.detail()))
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    #[test]
    fn error_replies_are_shown_as_redis_writes_them() {
        for reply in [
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "NOPERM User u has no permissions to run the 'set' command",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOAUTH Authentication required.",
            "ERR unknown command 'NOPE'",
            "MOVED 3999 10.0.0.5:8502",
        ] {
            let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes());
            let Ok(Value::ServerError(error)) = value else {
                panic!("{reply} is an error reply");
            };
            let error = crate::Error::Command(error.into());
            let expected = format!("Redis refused the command: {reply}");
            assert_eq!(ErrorChain(&error).to_string(), expected);
        }
    }

    #[test]
    fn a_source_is_shown_once() {
        let cause = std::io::Error::other("refused");
        let error = crate::Error::OutcomeUnknown(cause.into());
        let text = ErrorChain(&error).to_string();
        assert_eq!(text.matches("refused").count(), 1, "{text}");
    }
}
