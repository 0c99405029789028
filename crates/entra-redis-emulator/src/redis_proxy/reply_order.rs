//! The order of replies on one connection: the gate's own between those of the server.
//!
//! For each command the gate reports which of the two replies, the server or the gate itself. The server's bytes pass through in
//! whatever pieces they arrive; only replies that may name a cluster's nodes, which are shard maps and errors, are kept back
//! until they are complete, and rewritten by [`addresses`]. Pushes pass without being counted.
//!
//! After some commands (a RESP2 subscription, `MONITOR`) replies cannot be matched with commands: then
//! [`ReplyOrder::stop_counting`] is called, and from there on the gate's own replies go out between the next two of the
//! server, and only errors are rewritten.
//!
//! # Invariants
//!
//! - The client receives replies in the order of its commands.

use std::collections::VecDeque;

use super::addresses::{self, ProxyOf, ShardMap};
use crate::resp::{Progress, ReplyReader};

/// The error for bytes of the server that are not RESP.
#[derive(Debug)]
pub(super) struct MalformedReply;

/// The replies that are still to come, in order.
#[derive(Debug, Default)]
pub(super) struct ReplyOrder {
    expected: VecDeque<Expected>,
    reader: ReplyReader,
    /// The beginning of a reply that is kept back until it is complete.
    partial: Option<Vec<u8>>,
    uncounted: bool,
}

#[derive(Debug)]
/// One or more replies to come.
enum Expected {
    /// So many replies from the server.
    Server(u64),
    /// One reply from the server, which is a shard map or an error.
    ShardMap(ShardMap),
    /// A reply of the gate.
    Own(Vec<u8>),
}

impl ReplyOrder {
    /// Returns true if no reply is to come.
    pub(super) fn is_idle(&self) -> bool {
        self.expected.is_empty() && !self.reader.is_inside()
    }

    /// Expects one reply from the server, perhaps a shard map.
    pub(super) fn expect_reply(&mut self, map: Option<ShardMap>) {
        match (map, self.expected.back_mut()) {
            _ if self.uncounted => {}
            (Some(map), _) => self.expected.push_back(Expected::ShardMap(map)),
            (None, Some(Expected::Server(count))) => *count += 1,
            (None, _) => self.expected.push_back(Expected::Server(1)),
        }
    }

    /// Expects replies from the server that cannot be counted.
    pub(super) fn stop_counting(&mut self) {
        self.uncounted = true;
    }

    /// Adds a reply of the gate, written by `write`; to `out` at once if no other reply comes first.
    pub(super) fn reply(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_idle() {
            return write(out);
        }
        let mut own = Vec::new();
        write(&mut own);
        self.expected.push_back(Expected::Own(own));
    }

    /// Passes bytes of the server on to `out`, with the gate's own replies in between. Nodes get the addresses that
    /// `proxy_of` returns.
    pub(super) fn pass(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        proxy_of: &ProxyOf<'_>,
    ) -> Result<(), MalformedReply> {
        loop {
            if !self.reader.is_inside() {
                self.partial = self.names_nodes(bytes).then(Vec::new);
            }
            let (end, map) = match self.reader.next(bytes) {
                Progress::Incomplete => {
                    self.partial
                        .as_mut()
                        .unwrap_or(out)
                        .extend_from_slice(bytes);
                    return Ok(());
                }
                Progress::Reply(end) => (end, self.take_expected()),
                Progress::Push(end) => (end, None),
                Progress::Malformed => return Err(MalformedReply),
            };
            match self.partial.take() {
                None => out.extend_from_slice(&bytes[..end]),
                Some(mut reply) => {
                    reply.extend_from_slice(&bytes[..end]);
                    let rewritten = addresses::rewrite(map, &reply, proxy_of);
                    out.extend_from_slice(&rewritten.unwrap_or(reply));
                }
            }
            bytes = &bytes[end..];
            while let Some(Expected::Own(own)) = self.expected.front() {
                out.extend_from_slice(own);
                self.expected.pop_front();
            }
        }
    }

    /// Returns true if the reply that begins here may name nodes.
    fn names_nodes(&self, reply: &[u8]) -> bool {
        match reply.first() {
            None | Some(b'>') => false,
            Some(b'-') => true,
            Some(_) => matches!(self.expected.front(), Some(Expected::ShardMap(_))),
        }
    }

    /// Removes the server's complete reply from the expected ones. Returns the kind of shard map that it is.
    fn take_expected(&mut self) -> Option<ShardMap> {
        match self.expected.front_mut() {
            Some(Expected::Server(count)) if *count > 1 => {
                *count -= 1;
                None
            }
            Some(Expected::Server(_)) => {
                self.expected.pop_front();
                None
            }
            Some(Expected::ShardMap(map)) => {
                let map = *map;
                self.expected.pop_front();
                Some(map)
            }
            Some(Expected::Own(_)) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// No node has a proxy.
    const NOWHERE: fn(&str, u16) -> Option<SocketAddr> = |_, _| None;

    #[test]
    fn own_replies_keep_their_place_in_whatever_pieces_the_server_sends() {
        let server = b"+1\r\n>1\r\n+push\r\n$3\r\n+2\n\r\n*1\r\n:3\r\n";
        let expected =
            b"+own a\r\n+1\r\n>1\r\n+push\r\n$3\r\n+2\n\r\n+own b\r\n+own c\r\n*1\r\n:3\r\n";
        for cut in 0..=server.len() {
            let (mut order, mut out) = (ReplyOrder::default(), Vec::new());
            order.reply(&mut out, |out| out.extend_from_slice(b"+own a\r\n"));
            order.expect_reply(None);
            order.expect_reply(None);
            order.reply(&mut out, |out| out.extend_from_slice(b"+own b\r\n"));
            order.reply(&mut out, |out| out.extend_from_slice(b"+own c\r\n"));
            order.expect_reply(None);
            order
                .pass(&server[..cut], &mut out, &NOWHERE)
                .expect("RESP");
            order
                .pass(&server[cut..], &mut out, &NOWHERE)
                .expect("RESP");
            assert_eq!(out, expected, "cut at {cut}");
            assert!(order.is_idle());
        }
    }

    #[test]
    fn only_replies_that_name_nodes_are_kept_back_and_rewritten() {
        let proxy_of = |_: &str, _| Some(SocketAddr::from(([10, 0, 0, 4], 8501)));
        // A value that looks like a redirection is not one, and a push may come between the command and its map.
        let server = b"$12\r\n-MOVED 1 a:1\r\n>1\r\n+push\r\n*1\r\n*3\r\n:0\r\n:9\r\n*3\r\n$1\r\na\r\n:1\r\n$2\r\nid\r\n\
            -MOVED 1 a:1\r\n-ERR x\r\n+OK\r\n";
        let expected = b"$12\r\n-MOVED 1 a:1\r\n>1\r\n+push\r\n*1\r\n*3\r\n:0\r\n:9\r\n*3\r\n$8\r\n10.0.0.4\r\n:8501\r\n$2\r\nid\r\n\
            +own\r\n-MOVED 1 10.0.0.4:8501\r\n-ERR x\r\n+OK\r\n";
        for cut in 0..=server.len() {
            let (mut order, mut out) = (ReplyOrder::default(), Vec::new());
            order.expect_reply(None);
            order.expect_reply(Some(ShardMap::Slots));
            order.reply(&mut out, |out| out.extend_from_slice(b"+own\r\n"));
            for _ in 0..3 {
                order.expect_reply(None);
            }
            order
                .pass(&server[..cut], &mut out, &proxy_of)
                .expect("RESP");
            // Other replies pass at once, in pieces.
            let streamed = cut.min(18);
            assert_eq!(out[..streamed], expected[..streamed], "cut at {cut}");
            order
                .pass(&server[cut..], &mut out, &proxy_of)
                .expect("RESP");
            let (actual, expected) = [&out, expected.as_slice()]
                .map(String::from_utf8_lossy)
                .into();
            assert_eq!(actual, expected, "cut at {cut}");
            assert!(order.is_idle());
        }
    }

    #[test]
    fn an_own_reply_waits_for_the_end_of_a_push() {
        let push = b">2\r\n+a\r\n$2\r\nbc\r\n";
        for cut in 1..push.len() {
            let (mut order, mut out) = (ReplyOrder::default(), Vec::new());
            order.pass(&push[..cut], &mut out, &NOWHERE).expect("RESP");
            order.reply(&mut out, |out| out.extend_from_slice(b"+own\r\n"));
            order.pass(&push[cut..], &mut out, &NOWHERE).expect("RESP");
            assert_eq!(out, [push.as_slice(), b"+own\r\n"].concat(), "cut at {cut}");
        }
    }
}
