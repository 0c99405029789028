//! A small Redis in memory: enough for a laptop without `redis-server`.
//!
//! `redis_proxy` opens one [`Session`] for each connection and executes every command but authentication on it; all
//! sessions share one [`Store`]. `commands` is the table of commands, `connection` and `keys` have what they do. Replies
//! are those of Redis 7, word for word; there is no `MULTI`, no publishing and no type but strings. Permission to execute
//! a command is not decided here.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::resp;
use keys::Keys;

mod commands;
mod connection;
mod keys;

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";

/// The keys of one emulator.
#[derive(Debug, Default)]
pub(crate) struct Store {
    keys: Mutex<Keys>,
    last_id: AtomicI64,
}

/// The state of one connection to the store.
#[derive(Debug)]
pub(crate) struct Session {
    store: Arc<Store>,
    id: i64,
    name: Vec<u8>,
    protocol: u8,
}

/// The result of a command: its reply was written, or the text of an error reply.
type Outcome = Result<(), String>;

impl Session {
    /// Opens a session: RESP2, no name.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let id = store.last_id.fetch_add(1, Relaxed) + 1;
        Self {
            store,
            id,
            name: Vec::new(),
            protocol: 2,
        }
    }

    /// Executes one command, its name first, and appends its reply to `out`.
    pub(crate) fn execute(&mut self, command: &[&[u8]], out: &mut Vec<u8>) {
        let Some((name, arguments)) = command.split_first() else {
            return;
        };
        let done =
            commands::find(name, arguments).and_then(|handler| handler.call(self, arguments, out));
        if let Err(text) = done {
            resp::error(out, &text);
        }
    }

    /// Locks the keys for one command.
    fn keys(&self) -> MutexGuard<'_, Keys> {
        // A panic leaves a valid map of strings; to lose the store would only hide the cause.
        let keys = self.store.keys.lock();
        let mut keys = keys.unwrap_or_else(PoisonError::into_inner);
        keys.begin(self.protocol);
        keys
    }
}

fn length(length: usize) -> i64 {
    i64::try_from(length).expect("memory is smaller")
}
