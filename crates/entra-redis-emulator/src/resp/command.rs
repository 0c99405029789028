//! A client's commands, found in whatever pieces they arrive.
//!
//! `auth_gate` reads commands here. What a command means is not known, only where it ends and what its arguments are.
//! Limits and error texts are those of Redis (`networking.c`), before and after authentication.
//!
//! A malformed line that Redis would still accept, such as one that ends without CR, is refused: a proxy must not see
//! another command than the server behind it does.

use std::ops::Range;

use super::reader::{Line, Reader, Token};

/// Redis' own limits, and the lower ones for clients that are not authenticated.
const MAX_LINE: usize = 64 * 1024;
const MAX_ARGUMENTS: i64 = 1024 * 1024;
const MAX_BULK: i64 = 512 * 1024 * 1024;
const MAX_ARGUMENTS_UNAUTHENTICATED: i64 = 10;
const MAX_BULK_UNAUTHENTICATED: i64 = 16 * 1024;

/// Input after which a connection cannot be used any more; the text is Redis' own.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("too big inline request")]
    InlineTooLong,
    #[error("too big mbulk count string")]
    CountTooLong,
    #[error("too big bulk count string")]
    BulkCountTooLong,
    #[error("invalid multibulk length")]
    Count,
    #[error("unauthenticated multibulk length")]
    UnauthenticatedCount,
    #[error("expected '$', got '{}'", char::from(*.0))]
    NoBulk(u8),
    #[error("invalid bulk length")]
    Bulk,
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulk,
}

/// An incremental reader of commands. No byte is looked at twice, so that a command of many pieces costs no more.
#[derive(Debug, Default)]
pub(crate) struct CommandReader {
    reader: Reader,
    /// Bytes of the current command that were read.
    read: usize,
    /// Start of the current line or string in the command.
    token_start: usize,
    /// Arguments still to come; `None` before the command's first line.
    missing: Option<i64>,
    arguments: Vec<Range<usize>>,
}

impl CommandReader {
    /// Reads on in the command at the start of `input` and returns its length, or `None` if its end has not come yet.
    /// Then the next call must pass the same bytes, and more. An empty line is a command without arguments. Inline
    /// commands are split at white space; quotes are left as they are.
    ///
    /// # Errors
    ///
    /// If the input breaks the protocol or a limit. The reader cannot be used after that.
    pub(crate) fn next(
        &mut self,
        input: &[u8],
        authenticated: bool,
    ) -> Result<Option<usize>, ProtocolError> {
        if self.read == 0 {
            self.arguments.clear();
        }
        loop {
            if self.missing.is_some() {
                self.check_kind(input)?;
            }
            let Some((token, length)) = self.reader.next(&input[self.read..]) else {
                self.read = input.len();
                self.check_length(&input[self.token_start..])?;
                return Ok(None);
            };
            self.read += length;
            match token {
                Token::Line(line) => {
                    self.check_length(&input[self.token_start..self.read])?;
                    self.take_line(&line, input, authenticated)?;
                }
                Token::String => {
                    self.arguments.push(self.token_start..self.read - 2);
                    self.missing = self.missing.map(|missing| missing - 1);
                }
            }
            self.token_start = self.read;
            if self.missing == Some(0) {
                (self.missing, self.token_start) = (None, 0);
                return Ok(Some(std::mem::take(&mut self.read)));
            }
        }
    }

    /// The arguments of the command that [`next`](Self::next) just found, as ranges of its input.
    pub(crate) fn arguments(&self) -> &[Range<usize>] {
        &self.arguments
    }

    /// Refuses an argument that is not a string by its first byte, before its line is complete.
    fn check_kind(&self, input: &[u8]) -> Result<(), ProtocolError> {
        let starts = self.read == self.token_start && self.reader.expects_line();
        match input.get(self.read) {
            Some(&kind) if starts && kind != b'$' => Err(ProtocolError::NoBulk(kind)),
            _ => Ok(()),
        }
    }

    /// Refuses a line that is too long, complete or not.
    fn check_length(&self, line: &[u8]) -> Result<(), ProtocolError> {
        if line.len() <= MAX_LINE || !self.reader.expects_line() {
            return Ok(());
        }
        let (error, head) = match (self.missing, line.first()) {
            (Some(_), _) => (ProtocolError::BulkCountTooLong, 1),
            (None, Some(b'*')) => (ProtocolError::CountTooLong, 1),
            (None, _) => (ProtocolError::InlineTooLong, 0),
        };
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE + head {
            return Err(error);
        }
        Ok(())
    }

    fn take_line(
        &mut self,
        line: &Line,
        input: &[u8],
        authenticated: bool,
    ) -> Result<(), ProtocolError> {
        if self.missing.is_some() {
            let length = line.number.filter(|length| (0..=MAX_BULK).contains(length));
            let length = length.ok_or(ProtocolError::Bulk)?;
            if length > MAX_BULK_UNAUTHENTICATED && !authenticated {
                return Err(ProtocolError::UnauthenticatedBulk);
            }
            self.reader.read_string(length.unsigned_abs());
        } else if line.kind == b'*' {
            let count = line.number.filter(|&count| count <= MAX_ARGUMENTS);
            let count = count.ok_or(ProtocolError::Count)?;
            if count > MAX_ARGUMENTS_UNAUTHENTICATED && !authenticated {
                return Err(ProtocolError::UnauthenticatedCount);
            }
            self.missing = Some(count.max(0));
        } else {
            self.split_inline(&input[..self.read]);
            self.missing = Some(0);
        }
        Ok(())
    }

    fn split_inline(&mut self, line: &[u8]) {
        let mut start = 0;
        for word in line.split(u8::is_ascii_whitespace) {
            if !word.is_empty() {
                self.arguments.push(start..start + word.len());
            }
            start += word.len() + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{array, bulk};

    type Command<'a> = (usize, Vec<&'a [u8]>);

    fn parse(input: &[u8]) -> Result<Option<Command<'_>>, ProtocolError> {
        let mut reader = CommandReader::default();
        let length = reader.next(input, false)?;
        let arguments = reader.arguments().iter().cloned();
        let arguments = arguments.map(|range| &input[range]).collect();
        Ok(length.map(|length| (length, arguments)))
    }

    #[test]
    fn a_command_is_found_only_when_complete() {
        let inputs: [(&[u8], &[&[u8]]); 6] = [
            (b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n", &[b"GET", b"a\r\nb"]),
            (b"*1\r\n$0\r\n\r\n", &[b""]),
            (b"*0\r\n", &[]),
            (b"SET  key 1\r\n", &[b"SET", b"key", b"1"]),
            (b"$3\r\n", &[b"$3"]),
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
    fn malformed_input_is_refused() {
        assert_eq!(parse(b"*x\r\n"), Err(ProtocolError::Count));
        assert_eq!(parse(b"*1\n"), Err(ProtocolError::Count));
        assert_eq!(parse(b"*11\r\n"), Err(ProtocolError::UnauthenticatedCount));
        assert_eq!(parse(b"*1\r\n:1\r\n"), Err(ProtocolError::NoBulk(b':')));
        assert_eq!(parse(b"*1\r\n:"), Err(ProtocolError::NoBulk(b':')));
        assert_eq!(parse(b"*1\r\n$-1\r\n"), Err(ProtocolError::Bulk));
        let long = parse(b"*1\r\n$16385\r\n");
        assert_eq!(long, Err(ProtocolError::UnauthenticatedBulk));
        let endless = vec![b'a'; MAX_LINE + 1];
        assert_eq!(parse(&endless), Err(ProtocolError::InlineTooLong));
    }

    #[test]
    fn a_line_is_too_long_wherever_it_is_cut() {
        for (line, end, error) in [
            ("", "\n", ProtocolError::InlineTooLong),
            ("*", "\r\n", ProtocolError::CountTooLong),
            ("*1\r\n$", "\r\n", ProtocolError::BulkCountTooLong),
        ] {
            let longest = format!("{line}{}", "1".repeat(MAX_LINE));
            assert_eq!(parse(longest.as_bytes()), Ok(None), "{error}");
            for more in ["1", &format!("1{end}"), &format!("11{end}")] {
                let input = format!("{longest}{more}");
                assert_eq!(parse(input.as_bytes()).as_ref(), Err(&error));
            }
        }
    }

    mod properties {
        use proptest::{collection::vec, prelude::*, sample::Index, string::string_regex};

        use super::*;

        fn written(arguments: &[Vec<u8>]) -> Vec<u8> {
            let mut bytes = Vec::new();
            array(&mut bytes, arguments.len());
            for argument in arguments {
                bulk(&mut bytes, argument);
            }
            bytes
        }

        /// Input of clients: well-formed, almost well-formed, and random.
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
                (MAX_LINE - 2..MAX_LINE + 3).prop_map(|length| vec![b'1'; length]),
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
                let (read, parts) = parse(&bytes).expect("well-formed").expect("complete");
                prop_assert_eq!(read, length);
                prop_assert_eq!(parts, arguments);
            }

            /// A prefix of the input is not judged yet, or judged as the whole is; and so it is by a reader that gets the
            /// input piece by piece.
            #[test]
            fn the_verdict_is_the_same_wherever_the_input_is_cut(
                input in input(),
                cuts in vec(any::<Index>(), 16),
                authenticated in any::<bool>(),
            ) {
                let mut whole = CommandReader::default();
                let verdict = whole.next(&input, authenticated);
                prop_assert!(whole.arguments().len() <= input.len());
                let mut cuts: Vec<usize> =
                    cuts.iter().map(|cut| cut.index(input.len() + 1)).chain(0..input.len().min(64)).collect();
                cuts.sort_unstable();
                let mut piecewise = CommandReader::default();
                for cut in cuts {
                    let mut fresh = CommandReader::default();
                    let judged = fresh.next(&input[..cut], authenticated);
                    let continued = piecewise.next(&input[..cut], authenticated);
                    prop_assert_eq!(&continued, &judged, "cut at {}", cut);
                    prop_assert_eq!(piecewise.arguments(), fresh.arguments());
                    if judged == Ok(None) {
                        prop_assert!(
                            !matches!(verdict, Ok(Some(length)) if length <= cut), "cut at {}", cut
                        );
                        continue;
                    }
                    prop_assert_eq!(&judged, &verdict, "cut at {}", cut);
                    prop_assert_eq!(fresh.arguments(), whole.arguments());
                    break;
                }
            }
        }
    }
}
