//! The table of commands: names, arity, and the function for each.

use std::fmt::Write as _;

use super::keys::Keys;
use super::{Outcome, Session};

/// A function that executes a command, given its arguments without the name, in the number that the table allows.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// A command about the connection or the server.
    Session(fn(&mut Session, &[&[u8]], &mut Vec<u8>) -> Outcome),
    /// A command about keys, which are locked while it runs.
    Keys(fn(&mut Keys, &[&[u8]], &mut Vec<u8>) -> Outcome),
}

struct Command {
    name: &'static str,
    /// Fewest and most arguments, the name not included.
    fewest: usize,
    most: usize,
    handler: Handler,
}

const ANY: usize = usize::MAX;

const fn session(
    name: &'static str,
    (fewest, most): (usize, usize),
    handler: fn(&mut Session, &[&[u8]], &mut Vec<u8>) -> Outcome,
) -> Command {
    let handler = Handler::Session(handler);
    Command {
        name,
        fewest,
        most,
        handler,
    }
}

const fn keys(
    name: &'static str,
    (fewest, most): (usize, usize),
    handler: fn(&mut Keys, &[&[u8]], &mut Vec<u8>) -> Outcome,
) -> Command {
    let handler = Handler::Keys(handler);
    Command {
        name,
        fewest,
        most,
        handler,
    }
}

const COMMANDS: &[Command] = &[
    keys("append", (2, 2), Keys::append),
    session("client", (1, ANY), Session::client),
    session("cluster", (1, ANY), Session::cluster),
    session("command", (0, ANY), Session::command),
    keys("dbsize", (0, 0), Keys::dbsize),
    keys("decr", (1, 1), Keys::decr),
    keys("decrby", (2, 2), Keys::decrby),
    keys("del", (1, ANY), Keys::del),
    session("echo", (1, 1), Session::ping),
    keys("exists", (1, ANY), Keys::exists),
    keys("expire", (2, ANY), Keys::expire),
    keys("flushall", (0, ANY), Keys::flush),
    keys("flushdb", (0, ANY), Keys::flush),
    keys("get", (1, 1), Keys::get),
    keys("getdel", (1, 1), Keys::getdel),
    session("hello", (0, ANY), Session::hello),
    keys("incr", (1, 1), Keys::incr),
    keys("incrby", (2, 2), Keys::incrby),
    session("info", (0, ANY), Session::info),
    keys("mget", (1, ANY), Keys::mget),
    keys("mset", (2, ANY), Keys::mset),
    keys("persist", (1, 1), Keys::persist),
    keys("pexpire", (2, ANY), Keys::pexpire),
    session("ping", (0, 1), Session::ping),
    keys("pttl", (1, 1), Keys::pttl),
    session("reset", (0, 0), Session::reset),
    session("select", (1, 1), Session::select),
    keys("set", (2, ANY), Keys::set),
    keys("strlen", (1, 1), Keys::strlen),
    session("time", (0, 0), Session::time),
    keys("ttl", (1, 1), Keys::ttl),
    keys("type", (1, 1), Keys::type_of),
    keys("unlink", (1, ANY), Keys::del),
    session("unwatch", (0, 0), Session::unwatch),
];

/// Number of commands.
pub(super) const COUNT: usize = COMMANDS.len();

impl Handler {
    /// Executes the command.
    pub(super) fn call(
        self,
        session: &mut Session,
        arguments: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Outcome {
        match self {
            Self::Session(handler) => handler(session, arguments, out),
            Self::Keys(handler) => handler(&mut session.keys(), arguments, out),
        }
    }
}

/// Finds the function for a command.
///
/// # Errors
///
/// The text of Redis' error for an unknown command or a wrong number of arguments.
pub(super) fn find(name: &[u8], arguments: &[&[u8]]) -> Result<Handler, String> {
    let command = COMMANDS
        .iter()
        .find(|command| name.eq_ignore_ascii_case(command.name.as_bytes()))
        .ok_or_else(|| unknown_command(name, arguments))?;
    if (command.fewest..=command.most).contains(&arguments.len()) {
        Ok(command.handler)
    } else {
        Err(wrong_arity(command.name))
    }
}

fn unknown_command(name: &[u8], arguments: &[&[u8]]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut text = format!("ERR unknown command '{name:.128}', with args beginning with: ");
    let start = text.len();
    for argument in arguments {
        // Redis shows about 128 bytes of arguments.
        let room = 128_usize.saturating_sub(text.len() - start);
        if room == 0 {
            break;
        }
        let argument = String::from_utf8_lossy(argument);
        write!(text, "'{argument:.room$}' ").expect("writing to a String cannot fail");
    }
    text
}

/// Returns the text of the error for a wrong number of arguments.
pub(super) fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}
