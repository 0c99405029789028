//! The ends of a server's replies, in whatever pieces they arrive.
//!
//! `reply_order` follows the server's bytes with [`ReplyReader`]. RESP2 and RESP3, all types that Redis sends; the content
//! of a reply is not looked at, and none of it is kept.

use super::reader::{Reader, Shape, Token};

/// The result of reading a piece of a stream of replies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The piece ended inside a reply, or was empty.
    Incomplete,
    /// A reply to a command ended after this many bytes.
    Reply(usize),
    /// A push, which belongs to no command, ended after this many bytes.
    Push(usize),
    /// The bytes are not RESP.
    Malformed,
}

/// An incremental reader that finds the ends of replies.
#[derive(Debug, Default)]
pub(crate) struct ReplyReader {
    reader: Reader,
    /// Values still to come in the current reply; 0 between replies.
    missing: u64,
    /// The current reply is a push.
    is_push: bool,
}

impl ReplyReader {
    /// Returns true if the bytes read so far end inside a reply.
    pub(crate) fn is_inside(&self) -> bool {
        self.missing > 0
    }

    /// Reads `input` up to the end of the current reply, or to its own end.
    pub(crate) fn next(&mut self, input: &[u8]) -> Progress {
        let mut at = 0;
        while at < input.len() {
            if self.missing == 0 {
                self.missing = 1;
                self.is_push = input[at] == b'>';
            }
            let Some((token, length)) = self.reader.next(&input[at..]) else {
                return Progress::Incomplete;
            };
            at += length;
            let shape = match token {
                Token::Line(line) => line.shape(),
                Token::String => Some(Shape::Scalar),
            };
            match shape {
                Some(Shape::Scalar) => self.missing -= 1,
                Some(Shape::String(length)) => self.reader.read_string(length),
                Some(Shape::Aggregate(count)) => {
                    self.missing = (self.missing - 1).saturating_add(count);
                }
                Some(Shape::Attributes(count)) => {
                    self.missing = self.missing.saturating_add(count);
                }
                None => return Progress::Malformed,
            }
            if self.missing == 0 {
                return if self.is_push {
                    Progress::Push(at)
                } else {
                    Progress::Reply(at)
                };
            }
        }
        Progress::Incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type of reply; `true` for a push.
    const REPLIES: [(&[u8], bool); 15] = [
        (b"+OK\r\n", false),
        (
            b"-ERR a rather long text that no line buffer needs whole\r\n",
            false,
        ),
        (b":-1\r\n", false),
        (b"$4\r\n\r\n+a\r\n", false),
        (b"$0\r\n\r\n", false),
        (b"$-1\r\n", false),
        (b"*-1\r\n", false),
        (b"*0\r\n", false),
        (b"*2\r\n*2\r\n:1\r\n$1\r\nx\r\n+y\r\n", false),
        (b"_\r\n", false),
        (b"%2\r\n+a\r\n*1\r\n,1.5\r\n+b\r\n#t\r\n", false),
        (b"~1\r\n(123456789012345678901234567890123456789\r\n", false),
        (b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n", true),
        (b"|1\r\n+ttl\r\n:3\r\n*1\r\n:7\r\n", false),
        (b"=7\r\ntxt:abc\r\n", false),
    ];

    #[test]
    fn every_type_of_reply_is_cut_at_its_end_in_whatever_pieces() {
        let stream: Vec<u8> = REPLIES
            .iter()
            .flat_map(|(reply, _)| *reply)
            .copied()
            .collect();
        for cut in 0..=stream.len() {
            let mut reader = ReplyReader::default();
            let (mut seen, mut reply_start) = (Vec::new(), 0);
            for (piece, offset) in [(&stream[..cut], 0), (&stream[cut..], cut)] {
                let mut at = 0;
                loop {
                    let (length, push) = match reader.next(&piece[at..]) {
                        Progress::Incomplete => break,
                        Progress::Reply(length) => (length, false),
                        Progress::Push(length) => (length, true),
                        Progress::Malformed => panic!("malformed at {at}, cut at {cut}"),
                    };
                    at += length;
                    seen.push((&stream[reply_start..offset + at], push));
                    reply_start = offset + at;
                }
            }
            assert_eq!(seen, REPLIES, "cut at {cut}");
            assert!(!reader.is_inside());
        }
        assert_eq!(
            ReplyReader::default().next(b"HTTP/1.1 400\r\n"),
            Progress::Malformed
        );
    }

    mod properties {
        use proptest::{collection::vec, prelude::*, sample::Index};

        use super::*;

        /// A reply of any type and depth.
        fn reply() -> impl Strategy<Value = Vec<u8>> {
            let leaf = prop_oneof![
                "[+:_#,(-][ -~]{0,60}\r\n".prop_map(String::into_bytes),
                (
                    prop::sample::select(b"$=!".to_vec()),
                    vec(any::<u8>(), 0..60)
                )
                    .prop_map(|(kind, text)| {
                        let head = format!("{}{}\r\n", char::from(kind), text.len());
                        [head.as_bytes(), &text, b"\r\n"].concat()
                    }),
                Just(b"$-1\r\n".to_vec()),
                Just(b"*-1\r\n".to_vec()),
            ];
            leaf.prop_recursive(5, 40, 6, |inner| {
                let many = (
                    prop::sample::select(b"*~".to_vec()),
                    vec(inner.clone(), 0..6),
                );
                let pairs = vec((inner.clone(), inner.clone()), 0..3);
                let of = |kind: u8, length: usize, elements: Vec<u8>| {
                    let head = format!("{}{length}\r\n", char::from(kind));
                    [head.into_bytes(), elements].concat()
                };
                let joined = |pairs: Vec<(Vec<u8>, Vec<u8>)>| {
                    let all: Vec<_> = pairs.into_iter().flat_map(|(a, b)| [a, b]).collect();
                    all.concat()
                };
                prop_oneof![
                    many.prop_map(move |(kind, all)| of(kind, all.len(), all.concat())),
                    pairs
                        .clone()
                        .prop_map(move |pairs| of(b'%', pairs.len(), joined(pairs))),
                    (pairs, inner).prop_map(move |(pairs, value)| {
                        [of(b'|', pairs.len(), joined(pairs)), value].concat()
                    }),
                ]
            })
        }

        fn push() -> impl Strategy<Value = Vec<u8>> {
            vec(reply(), 0..4)
                .prop_map(|all| [format!(">{}\r\n", all.len()).into_bytes(), all.concat()].concat())
        }

        /// The end of each reply in a stream that arrives in these pieces, `true` for a push; and whether it was malformed.
        fn ends(stream: &[u8], cuts: &[Index]) -> (Vec<(usize, bool)>, bool) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            let (mut reader, mut found, mut at) = (ReplyReader::default(), Vec::new(), 0);
            for cut in cuts {
                loop {
                    match reader.next(&stream[at..cut]) {
                        Progress::Incomplete => break,
                        Progress::Malformed => return (found, true),
                        Progress::Reply(length) => found.push((at + length, false)),
                        Progress::Push(length) => found.push((at + length, true)),
                    }
                    at = found.last().map_or(0, |(end, _)| *end);
                }
                at = cut;
            }
            (found, false)
        }

        proptest! {
            #[test]
            fn every_reply_is_cut_at_its_end(
                replies in vec(prop_oneof![reply().prop_map(|r| (r, false)), push().prop_map(|r| (r, true))], 0..6),
                cuts in vec(any::<Index>(), 0..12),
            ) {
                let (mut stream, mut expected) = (Vec::new(), Vec::new());
                for (reply, is_push) in &replies {
                    stream.extend_from_slice(reply);
                    expected.push((stream.len(), *is_push));
                }
                prop_assert_eq!(ends(&stream, &cuts), (expected, false));
            }

            #[test]
            fn any_bytes_are_judged_the_same_wherever_they_are_cut(
                stream in vec(
                    prop_oneof![
                        vec(any::<u8>(), 0..20),
                        "[*%~>|$=!+_-](-1|[0-9]{0,3}|9223372036854775807|18446744073709551615)?[ \r]{0,40}\n?"
                            .prop_map(String::into_bytes),
                        reply(),
                    ],
                    0..8,
                ),
                cuts in vec(any::<Index>(), 0..12),
            ) {
                let stream = stream.concat();
                prop_assert_eq!(ends(&stream, &cuts), ends(&stream, &[]));
            }
        }
    }
}
