//! A small Redis in memory: enough for a developer's laptop without `redis-server`.
//!
//! `front` opens one [`Session`] a connection and executes every command that is not a sign-in on it; all sessions
//! share one [`Store`]. What a command does to keys stands in `keys`, the rest here. Answers are Redis 7's, word for
//! word; there is no `MULTI`, no publishing and no type but strings. Who may execute a command is not decided here.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::resp::{self, Hello, integer_of};
use keys::{Keys, Map};

mod keys;

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// The version told; Azure Managed Redis has 7.4.
const VERSION: &str = "7.4.0";

/// The commands there are: name, fewest and most arguments, the name itself included.
const COMMANDS: [(&str, usize, usize); 34] = [
    ("append", 3, 3),
    ("client", 2, usize::MAX),
    ("cluster", 2, usize::MAX),
    ("command", 1, usize::MAX),
    ("dbsize", 1, 1),
    ("decr", 2, 2),
    ("decrby", 3, 3),
    ("del", 2, usize::MAX),
    ("echo", 2, 2),
    ("exists", 2, usize::MAX),
    ("expire", 3, usize::MAX),
    ("flushall", 1, usize::MAX),
    ("flushdb", 1, usize::MAX),
    ("get", 2, 2),
    ("getdel", 2, 2),
    ("hello", 1, usize::MAX),
    ("incr", 2, 2),
    ("incrby", 3, 3),
    ("info", 1, usize::MAX),
    ("mget", 2, usize::MAX),
    ("mset", 3, usize::MAX),
    ("persist", 2, 2),
    ("pexpire", 3, usize::MAX),
    ("ping", 1, 2),
    ("pttl", 2, 2),
    ("reset", 1, 1),
    ("select", 2, 2),
    ("set", 3, usize::MAX),
    ("strlen", 2, 2),
    ("time", 1, 1),
    ("ttl", 2, 2),
    ("type", 2, 2),
    ("unlink", 2, usize::MAX),
    ("unwatch", 1, 1),
];

/// The keys of one emulator.
#[derive(Debug, Default)]
pub(super) struct Store {
    keys: Mutex<Map>,
    last_id: AtomicI64,
}

/// One connection's view of the store.
#[derive(Debug)]
pub(super) struct Session {
    store: Arc<Store>,
    id: i64,
    name: Vec<u8>,
    protocol: u8,
}

/// Done and answered, or the error to answer.
type Answer = Result<(), String>;

impl Session {
    /// Opens a session: RESP2, no name.
    pub(super) fn new(store: Arc<Store>) -> Self {
        let id = store.last_id.fetch_add(1, Relaxed) + 1;
        Self {
            store,
            id,
            name: Vec::new(),
            protocol: 2,
        }
    }

    /// Executes one command, its name first, and writes its answer.
    pub(super) fn execute(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) {
        if let Err(text) = self.answer(arguments, out) {
            resp::error(out, &text);
        }
    }

    fn answer(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Answer {
        let Some((name, rest)) = arguments.split_first() else {
            return Ok(());
        };
        let command = COMMANDS
            .iter()
            .find(|(known, ..)| name.eq_ignore_ascii_case(known.as_bytes()))
            .ok_or_else(|| unknown_command(name, rest))?;
        let (name, fewest, most) = *command;
        if !(fewest..=most).contains(&arguments.len()) {
            return Err(wrong_arity(name));
        }
        match (name, rest) {
            ("client", _) => return self.client(rest, out),
            ("cluster", _) => return Err("ERR This instance has cluster support disabled".into()),
            ("command", _) => return command_command(rest, self.protocol, out),
            ("echo", [text]) | ("ping", [text]) => resp::bulk(out, text),
            ("hello", _) => return self.hello(&Hello::read(arguments)?, out),
            ("info", _) => self.info(out),
            ("ping", _) => resp::status(out, "PONG"),
            ("reset", _) => {
                (self.protocol, self.name) = (2, Vec::new());
                resp::status(out, "RESET");
            }
            ("select", [index]) => match integer_of(index) {
                Some(0) => resp::status(out, "OK"),
                Some(_) => return Err("ERR DB index is out of range".into()),
                None => return Err(NOT_AN_INTEGER.into()),
            },
            ("time", _) => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                resp::array(out, 2);
                resp::bulk(out, now.as_secs().to_string().as_bytes());
                resp::bulk(out, now.subsec_micros().to_string().as_bytes());
            }
            ("unwatch", _) => resp::status(out, "OK"),
            _ => return self.keys().answer(name, rest, self.protocol, out),
        }
        Ok(())
    }

    fn keys(&self) -> Keys<'_> {
        // Whatever panicked, a map of strings is still one; losing the store would only hide the cause.
        let keys = self.store.keys.lock();
        Keys::new(keys.unwrap_or_else(PoisonError::into_inner))
    }

    fn set_name(&mut self, name: &[u8]) -> Answer {
        if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
            return Err(BAD_NAME.into());
        }
        self.name = name.to_vec();
        Ok(())
    }

    fn hello(&mut self, hello: &Hello<'_>, out: &mut Vec<u8>) -> Answer {
        if let Some(name) = hello.name {
            self.set_name(name)?;
        }
        self.protocol = hello.version.unwrap_or(self.protocol);
        resp::map(out, self.protocol, 7);
        let text = |out: &mut Vec<u8>, name: &str, value: &str| {
            resp::bulk(out, name.as_bytes());
            resp::bulk(out, value.as_bytes());
        };
        text(out, "server", "redis");
        text(out, "version", VERSION);
        resp::bulk(out, b"proto");
        resp::integer(out, self.protocol.into());
        resp::bulk(out, b"id");
        resp::integer(out, self.id);
        text(out, "mode", "standalone");
        text(out, "role", "master");
        resp::bulk(out, b"modules");
        resp::array(out, 0);
        Ok(())
    }

    fn client(&mut self, rest: &[&[u8]], out: &mut Vec<u8>) -> Answer {
        let subcommand = String::from_utf8_lossy(rest[0]).to_ascii_lowercase();
        match (subcommand.as_str(), &rest[1..]) {
            ("setname", [name]) => {
                self.set_name(name)?;
                resp::status(out, "OK");
            }
            ("setinfo", [_, _]) => resp::status(out, "OK"),
            ("getname", []) if self.name.is_empty() => resp::null(out, self.protocol),
            ("getname", []) => resp::bulk(out, &self.name),
            ("id", []) => resp::integer(out, self.id),
            ("info", []) => {
                let name = String::from_utf8_lossy(&self.name);
                let text = format!("id={} name={name} db=0 resp={}\n", self.id, self.protocol);
                resp::bulk(out, text.as_bytes());
            }
            ("setname" | "setinfo" | "getname" | "id" | "info", _) => {
                return Err(wrong_arity(&format!("client|{subcommand}")));
            }
            _ => {
                let name = String::from_utf8_lossy(rest[0]);
                return Err(format!(
                    "ERR unknown subcommand '{name:.128}'. Try CLIENT HELP."
                ));
            }
        }
        Ok(())
    }

    fn info(&self, out: &mut Vec<u8>) {
        let keys = self.keys().count();
        let mut text = format!(
            "# Server\r\nredis_version:{VERSION}\r\nredis_mode:standalone\r\n\r\n\
             # Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n\
             # Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\n"
        );
        if keys > 0 {
            writeln!(text, "db0:keys={keys},expires=0,avg_ttl=0\r").expect("a String takes all");
        }
        resp::bulk(out, text.as_bytes());
    }
}

fn command_command(rest: &[&[u8]], protocol: u8, out: &mut Vec<u8>) -> Answer {
    let Some(subcommand) = rest.first() else {
        resp::array(out, 0);
        return Ok(());
    };
    match subcommand.to_ascii_lowercase().as_slice() {
        b"count" => resp::integer(out, length(COMMANDS.len())),
        b"docs" => resp::map(out, protocol, 0),
        _ => {
            let name = String::from_utf8_lossy(subcommand);
            return Err(format!(
                "ERR unknown subcommand '{name:.128}'. Try COMMAND HELP."
            ));
        }
    }
    Ok(())
}

fn unknown_command(name: &[u8], rest: &[&[u8]]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut text = format!("ERR unknown command '{name:.128}', with args beginning with: ");
    let start = text.len();
    for argument in rest {
        // Redis shows about 128 bytes of arguments.
        let room = 128usize.saturating_sub(text.len() - start);
        if room == 0 {
            break;
        }
        let argument = String::from_utf8_lossy(argument);
        write!(text, "'{argument:.room$}' ").expect("a String takes all");
    }
    text
}

fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

fn length(length: usize) -> i64 {
    i64::try_from(length).expect("memory is not that large")
}
