//! The tokens of a RESP stream: lines and strings, in pieces of any size.
//!
//! [`CommandReader`](super::CommandReader), [`ReplyReader`](super::ReplyReader) and [`Value`](super::Value) are built on
//! [`Reader`]. The caller decides from each line what follows, because commands and replies differ there: a client may
//! send an inline command, and its sizes are limited.
//!
//! # Invariants
//!
//! - A stream gives the same tokens however it is cut.
//! - At most [`HEAD`] bytes are kept between two calls.

use super::integer_of;

/// Bytes kept of an incomplete line: enough for a type and any number of 64 bits. The rest of a longer line, such as an
/// error's text, matters to no caller.
pub(super) const HEAD: usize = 32;

/// An incremental reader of a RESP stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Bytes still to come of a string with its line end.
    string_left: u64,
    /// Head of an incomplete line.
    head: Vec<u8>,
}

/// A part of a RESP stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A line with its line end.
    Line(Line),
    /// The rest of a string that [`Reader::read_string`] announced, with its line end.
    String,
}

/// The meaning of a line in RESP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The first byte, which is the line end itself if the line is empty.
    pub(super) kind: u8,
    /// The number that makes up the rest of the line; `None` for anything else, and without CR before LF.
    pub(super) number: Option<i64>,
}

/// The parts of a value that follow its first line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing.
    Scalar,
    /// A string of so many bytes.
    String(u64),
    /// So many values.
    Aggregate(u64),
    /// So many values, and then the value that they describe.
    Attributes(u64),
}

impl Reader {
    /// Reads the next token from the start of `input` and returns it with its length there. `None` if the token is
    /// incomplete; then all of `input` was read.
    #[inline]
    pub(super) fn next(&mut self, input: &[u8]) -> Option<(Token, usize)> {
        if self.string_left > 0 {
            let left = usize::try_from(self.string_left).unwrap_or(usize::MAX);
            let read = left.min(input.len());
            self.string_left -= read as u64;
            return (self.string_left == 0).then_some((Token::String, read));
        }
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            self.keep(input);
            return None;
        };
        let line = &input[..=end];
        if self.head.is_empty() {
            return Some((Token::Line(Line::parse(line)), line.len()));
        }
        self.keep(line);
        let parsed = Line::parse(&self.head);
        self.head.clear();
        Some((Token::Line(parsed), line.len()))
    }

    /// Makes the next token a string of `length` bytes.
    pub(super) fn read_string(&mut self, length: u64) {
        self.string_left = length.saturating_add(2);
    }

    /// Returns true if the next token is a line.
    pub(super) fn expects_line(&self) -> bool {
        self.string_left == 0
    }

    fn keep(&mut self, part: &[u8]) {
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&part[..part.len().min(room)]);
    }
}

impl Line {
    /// Parses a line with its line end, or the head of a longer one.
    #[inline]
    fn parse(line: &[u8]) -> Self {
        let number = line.strip_suffix(b"\r\n").and_then(|line| line.get(1..));
        Self {
            kind: line.first().copied().unwrap_or(b'\n'),
            number: number.and_then(integer_of),
        }
    }

    /// Returns the shape of the value that this line begins; `None` if it begins none.
    pub(super) fn shape(&self) -> Option<Shape> {
        match (self.kind, self.number) {
            (b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(', _) => Some(Shape::Scalar),
            // A null string or array of RESP2.
            (b'$' | b'*', Some(-1)) => Some(Shape::Scalar),
            (kind, Some(length @ 0..)) => {
                let length = length.unsigned_abs();
                match kind {
                    b'$' | b'=' | b'!' => Some(Shape::String(length)),
                    b'*' | b'~' | b'>' => Some(Shape::Aggregate(length)),
                    b'%' => Some(Shape::Aggregate(length * 2)),
                    b'|' => Some(Shape::Attributes(length * 2)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_decides_the_shape_of_a_value() {
        for (line, expected) in [
            ("+OK\r\n", Some(Shape::Scalar)),
            ("-ERR no\r\n", Some(Shape::Scalar)),
            (":1\r\n", Some(Shape::Scalar)),
            ("$-1\r\n", Some(Shape::Scalar)),
            ("*-1\r\n", Some(Shape::Scalar)),
            ("$3\r\n", Some(Shape::String(3))),
            ("=3\r\n", Some(Shape::String(3))),
            ("*3\r\n", Some(Shape::Aggregate(3))),
            (">3\r\n", Some(Shape::Aggregate(3))),
            ("%3\r\n", Some(Shape::Aggregate(6))),
            ("|3\r\n", Some(Shape::Attributes(6))),
            ("%-1\r\n", None),
            ("$-2\r\n", None),
            ("$3\n", None),
            ("$03\r\n", None),
            ("$9223372036854775808\r\n", None),
            ("HTTP/1.1 400\r\n", None),
            ("\r\n", None),
        ] {
            assert_eq!(Line::parse(line.as_bytes()).shape(), expected, "{line:?}");
        }
    }

    #[test]
    fn of_an_incomplete_line_only_the_head_is_kept() {
        let mut reader = Reader::default();
        for _ in 0..10 {
            assert_eq!(reader.next(&[b'-'; 1000]), None);
            assert_eq!(reader.head.len(), HEAD);
        }
        let line = Line {
            kind: b'-',
            number: None,
        };
        assert_eq!(reader.next(b"\r\n+OK\r\n"), Some((Token::Line(line), 2)));
        assert!(reader.head.is_empty());
    }
}
