//! The order of replies: a connection's own answers between those of the server.
//!
//! `gate` says for each command who will answer it, the server or the gate itself, and passes the server's bytes
//! through; what reaches the client is in the order of the commands. Replies are passed on as they come, in whatever
//! pieces; pushes pass without being counted.
//!
//! After some commands (a RESP2 subscription, `MONITOR`) nobody can tell which reply belongs to which command: then
//! [`Order::stop_counting`] is called, and from there on the gate's own answers go out between the next two replies.

use std::collections::VecDeque;

use super::super::resp::replies::{Replies, Step};

/// The server's bytes are not RESP.
#[derive(Debug)]
pub(super) struct Broken;

/// Who answers the commands that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Order {
    waiting: VecDeque<Answer>,
    replies: Replies,
    uncounted: bool,
}

#[derive(Debug)]
enum Answer {
    /// So many replies of the server.
    Server(u64),
    /// The gate's own.
    Own(Vec<u8>),
}

impl Order {
    /// Whether every command is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.replies.is_inside()
    }

    /// A command went to the server: one reply will come.
    pub(super) fn expect_reply(&mut self) {
        match self.waiting.back_mut() {
            _ if self.uncounted => {}
            Some(Answer::Server(count)) => *count += 1,
            _ => self.waiting.push_back(Answer::Server(1)),
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

    /// Passes bytes of the server on, with the own answers whose turn comes in between.
    pub(super) fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            let end = match self.replies.step(bytes) {
                Step::More => {
                    out.extend_from_slice(bytes);
                    return Ok(());
                }
                Step::Reply(end) => {
                    if let Some(Answer::Server(count)) = self.waiting.front_mut() {
                        *count -= 1;
                        if *count == 0 {
                            self.waiting.pop_front();
                        }
                    }
                    end
                }
                Step::Push(end) => end,
                Step::Broken => return Err(Broken),
            };
            out.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end..];
            while let Some(Answer::Own(own)) = self.waiting.front() {
                out.extend_from_slice(own);
                self.waiting.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_answers_keep_their_place_in_whatever_pieces_the_server_answers() {
        let server = b"+1\r\n>1\r\n+push\r\n$3\r\n+2\n\r\n*1\r\n:3\r\n";
        let expected =
            b"+own a\r\n+1\r\n>1\r\n+push\r\n$3\r\n+2\n\r\n+own b\r\n+own c\r\n*1\r\n:3\r\n";
        for cut in 0..=server.len() {
            let (mut order, mut out) = (Order::default(), Vec::new());
            order.answer(&mut out, |out| out.extend_from_slice(b"+own a\r\n"));
            order.expect_reply();
            order.expect_reply();
            order.answer(&mut out, |out| out.extend_from_slice(b"+own b\r\n"));
            order.answer(&mut out, |out| out.extend_from_slice(b"+own c\r\n"));
            order.expect_reply();
            order.pass(&server[..cut], &mut out).expect("it is RESP");
            order.pass(&server[cut..], &mut out).expect("it is RESP");
            assert_eq!(out, expected, "cut at {cut}");
            assert!(order.is_idle());
        }
    }

    #[test]
    fn an_own_answer_waits_for_the_end_of_a_push() {
        let push = b">2\r\n+a\r\n$2\r\nbc\r\n";
        for cut in 1..push.len() {
            let (mut order, mut out) = (Order::default(), Vec::new());
            order.pass(&push[..cut], &mut out).expect("it is RESP");
            order.answer(&mut out, |out| out.extend_from_slice(b"+own\r\n"));
            order.pass(&push[cut..], &mut out).expect("it is RESP");
            assert_eq!(out, [push.as_slice(), b"+own\r\n"].concat(), "cut at {cut}");
        }
    }
}
