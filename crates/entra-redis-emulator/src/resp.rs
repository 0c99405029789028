//! The Redis protocol: where a command or a reply ends, and how a reply is written.
//!
//! `front` cuts a client's bytes into commands with [`command`] and follows a server's replies with
//! [`replies::Replies`]; `store` writes its answers with the functions at the end. Input may end anywhere: nothing here
//! waits, and a part seen twice is judged the same. What a command means is not known here, but for `HELLO`, which
//! both callers read.

use std::ops::Range;

pub(super) mod reply;

/// Redis' own limits, and those for clients that are not signed in (`networking.c`).
const MAX_INLINE: usize = 64 * 1024;
const MAX_ARGUMENTS: i64 = 1024 * 1024;
const MAX_BULK: i64 = 512 * 1024 * 1024;
const MAX_ARGUMENTS_STRANGER: i64 = 10;
const MAX_BULK_STRANGER: i64 = 16 * 1024;

/// Input after which a connection is of no use; the text is Redis' own.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("too big inline request")]
    InlineTooLong,
    #[error("too big mbulk count string")]
    CountTooLong,
    #[error("too big bulk count string")]
    BulkCountTooLong,
    #[error("invalid multibulk length")]
    Count,
    #[error("unauthenticated multibulk length")]
    StrangerCount,
    #[error("expected '$', got '{}'", char::from(*.0))]
    NoBulk(u8),
    #[error("invalid bulk length")]
    Bulk,
    #[error("unauthenticated bulk length")]
    StrangerBulk,
}

/// Finds the first command of `input`: fills `arguments` with its parts and answers its length. `None` when its end
/// has not come yet; an empty line is a command without arguments. Inline commands are split at white space; quotes
/// are left as they are.
pub(super) fn command(
    input: &[u8],
    signed_in: bool,
    arguments: &mut Vec<Range<usize>>,
) -> Result<Option<usize>, ProtocolError> {
    arguments.clear();
    let Some(first) = input.first() else {
        return Ok(None);
    };
    if *first != b'*' {
        return inline(input, arguments);
    }
    let Some((count, mut at)) = number(input, 1, ProtocolError::CountTooLong)? else {
        return Ok(None);
    };
    let count = count
        .filter(|&count| count <= MAX_ARGUMENTS)
        .ok_or(ProtocolError::Count)?;
    if count > MAX_ARGUMENTS_STRANGER && !signed_in {
        return Err(ProtocolError::StrangerCount);
    }
    for _ in 0..count {
        match input.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::NoBulk(other)),
        }
        let Some((length, start)) = number(input, at + 1, ProtocolError::BulkCountTooLong)? else {
            return Ok(None);
        };
        let length = length
            .filter(|length| (0..=MAX_BULK).contains(length))
            .ok_or(ProtocolError::Bulk)?;
        if length > MAX_BULK_STRANGER && !signed_in {
            return Err(ProtocolError::StrangerBulk);
        }
        let end = start + usize::try_from(length).map_err(|_| ProtocolError::Bulk)?;
        if input.len() < end + 2 {
            return Ok(None);
        }
        arguments.push(start..end);
        at = end + 2;
    }
    Ok(Some(at))
}

fn inline(input: &[u8], arguments: &mut Vec<Range<usize>>) -> Result<Option<usize>, ProtocolError> {
    let Some(end) = line_end(input, b'\n', ProtocolError::InlineTooLong)? else {
        return Ok(None);
    };
    let mut start = 0;
    for word in input[..end].split(u8::is_ascii_whitespace) {
        if !word.is_empty() {
            arguments.push(start..start + word.len());
        }
        start += word.len() + 1;
    }
    Ok(Some(end + 1))
}

/// Reads the number that a line ends with; answers it (`None` if it is none) and where the next line begins.
fn number(
    input: &[u8],
    start: usize,
    too_long: ProtocolError,
) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    let line = &input[start..];
    match line_end(line, b'\r', too_long)? {
        Some(end) if line.len() >= end + 2 => Ok(Some((integer_of(&line[..end]), start + end + 2))),
        _ => Ok(None),
    }
}

/// Where the line ends. Its length is judged the same whether its end has come or not.
fn line_end(
    line: &[u8],
    last: u8,
    too_long: ProtocolError,
) -> Result<Option<usize>, ProtocolError> {
    let end = line.iter().position(|&byte| byte == last);
    match end.unwrap_or(line.len()) > MAX_INLINE {
        true => Err(too_long),
        false => Ok(end),
    }
}

/// Reads an integer as Redis does: only in the one form it would itself write.
pub(super) fn integer_of(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = match digits {
        [b'1'..=b'9', ..] => true,
        [b'0'] => text == digits,
        _ => false,
    };
    let text = str::from_utf8(text).ok().filter(|_| is_canonical)?;
    text.parse().ok()
}

/// `HELLO`, taken apart; without `Debug`, for it holds a token.
pub(super) struct Hello<'a> {
    pub(super) version: Option<u8>,
    pub(super) user_and_token: Option<(&'a [u8], &'a [u8])>,
    pub(super) name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    /// Reads the command's arguments.
    ///
    /// # Errors
    ///
    /// Redis' own words for what is wrong, to be sent as an error reply. They repeat the name of an option, never its
    /// value.
    pub(super) fn read(arguments: &[&'a [u8]]) -> Result<Self, String> {
        let mut hello = Self {
            version: None,
            user_and_token: None,
            name: None,
        };
        let Some((version, mut options)) = arguments.get(1..).and_then(|rest| rest.split_first())
        else {
            return Ok(hello);
        };
        let version =
            integer_of(version).ok_or("ERR Protocol version is not an integer or out of range")?;
        hello.version = match version {
            2 => Some(2),
            3 => Some(3),
            _ => return Err("NOPROTO unsupported protocol version".into()),
        };
        while let Some((option, rest)) = options.split_first() {
            options = match rest {
                [user, token, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                    hello.user_and_token = Some((*user, *token));
                    rest
                }
                [name, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                    hello.name = Some(*name);
                    rest
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(format!("ERR Syntax error in HELLO option '{option}'"));
                }
            };
        }
        Ok(hello)
    }

    /// The same without its sign-in, as arguments.
    pub(super) fn without_sign_in(&self) -> Vec<&'a [u8]> {
        let mut arguments: Vec<&[u8]> = vec![b"HELLO"];
        match self.version {
            Some(2) => arguments.push(b"2"),
            Some(_) => arguments.push(b"3"),
            None => {}
        }
        if let Some(name) = self.name {
            arguments.extend([b"SETNAME".as_slice(), name]);
        }
        arguments
    }
}

/// Writes a status.
pub(super) fn status(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text);
}

/// Writes an error; `text` begins with its code. Line ends within become blanks, as in Redis.
pub(super) fn error(out: &mut Vec<u8>, text: &str) {
    line(out, b'-', &text.replace(['\r', '\n'], " "));
}

/// Writes an integer.
pub(super) fn integer(out: &mut Vec<u8>, value: i64) {
    line(out, b':', &value.to_string());
}

/// Writes a bulk string.
pub(super) fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    line(out, b'$', &value.len().to_string());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the absence of a string, as `protocol` has it.
pub(super) fn null(out: &mut Vec<u8>, protocol: u8) {
    out.extend_from_slice(if protocol == 3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// Writes the head of an array.
pub(super) fn array(out: &mut Vec<u8>, length: usize) {
    line(out, b'*', &length.to_string());
}

/// Writes the head of a map, which RESP2 has as an array twice as long.
pub(super) fn map(out: &mut Vec<u8>, protocol: u8, length: usize) {
    match protocol {
        3 => line(out, b'%', &length.to_string()),
        _ => array(out, length * 2),
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    type Command<'a> = (usize, Vec<&'a [u8]>);

    fn parse(input: &[u8]) -> Result<Option<Command<'_>>, ProtocolError> {
        let mut ranges = Vec::new();
        let length = command(input, false, &mut ranges)?;
        let arguments = ranges.into_iter().map(|range| &input[range]).collect();
        Ok(length.map(|length| (length, arguments)))
    }

    #[test]
    fn a_command_is_found_only_when_whole() {
        let inputs: [(&[u8], &[&[u8]]); 5] = [
            (b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n", &[b"GET", b"a\r\nb"]),
            (b"*1\r\n$0\r\n\r\n", &[b""]),
            (b"*0\r\n", &[]),
            (b"SET  key 1\r\n", &[b"SET", b"key", b"1"]),
            (b"\n", &[]),
        ];
        for (input, expected) in inputs {
            for end in 0..input.len() {
                assert_eq!(parse(&input[..end]), Ok(None), "cut at {end}");
            }
            let mut more = input.to_vec();
            more.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
            assert_eq!(parse(&more), Ok(Some((input.len(), expected.to_vec()))));
        }
    }

    #[test]
    fn wrong_input_is_refused() {
        assert_eq!(parse(b"*x\r\n"), Err(ProtocolError::Count));
        assert_eq!(parse(b"*11\r\n"), Err(ProtocolError::StrangerCount));
        assert_eq!(parse(b"*1\r\n:1\r\n"), Err(ProtocolError::NoBulk(b':')));
        assert_eq!(parse(b"*1\r\n$-1\r\n"), Err(ProtocolError::Bulk));
        assert_eq!(parse(b"*1\r\n$16385\r\n"), Err(ProtocolError::StrangerBulk));
        let endless = vec![b'a'; MAX_INLINE + 1];
        assert_eq!(parse(&endless), Err(ProtocolError::InlineTooLong));
    }

    #[test]
    fn hello_is_read_in_any_order_and_forwarded_without_its_token() {
        let words: [&[u8]; 7] = [b"hello", b"3", b"setname", b"n", b"auth", b"u", b"t"];
        let Ok(hello) = Hello::read(&words) else {
            panic!("it is well formed");
        };
        let expected: (&[u8], &[u8]) = (b"u", b"t");
        assert_eq!(hello.user_and_token, Some(expected));
        let rest: [&[u8]; 4] = [b"HELLO", b"3", b"SETNAME", b"n"];
        assert_eq!(hello.without_sign_in(), rest);
        let refused = |words: &[&[u8]]| Hello::read(words).err().unwrap_or_default();
        assert!(refused(&[b"HELLO", b"4"]).starts_with("NOPROTO"));
        assert!(refused(&[b"HELLO", b"3", b"AUTH", b"u"]).ends_with("option 'AUTH'"));
    }

    #[test]
    fn a_line_is_too_long_wherever_it_is_cut() {
        for (line, end, error) in [
            ("", "\n", ProtocolError::InlineTooLong),
            ("*", "\r\n", ProtocolError::CountTooLong),
            ("*1\r\n$", "\r\n", ProtocolError::BulkCountTooLong),
        ] {
            let longest = format!("{line}{}", "1".repeat(MAX_INLINE));
            assert_eq!(parse(longest.as_bytes()), Ok(None), "{error}");
            for more in ["1", &format!("1{end}"), &format!("11{end}")] {
                let input = format!("{longest}{more}");
                assert_eq!(parse(input.as_bytes()).as_ref(), Err(&error));
            }
        }
    }

    mod properties {
        use proptest::{collection::vec, prelude::*, string::string_regex};

        use super::*;

        fn written(arguments: &[Vec<u8>]) -> Vec<u8> {
            let mut bytes = Vec::new();
            array(&mut bytes, arguments.len());
            for argument in arguments {
                bulk(&mut bytes, argument);
            }
            bytes
        }

        /// What clients send, rightly, almost rightly, and not at all.
        fn input() -> impl Strategy<Value = Vec<u8>> {
            let counts =
                "(-?[0-9]{0,4}|9223372036854775807|-9223372036854775808|18446744073709551616)";
            let like = |form: &str| {
                let form =
                    string_regex(&form.replace("COUNT", counts)).expect("it is an expression");
                form.prop_map(String::into_bytes)
            };
            let piece = prop_oneof![
                vec(vec(any::<u8>(), 0..20), 0..4).prop_map(|arguments| written(&arguments)),
                like("[*$]COUNT\r\n"),
                like("[*$:]COUNT[\r\n]{0,3}"),
                like("[ -~]{0,20}\r?\n"),
                vec(any::<u8>(), 0..20),
                (MAX_INLINE - 2..MAX_INLINE + 3).prop_map(|length| vec![b'1'; length]),
            ];
            vec(piece, 0..8).prop_map(|pieces| pieces.concat())
        }

        proptest! {
            #[test]
            fn a_command_is_read_as_it_was_written(
                arguments in vec(vec(any::<u8>(), 0..40), 0..10),
                more in vec(any::<u8>(), 0..20),
            ) {
                let mut bytes = written(&arguments);
                let length = bytes.len();
                bytes.extend_from_slice(&more);
                let (read, parts) = parse(&bytes).expect("it is right").expect("it is whole");
                prop_assert_eq!(read, length);
                prop_assert_eq!(parts, arguments);
            }

            /// A part of the input is not judged yet, or judged as the whole is.
            #[test]
            fn the_verdict_is_the_same_wherever_the_input_is_cut(
                input in input(),
                cuts in vec(any::<prop::sample::Index>(), 16),
                signed_in in any::<bool>(),
            ) {
                let (mut whole, mut part) = (Vec::new(), Vec::new());
                let verdict = command(&input, signed_in, &mut whole);
                prop_assert!(whole.len() <= input.len());
                for cut in cuts.iter().map(|cut| cut.index(input.len() + 1)).chain(0..input.len().min(64)) {
                    match command(&input[..cut], signed_in, &mut part) {
                        Ok(None) => prop_assert!(
                            !matches!(verdict, Ok(Some(length)) if length <= cut), "cut at {}", cut
                        ),
                        judged => {
                            prop_assert_eq!(&judged, &verdict, "cut at {}", cut);
                            if judged.is_ok() {
                                prop_assert_eq!(&part, &whole);
                            }
                        }
                    }
                }
            }

            #[test]
            fn an_integer_is_read_in_the_one_form_it_has(number in any::<i64>(), text in "[-+0-9 a]{0,22}") {
                prop_assert_eq!(integer_of(number.to_string().as_bytes()), Some(number));
                if let Some(number) = integer_of(text.as_bytes()) {
                    prop_assert_eq!(number.to_string(), text);
                }
            }

            #[test]
            fn any_hello_is_read_or_refused_without_its_token(
                words in vec(prop_oneof!["AUTH|auth|SETNAME|[0-9]{1,2}|[a-z]{0,8}", Just("hush-hush".to_owned())], 0..9),
            ) {
                let mut arguments: Vec<&[u8]> = vec![b"HELLO", b"3", b"AUTH", b"user", b"hush-hush"];
                arguments.extend(words.iter().map(String::as_bytes));
                match Hello::read(&arguments) {
                    Ok(hello) => {
                        prop_assert!(hello.user_and_token.is_some());
                        let rest = hello.without_sign_in();
                        let again = Hello::read(&rest).expect("it is one");
                        prop_assert!(again.user_and_token.is_none());
                        prop_assert_eq!((again.version, again.name), (hello.version, hello.name));
                    }
                    // An option's name may be anything, the value of a right one is not repeated.
                    Err(text) => {
                        let secret = "hush-hush";
                        let is_name = words.iter().any(|word| word == secret);
                        prop_assert!(is_name || !text.contains(secret), "{}", text);
                    }
                }
            }
        }
    }
}
