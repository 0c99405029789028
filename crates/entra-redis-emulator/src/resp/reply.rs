//! Replies: where each one of a server's ends, in whatever pieces they come.
//!
//! `front::order` follows the server's bytes with [`Replies`]; nothing is kept of them but the head of a line that was
//! cut. RESP2 and RESP3, all types that Redis sends; what a reply says is not looked at.

use super::integer_of;

/// A step through a stream of replies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The bytes ended inside a reply, or there were none.
    More,
    /// A reply to a command ended after this many bytes.
    Reply(usize),
    /// A push, which answers nobody, ended after this many bytes.
    Push(usize),
    /// Not RESP: nobody knows where anything ends.
    Broken,
}

/// Follows a server's replies, RESP2 and RESP3, in whatever pieces they come.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// Values still to come before the reply at hand is whole; 0 between replies.
    open: u64,
    /// Whether the reply at hand is a push.
    push: bool,
    /// Bytes of a bulk string, with its line end, still to come.
    skip: u64,
    /// The line at hand, as far as it matters: its type and length.
    line: Vec<u8>,
}

impl Replies {
    /// Whether the bytes so far end inside a reply.
    pub(crate) fn is_inside(&self) -> bool {
        self.open > 0 || self.skip > 0
    }

    /// Follows `input` to the end of the reply at hand, or to its own.
    pub(crate) fn step(&mut self, input: &[u8]) -> Step {
        let mut at = 0;
        while at < input.len() {
            if self.skip > 0 {
                let left = input.len() - at;
                let step = usize::try_from(self.skip).unwrap_or(left).min(left);
                self.skip -= step as u64;
                at += step;
            } else {
                if self.open == 0 {
                    self.open = 1;
                    self.push = input[at] == b'>';
                }
                let Some(end) = input[at..].iter().position(|&byte| byte == b'\n') else {
                    self.remember(&input[at..]);
                    return Step::More;
                };
                self.remember(&input[at..at + end]);
                at += end + 1;
                if !self.take_line() {
                    return Step::Broken;
                }
            }
            if self.open == 0 && self.skip == 0 {
                return match self.push {
                    true => Step::Push(at),
                    false => Step::Reply(at),
                };
            }
        }
        Step::More
    }

    /// Keeps the head of a line: a type and a length fit; of a long error or status only its type matters.
    fn remember(&mut self, part: &[u8]) {
        let room = 32usize.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// Accounts for the line at hand; `false` if it is not RESP.
    fn take_line(&mut self) -> bool {
        let Some((kind, rest)) = self.line.split_first() else {
            return false;
        };
        let length = integer_of(rest.trim_ascii_end());
        let (elements, bytes) = match (kind, length) {
            (b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(', _) => (0, 0),
            // A null string or array is a value without anything after it.
            (b'$' | b'*', Some(-1)) => (0, 0),
            (b'$' | b'=' | b'!', Some(length @ 0..)) => (0, length.unsigned_abs() + 2),
            (b'*' | b'~' | b'>', Some(length @ 0..)) => (length.unsigned_abs(), 0),
            (b'%', Some(length @ 0..)) => (length.unsigned_abs() * 2, 0),
            // Attributes come before a value and are none themselves.
            (b'|', Some(length @ 0..)) => (length.unsigned_abs() * 2 + 1, 0),
            _ => return false,
        };
        self.line.clear();
        self.open = (self.open - 1).saturating_add(elements);
        self.skip = bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reply type there is, with its end; pushes are marked.
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
    fn replies_end_where_they_end_in_whatever_pieces() {
        let stream: Vec<u8> = REPLIES
            .iter()
            .flat_map(|(reply, _)| *reply)
            .copied()
            .collect();
        for cut in 0..=stream.len() {
            let mut replies = Replies::default();
            let (mut seen, mut reply_start) = (Vec::new(), 0);
            for (piece, offset) in [(&stream[..cut], 0), (&stream[cut..], cut)] {
                let mut at = 0;
                loop {
                    let (length, push) = match replies.step(&piece[at..]) {
                        Step::More => break,
                        Step::Reply(length) => (length, false),
                        Step::Push(length) => (length, true),
                        Step::Broken => panic!("broken at {at}, cut at {cut}"),
                    };
                    at += length;
                    seen.push((&stream[reply_start..offset + at], push));
                    reply_start = offset + at;
                }
            }
            assert_eq!(seen, REPLIES, "cut at {cut}");
            assert!(!replies.is_inside());
        }
        assert_eq!(Replies::default().step(b"HTTP/1.1 400\r\n"), Step::Broken);
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

        /// Where each reply ends, in a stream that comes in these pieces; `true` is a push. Last, whether it broke.
        fn ends(stream: &[u8], cuts: &[Index]) -> (Vec<(usize, bool)>, bool) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            let (mut replies, mut found, mut at) = (Replies::default(), Vec::new(), 0);
            for cut in cuts {
                loop {
                    match replies.step(&stream[at..cut]) {
                        Step::More => break,
                        Step::Broken => return (found, true),
                        Step::Reply(length) => found.push((at + length, false)),
                        Step::Push(length) => found.push((at + length, true)),
                    }
                    at = found.last().map_or(0, |(end, _)| *end);
                }
                at = cut;
                assert!(replies.line.len() <= 32, "of a line only its head is kept");
            }
            (found, false)
        }

        proptest! {
            #[test]
            fn every_reply_ends_where_it_ends(
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
