//! The order of replies: a connection's own answers between those of the server.
//!
//! `gate` says for each command who will answer it, the server or the gate itself, and passes the server's bytes
//! through; what reaches the client is in the order of the commands. Replies are passed on as they come, in whatever
//! pieces; only those that may name a cluster's nodes, which are shard maps and errors, are held until they are whole, and
//! rewritten by [`addresses`]. Pushes pass without being counted.
//!
//! After some commands (a RESP2 subscription, `MONITOR`) nobody can tell which reply belongs to which command: then
//! [`ReplyOrder::stop_counting`] is called, and from there on the gate's own answers go out between the next two replies, and
//! only errors are rewritten.

use std::collections::VecDeque;

use super::addresses::{self, ProxyOf, ShardMap};
use crate::resp::{Progress, ReplyReader};

/// The server's bytes are not RESP.
#[derive(Debug)]
pub(super) struct Broken;

/// Who answers the commands that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct ReplyOrder {
    waiting: VecDeque<Answer>,
    replies: ReplyReader,
    /// What has come of a reply that is held until it is whole.
    held: Option<Vec<u8>>,
    uncounted: bool,
}

#[derive(Debug)]
enum Answer {
    /// So many replies of the server.
    Server(u64),
    /// One reply of the server, which is a shard map or an error.
    ShardMap(ShardMap),
    /// The gate's own.
    Own(Vec<u8>),
}

impl ReplyOrder {
    /// Whether every command is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.replies.is_inside()
    }

    /// A command went to the server: one reply will come, perhaps a shard map.
    pub(super) fn expect_reply(&mut self, map: Option<ShardMap>) {
        match (map, self.waiting.back_mut()) {
            _ if self.uncounted => {}
            (Some(map), _) => self.waiting.push_back(Answer::ShardMap(map)),
            (None, Some(Answer::Server(count))) => *count += 1,
            (None, _) => self.waiting.push_back(Answer::Server(1)),
        }
    }

    /// A command went to the server whose replies cannot be counted.
    pub(super) fn stop_counting(&mut self) {
        self.uncounted = true;
    }

    /// A command is answered by the gate, with what `write` writes; at once if it is its turn.
    pub(super) fn answer(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_idle() {
            return write(out);
        }
        let mut own = Vec::new();
        write(&mut own);
        self.waiting.push_back(Answer::Own(own));
    }

    /// Passes bytes of the server on, with the own answers whose turn comes in between; nodes are named by what
    /// `proxy_of` says.
    pub(super) fn pass(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        proxy_of: &ProxyOf<'_>,
    ) -> Result<(), Broken> {
        loop {
            if !self.replies.is_inside() {
                self.held = self.names_nodes(bytes).then(Vec::new);
            }
            let (end, map) = match self.replies.next(bytes) {
                Progress::Incomplete => {
                    self.held.as_mut().unwrap_or(out).extend_from_slice(bytes);
                    return Ok(());
                }
                Progress::Reply(end) => (end, self.take_expected()),
                Progress::Push(end) => (end, None),
                Progress::Malformed => return Err(Broken),
            };
            match self.held.take() {
                None => out.extend_from_slice(&bytes[..end]),
                Some(mut reply) => {
                    reply.extend_from_slice(&bytes[..end]);
                    let rewritten = addresses::rewritten(map, &reply, proxy_of);
                    out.extend_from_slice(&rewritten.unwrap_or(reply));
                }
            }
            bytes = &bytes[end..];
            while let Some(Answer::Own(own)) = self.waiting.front() {
                out.extend_from_slice(own);
                self.waiting.pop_front();
            }
        }
    }

    /// Whether the reply that begins here may name nodes.
    fn names_nodes(&self, reply: &[u8]) -> bool {
        match reply.first() {
            None | Some(b'>') => false,
            Some(b'-') => true,
            Some(_) => matches!(self.waiting.front(), Some(Answer::ShardMap(_))),
        }
    }

    /// Takes the reply that has come off those that are waited for; says which shard map it is.
    fn take_expected(&mut self) -> Option<ShardMap> {
        match self.waiting.front_mut() {
            Some(Answer::Server(count)) if *count > 1 => {
                *count -= 1;
                None
            }
            Some(Answer::Server(_)) => {
                self.waiting.pop_front();
                None
            }
            Some(Answer::ShardMap(map)) => {
                let map = *map;
                self.waiting.pop_front();
                Some(map)
            }
            Some(Answer::Own(_)) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// No node has a front.
    const NOWHERE: fn(&str, u16) -> Option<SocketAddr> = |_, _| None;

    #[test]
    fn own_answers_keep_their_place_in_whatever_pieces_the_server_answers() {
        let server = b"+1\r\n>1\r\n+push\r\n$3\r\n+2\n\r\n*1\r\n:3\r\n";
        let expected =
            b"+own a\r\n+1\r\n>1\r\n+push\r\n$3\r\n+2\n\r\n+own b\r\n+own c\r\n*1\r\n:3\r\n";
        for cut in 0..=server.len() {
            let (mut order, mut out) = (ReplyOrder::default(), Vec::new());
            order.answer(&mut out, |out| out.extend_from_slice(b"+own a\r\n"));
            order.expect_reply(None);
            order.expect_reply(None);
            order.answer(&mut out, |out| out.extend_from_slice(b"+own b\r\n"));
            order.answer(&mut out, |out| out.extend_from_slice(b"+own c\r\n"));
            order.expect_reply(None);
            order
                .pass(&server[..cut], &mut out, &NOWHERE)
                .expect("it is RESP");
            order
                .pass(&server[cut..], &mut out, &NOWHERE)
                .expect("it is RESP");
            assert_eq!(out, expected, "cut at {cut}");
            assert!(order.is_idle());
        }
    }

    #[test]
    fn only_what_names_nodes_is_held_and_rewritten() {
        let proxy_of = |_: &str, _| Some(SocketAddr::from(([10, 0, 0, 4], 8501)));
        // A value that looks like a redirection is none, and a push may come between a map's command and the map.
        let server = b"$12\r\n-MOVED 1 a:1\r\n>1\r\n+push\r\n*1\r\n*3\r\n:0\r\n:9\r\n*3\r\n$1\r\na\r\n:1\r\n$2\r\nid\r\n\
            -MOVED 1 a:1\r\n-ERR x\r\n+OK\r\n";
        let expected = b"$12\r\n-MOVED 1 a:1\r\n>1\r\n+push\r\n*1\r\n*3\r\n:0\r\n:9\r\n*3\r\n$8\r\n10.0.0.4\r\n:8501\r\n$2\r\nid\r\n\
            +own\r\n-MOVED 1 10.0.0.4:8501\r\n-ERR x\r\n+OK\r\n";
        for cut in 0..=server.len() {
            let (mut order, mut out) = (ReplyOrder::default(), Vec::new());
            order.expect_reply(None);
            order.expect_reply(Some(ShardMap::Slots));
            order.answer(&mut out, |out| out.extend_from_slice(b"+own\r\n"));
            for _ in 0..3 {
                order.expect_reply(None);
            }
            order
                .pass(&server[..cut], &mut out, &proxy_of)
                .expect("it is RESP");
            // What is no map passes at once, in pieces.
            let streamed = cut.min(18);
            assert_eq!(out[..streamed], expected[..streamed], "cut at {cut}");
            order
                .pass(&server[cut..], &mut out, &proxy_of)
                .expect("it is RESP");
            let (met, expected) = [&out, expected.as_slice()]
                .map(String::from_utf8_lossy)
                .into();
            assert_eq!(met, expected, "cut at {cut}");
            assert!(order.is_idle());
        }
    }

    #[test]
    fn an_own_answer_waits_for_the_end_of_a_push() {
        let push = b">2\r\n+a\r\n$2\r\nbc\r\n";
        for cut in 1..push.len() {
            let (mut order, mut out) = (ReplyOrder::default(), Vec::new());
            order
                .pass(&push[..cut], &mut out, &NOWHERE)
                .expect("it is RESP");
            order.answer(&mut out, |out| out.extend_from_slice(b"+own\r\n"));
            order
                .pass(&push[cut..], &mut out, &NOWHERE)
                .expect("it is RESP");
            assert_eq!(out, [push.as_slice(), b"+own\r\n"].concat(), "cut at {cut}");
        }
    }
}
