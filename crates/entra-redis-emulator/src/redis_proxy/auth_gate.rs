//! The decision about each command of one connection.
//!
//! `AUTH` and `HELLO … AUTH` are answered here. Every other command goes to the server or to the store, unchanged except
//! `HELLO`, which loses its `AUTH` option.
//!
//! # Invariants
//!
//! - A client that is not authenticated reaches nothing.
//! - Replies leave in the order of their commands (see `reply_order`).
//! - A rejected authentication leaves the earlier one in force, as in Redis.
//! - Nothing here waits.
//!
//! Differences from a real server: `AUTH` inside `MULTI` is answered at once, not queued, and inline commands have no
//! quotes when the store answers them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest::{Digest, SHA256, digest};
use tokio::time::Instant;

use super::addresses::ShardMap;
use super::reply_order::{MalformedReply, ReplyOrder};
use super::{Outbox, RedisProxy};
use crate::ClusteringPolicy;
use crate::control::RedisFault;
use crate::entra::token;
use crate::resp::{self, CommandReader, Hello};
use crate::store::Session;

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NOAUTH: &str = "NOAUTH Authentication required.";
/// The text of Redis 7.2 and later.
const NOAUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
    <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
    the same time";

/// The error of Redis Enterprise, on which Azure Managed Redis runs, for `CLUSTER` at a database without the cluster API.
/// Seen in reports from Redis Enterprise and from Azure, and known to clients that look for it; no manual has it.
const NOT_ALLOWED: &str = "ERR command is not allowed";

/// The user of an `AUTH` without a user name; no token has this object id.
const DEFAULT_USER: &[u8] = b"default";

/// The state of one connection.
pub(super) struct AuthGate<'a> {
    proxy: &'a RedisProxy,
    authenticated: Option<Authenticated>,
    protocol: u8,
    /// The server's address, which is also that of a node that it names without a host.
    server: Option<IpAddr>,
    /// The session that replies in place of a server.
    session: Option<Session>,
    order: ReplyOrder,
    commands: CommandReader,
    /// A fault withholds the reply to an authentication, and every one after it.
    hung: bool,
    closing: bool,
    pub(super) to_client: Outbox,
    pub(super) to_server: Outbox,
}

/// The token with which a connection is authenticated.
struct Authenticated {
    expires_at: Instant,
    token: Digest,
}

/// The decision about one `AUTH`.
enum Authentication {
    Accepted,
    Rejected,
    Hung,
}

impl<'a> AuthGate<'a> {
    pub(super) fn new(proxy: &'a RedisProxy, server: Option<IpAddr>) -> Self {
        Self {
            proxy,
            server,
            authenticated: None,
            protocol: 2,
            session: server
                .is_none()
                .then(|| Session::new(Arc::clone(&proxy.store))),
            order: ReplyOrder::default(),
            commands: CommandReader::default(),
            hung: false,
            closing: false,
            to_client: Outbox::default(),
            to_server: Outbox::default(),
        }
    }

    /// Returns the expiry of the token with which the client is authenticated.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let authenticated = self.authenticated.as_ref();
        authenticated.map(|authenticated| authenticated.expires_at)
    }

    /// Returns true if the client's further commands are ignored.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Returns true if every reply is sent.
    pub(super) fn is_idle(&self) -> bool {
        self.order.is_idle() && !self.to_client.is_waiting() && !self.to_server.is_waiting()
    }

    /// Takes all complete commands out of `input`.
    pub(super) fn take_commands(&mut self, input: &mut Vec<u8>) {
        let mut at = 0;
        let mut commands = std::mem::take(&mut self.commands);
        while !self.closing && !self.hung {
            match commands.next(&input[at..], self.authenticated.is_some()) {
                Ok(None) => break,
                Ok(Some(length)) => {
                    let raw = &input[at..at + length];
                    at += length;
                    let arguments = commands.arguments().iter();
                    let arguments: Vec<&[u8]> = arguments.map(|part| &raw[part.clone()]).collect();
                    self.take_command(&arguments, raw);
                }
                Err(error) => {
                    self.answer_error(&format!("ERR Protocol error: {error}"));
                    self.closing = true;
                }
            }
        }
        self.commands = commands;
        if self.closing || self.hung {
            input.clear();
        } else {
            input.drain(..at);
        }
    }

    /// Takes bytes from the server.
    pub(super) fn take_replies(&mut self, bytes: &[u8]) -> Result<(), MalformedReply> {
        let (nodes, server) = (&self.proxy.nodes, self.server);
        let proxy_of = |host: &str, port| nodes.proxy_of(host, port, server?);
        self.order.pass(bytes, &mut self.to_client.bytes, &proxy_of)
    }

    fn take_command(&mut self, arguments: &[&[u8]], raw: &[u8]) {
        let Some(name) = arguments.first() else {
            return;
        };
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        if is("AUTH") {
            self.auth(arguments);
        } else if is("HELLO") {
            self.hello(arguments);
        } else if is("QUIT") {
            self.answer_ok();
            self.closing = true;
        } else if is("RESET") {
            self.authenticated = None;
            self.protocol = 2;
            self.forward(arguments, raw);
        } else if self.authenticated.is_none() {
            self.answer_error(NOAUTH);
        } else if is("CLUSTER")
            && self.proxy.clustering_policy == ClusteringPolicy::EnterpriseCluster
        {
            // Azure's list has INFO, HELP, KEYSLOT, NODES and SLOTS; it supports the others under no policy.
            self.answer_error(NOT_ALLOWED);
        } else {
            self.forward(arguments, raw);
        }
    }

    fn auth(&mut self, arguments: &[&[u8]]) {
        let (user, token) = match arguments {
            [_, token] => (DEFAULT_USER, *token),
            [_, user, token] => (*user, *token),
            [_] => return self.answer_error("ERR wrong number of arguments for 'auth' command"),
            _ => return self.answer_error("ERR syntax error"),
        };
        match self.authenticate(user, token) {
            Authentication::Accepted => self.answer_ok(),
            Authentication::Rejected => self.answer_error(WRONGPASS),
            Authentication::Hung => {}
        }
    }

    fn hello(&mut self, arguments: &[&[u8]]) {
        let hello = match Hello::parse(&arguments[1..]) {
            Ok(hello) => hello,
            Err(text) => return self.answer_error(&text),
        };
        if let Some((user, token)) = hello.credentials {
            match self.authenticate(user, token) {
                Authentication::Accepted => {}
                Authentication::Rejected => return self.answer_error(WRONGPASS),
                Authentication::Hung => return,
            }
        }
        if self.authenticated.is_none() {
            return self.answer_error(NOAUTH_HELLO);
        }
        self.protocol = hello.version.unwrap_or(self.protocol);
        let arguments = hello.without_credentials();
        let mut raw = Vec::new();
        resp::array(&mut raw, arguments.len());
        for argument in &arguments {
            resp::bulk(&mut raw, argument);
        }
        self.forward(&arguments, &raw);
    }

    /// Decides about an authentication and, if the token is valid, binds the connection to it.
    fn authenticate(&mut self, user: &[u8], token: &[u8]) -> Authentication {
        let controls = &self.proxy.controls;
        let fault = controls.redis();
        let hangs = match fault {
            RedisFault::HangAuth => true,
            RedisFault::HangReauth => self.authenticated.is_some(),
            _ => false,
        };
        if hangs {
            self.hung = true;
            return Authentication::Hung;
        }
        let signer = &self.proxy.signer;
        let mut checked = signer.authenticate(user, token, token::now());
        if let (Ok(_), RedisFault::LateTokens(delay)) = (&checked, fault) {
            checked = signer.check_age(token, delay).and(checked);
        }
        match checked {
            Ok(expires_at) if fault != RedisFault::RefuseAuth => {
                let token = digest(&SHA256, token);
                let before = self.authenticated.replace(Authenticated {
                    expires_at: instant_of(expires_at),
                    token,
                });
                controls.counters().auth_accepted.add();
                if before.is_some_and(|before| before.token.as_ref() == token.as_ref()) {
                    controls.counters().auth_repeated.add();
                }
                Authentication::Accepted
            }
            _ => {
                controls.counters().auth_refused.add();
                if let Err(reason) = checked {
                    tracing::debug!(%reason, "token rejected");
                }
                Authentication::Rejected
            }
        }
    }

    fn forward(&mut self, arguments: &[&[u8]], raw: &[u8]) {
        if let Some(session) = &mut self.session {
            return session.execute(arguments, &mut self.to_client.bytes);
        }
        self.to_server.bytes.extend_from_slice(raw);
        match replies_of(arguments, self.protocol) {
            ReplyCount::One => self.order.expect_reply(ShardMap::requested_by(arguments)),
            ReplyCount::None => {}
            ReplyCount::Unknown => self.order.stop_counting(),
        }
    }

    fn answer_ok(&mut self) {
        let write = |out: &mut Vec<u8>| resp::status(out, "OK");
        self.order.reply(&mut self.to_client.bytes, write);
    }

    fn answer_error(&mut self, text: &str) {
        let write = |out: &mut Vec<u8>| resp::error(out, text);
        self.order.reply(&mut self.to_client.bytes, write);
    }
}

/// The number of replies to a command.
enum ReplyCount {
    One,
    None,
    Unknown,
}

fn replies_of(arguments: &[&[u8]], protocol: u8) -> ReplyCount {
    let ends = |position: usize, word: &str| {
        let text: &[u8] = arguments.get(position).copied().unwrap_or_default();
        let start = text.len().saturating_sub(word.len());
        text[start..].eq_ignore_ascii_case(word.as_bytes())
    };
    // `SUBSCRIBE` and its five variants: RESP3 confirms by pushes, RESP2 by one array for each channel.
    if ends(0, "SUBSCRIBE") && protocol == 3 {
        return ReplyCount::None;
    }
    if ends(0, "SUBSCRIBE") || ends(0, "MONITOR") || ends(0, "CLIENT") && ends(1, "REPLY") {
        return ReplyCount::Unknown;
    }
    ReplyCount::One
}

/// Converts a time of the wall clock to the clock of timers.
fn instant_of(seconds: u64) -> Instant {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let left = at.duration_since(SystemTime::now());
    Instant::now() + left.unwrap_or_default()
}
