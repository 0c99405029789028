//! The Redis protocol (RESP): one incremental reader, and the functions that write replies.
//!
//! `reader` cuts a stream into lines and strings. On it stand [`CommandReader`] for a client's commands, [`ReplyReader`]
//! for the ends of a server's replies, and [`Value`] for the content of a whole reply.
//!
//! It is a reader of our own because a proxy needs three properties together that no crate has: redis-protocol and resp-rs
//! decode a buffered value from its first byte again whenever more of it arrives and limit no size, and the parser of
//! redis-rs does not keep the exact bytes, which pass through here.

pub(crate) use command::CommandReader;
pub(crate) use hello::Hello;
pub(crate) use reply::{Progress, ReplyReader};
pub(crate) use value::Value;
pub(crate) use write::{array, bulk, error, integer, map, null, status};

mod command;
mod hello;
mod reader;
mod reply;
mod value;
mod write;

/// Parses an integer as Redis does: only in the one form in which it would itself write it.
pub(crate) fn integer_of(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_negative = digits.len() < text.len();
    match digits {
        [b'1'..=b'9', ..] => {}
        [b'0'] if !is_negative => {}
        _ => return None,
    }
    digits.iter().try_fold(0_i64, |number, &digit| {
        let digit = i64::from(char::from(digit).to_digit(10)?);
        let digit = if is_negative { -digit } else { digit };
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_integer_is_read_in_the_one_form_it_has(number in any::<i64>(), text in "[-+0-9 a]{0,22}") {
            prop_assert_eq!(integer_of(number.to_string().as_bytes()), Some(number));
            if let Some(number) = integer_of(text.as_bytes()) {
                prop_assert_eq!(number.to_string(), text);
            }
        }
    }
}
