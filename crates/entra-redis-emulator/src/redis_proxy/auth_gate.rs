//! The gate: what becomes of each command of one connection.
//!
//! `front` feeds it a client's and a server's bytes and sends on what it leaves in its two outboxes. `AUTH` and
//! `HELLO … AUTH` are answered here, checked by `token`; all else goes to the server or to `store`, untouched but for
//! `HELLO`, which loses its sign-in; a cluster's nodes are named to the client by their proxies (see `order`). What always holds: whoever is not signed in reaches nothing, replies leave in the
//! order of their commands (see `order`), and a refused sign-in leaves the one before in force, as in Redis. Nothing
//! here waits.
//!
//! Differences to a real server: a sign-in inside `MULTI` is answered at once, not queued, and inline commands take no
//! quotes when the store answers them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest::{Digest, SHA256, digest};
use tokio::time::Instant;

use super::addresses::ShardMap;
use super::reply_order::{Broken, ReplyOrder};
use super::{Outbox, RedisProxy};
use crate::ClusteringPolicy;
use crate::control::RedisFault;
use crate::entra::token;
use crate::resp::{self, CommandReader, Hello};
use crate::store::Session;

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NOAUTH: &str = "NOAUTH Authentication required.";
/// As Redis 7.2 and later word it.
const NOAUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
    <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
    the same time";

/// Redis Enterprise's words, on which Azure Managed Redis runs, for `CLUSTER` at a database without the cluster API. Seen in
/// reports from Redis Enterprise and from Azure, and known to clients that look for it; no manual has it.
const NOT_ALLOWED: &str = "ERR command is not allowed";

/// The user of an `AUTH` that names none; no token has that object id.
const DEFAULT_USER: &[u8] = b"default";

/// The state of one connection.
pub(super) struct AuthGate<'a> {
    proxy: &'a RedisProxy,
    signed_in: Option<SignedIn>,
    protocol: u8,
    /// Where the server is; the one it means when it names a node without a host.
    server: Option<IpAddr>,
    /// Answers in place of a server.
    session: Option<Session>,
    order: ReplyOrder,
    commands: CommandReader,
    /// A sign-in is never to be answered, nor anything after it.
    hung: bool,
    ending: bool,
    pub(super) to_client: Outbox,
    pub(super) to_server: Outbox,
}

/// The token that a connection lives by.
struct SignedIn {
    until: Instant,
    token: Digest,
}

enum SignIn {
    Accepted,
    Refused,
    Unanswered,
}

impl<'a> AuthGate<'a> {
    pub(super) fn new(proxy: &'a RedisProxy, server: Option<IpAddr>) -> Self {
        Self {
            proxy,
            server,
            signed_in: None,
            protocol: 2,
            session: server
                .is_none()
                .then(|| Session::new(Arc::clone(&proxy.store))),
            order: ReplyOrder::default(),
            commands: CommandReader::default(),
            hung: false,
            ending: false,
            to_client: Outbox::default(),
            to_server: Outbox::default(),
        }
    }

    /// When the token ends that the client is signed in with.
    pub(super) fn signed_in_until(&self) -> Option<Instant> {
        self.signed_in.as_ref().map(|signed_in| signed_in.until)
    }

    /// Whether the client is done: nothing it sends will be looked at.
    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether everything is answered and sent.
    pub(super) fn is_idle(&self) -> bool {
        self.order.is_idle() && !self.to_client.is_waiting() && !self.to_server.is_waiting()
    }

    /// Takes all whole commands out of `input`.
    pub(super) fn take_commands(&mut self, input: &mut Vec<u8>) {
        let mut at = 0;
        let mut commands = std::mem::take(&mut self.commands);
        while !self.ending && !self.hung {
            match commands.next(&input[at..], self.signed_in.is_some()) {
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
                    self.ending = true;
                }
            }
        }
        self.commands = commands;
        if self.ending || self.hung {
            input.clear();
        } else {
            input.drain(..at);
        }
    }

    /// Takes bytes of the server.
    pub(super) fn take_replies(&mut self, bytes: &[u8]) -> Result<(), Broken> {
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
            self.ending = true;
        } else if is("RESET") {
            self.signed_in = None;
            self.protocol = 2;
            self.forward(arguments, raw);
        } else if self.signed_in.is_none() {
            self.answer_error(NOAUTH);
        } else if is("CLUSTER")
            && self.proxy.clustering_policy == ClusteringPolicy::EnterpriseCluster
        {
            // Azure's list is INFO, HELP, KEYSLOT, NODES and SLOTS; the others it has under no policy.
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
        match self.sign_in(user, token) {
            SignIn::Accepted => self.answer_ok(),
            SignIn::Refused => self.answer_error(WRONGPASS),
            SignIn::Unanswered => {}
        }
    }

    fn hello(&mut self, arguments: &[&[u8]]) {
        let hello = match Hello::parse(&arguments[1..]) {
            Ok(hello) => hello,
            Err(text) => return self.answer_error(&text),
        };
        if let Some((user, token)) = hello.credentials {
            match self.sign_in(user, token) {
                SignIn::Accepted => {}
                SignIn::Refused => return self.answer_error(WRONGPASS),
                SignIn::Unanswered => return,
            }
        }
        if self.signed_in.is_none() {
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

    /// Decides about a sign-in and, if it is good, binds the connection to its token.
    fn sign_in(&mut self, user: &[u8], token: &[u8]) -> SignIn {
        let controls = &self.proxy.controls;
        let fault = controls.redis();
        let hangs = match fault {
            RedisFault::HangAuth => true,
            RedisFault::HangReauth => self.signed_in.is_some(),
            _ => false,
        };
        if hangs {
            self.hung = true;
            return SignIn::Unanswered;
        }
        let signer = &self.proxy.signer;
        let mut checked = signer.check_sign_in(user, token, token::now());
        if let (Ok(_), RedisFault::LateTokens(delay)) = (&checked, fault) {
            checked = signer.check_age(token, delay).and(checked);
        }
        match checked {
            Ok(expires_at) if fault != RedisFault::RefuseAuth => {
                let token = digest(&SHA256, token);
                let before = self.signed_in.replace(SignedIn {
                    until: instant_of(expires_at),
                    token,
                });
                controls.counters().auth_accepted.add();
                if before.is_some_and(|before| before.token.as_ref() == token.as_ref()) {
                    controls.counters().auth_repeated.add();
                }
                SignIn::Accepted
            }
            _ => {
                controls.counters().auth_refused.add();
                if let Err(reason) = checked {
                    tracing::debug!(%reason, "the emulated Redis refused a token");
                }
                SignIn::Refused
            }
        }
    }

    fn forward(&mut self, arguments: &[&[u8]], raw: &[u8]) {
        if let Some(session) = &mut self.session {
            return session.execute(arguments, &mut self.to_client.bytes);
        }
        self.to_server.bytes.extend_from_slice(raw);
        match replies_of(arguments, self.protocol) {
            Count::One => self.order.expect_reply(ShardMap::asked_for(arguments)),
            Count::None => {}
            Count::Unknown => self.order.stop_counting(),
        }
    }

    fn answer_ok(&mut self) {
        let write = |out: &mut Vec<u8>| resp::status(out, "OK");
        self.order.answer(&mut self.to_client.bytes, write);
    }

    fn answer_error(&mut self, text: &str) {
        let write = |out: &mut Vec<u8>| resp::error(out, text);
        self.order.answer(&mut self.to_client.bytes, write);
    }
}

/// How many replies a command brings.
enum Count {
    One,
    None,
    Unknown,
}

fn replies_of(arguments: &[&[u8]], protocol: u8) -> Count {
    let ends = |position: usize, word: &str| {
        let text: &[u8] = arguments.get(position).copied().unwrap_or_default();
        let start = text.len().saturating_sub(word.len());
        text[start..].eq_ignore_ascii_case(word.as_bytes())
    };
    // `SUBSCRIBE` and its five kin: RESP3 confirms by pushes, RESP2 by one array for each channel.
    if ends(0, "SUBSCRIBE") && protocol == 3 {
        return Count::None;
    }
    if ends(0, "SUBSCRIBE") || ends(0, "MONITOR") || ends(0, "CLIENT") && ends(1, "REPLY") {
        return Count::Unknown;
    }
    Count::One
}

/// A time of the wall clock on the clock that timers use.
fn instant_of(seconds: u64) -> Instant {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let left = at.duration_since(SystemTime::now());
    Instant::now() + left.unwrap_or_default()
}
