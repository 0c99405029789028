//! The keys: what a command does to them.
//!
//! `store` locks them for each command and has it answered here. A key past its time is as good as gone, and removed
//! when it is next touched; within one command time stands still. Values are strings, so that no command meets a wrong
//! type.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Answer, NOT_AN_INTEGER, SYNTAX, length, wrong_arity};
use crate::resp::{self, integer_of};

const OVERFLOW: &str = "ERR increment or decrement would overflow";

/// All keys with their values.
pub(super) type Map = HashMap<Vec<u8>, Entry>;

/// A key's value and end.
#[derive(Debug)]
pub(super) struct Entry {
    value: Vec<u8>,
    /// Milliseconds since the epoch.
    expires_at: Option<i64>,
}

/// The keys, locked for one command, which sees one time.
pub(super) struct Keys<'a> {
    keys: MutexGuard<'a, Map>,
    now: i64,
}

impl<'a> Keys<'a> {
    pub(super) fn new(keys: MutexGuard<'a, Map>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        Self { keys, now }
    }

    /// How many keys there are.
    pub(super) fn count(&mut self) -> usize {
        let now = self.now;
        self.keys.retain(|_, entry| entry.lives(now));
        self.keys.len()
    }

    /// Executes a command whose arity is right.
    pub(super) fn answer(
        &mut self,
        name: &str,
        rest: &[&[u8]],
        protocol: u8,
        out: &mut Vec<u8>,
    ) -> Answer {
        let one_or_null = |value: Option<&[u8]>, out: &mut Vec<u8>| match value {
            Some(value) => resp::bulk(out, value),
            None => resp::null(out, protocol),
        };
        match (name, rest) {
            ("append", [key, value]) => {
                let held = self.hold(key);
                held.value.extend_from_slice(value);
                resp::integer(out, length(held.value.len()));
            }
            ("dbsize", _) => resp::integer(out, length(self.count())),
            ("decr", [key]) => return self.add(key, -1, out),
            ("decrby", [key, by]) => {
                let by = integer_of(by).ok_or(NOT_AN_INTEGER)?;
                let by = by.checked_neg().ok_or("ERR decrement would overflow")?;
                return self.add(key, by, out);
            }
            ("del" | "unlink", keys) => {
                let found = keys.iter().filter(|key| self.take(key).is_some()).count();
                resp::integer(out, length(found));
            }
            ("exists", keys) => {
                let found = keys.iter().filter(|key| self.get(key).is_some()).count();
                resp::integer(out, length(found));
            }
            ("expire" | "pexpire", [key, life, conditions @ ..]) => {
                let life = integer_of(life).ok_or(NOT_AN_INTEGER)?;
                if let Some(other) = conditions.first() {
                    let other = String::from_utf8_lossy(other);
                    return Err(format!("ERR Unsupported option {other}"));
                }
                let unit = if name == "expire" { 1000 } else { 1 };
                let at = life
                    .checked_mul(unit)
                    .and_then(|life| life.checked_add(self.now))
                    .ok_or_else(|| invalid_expire(name))?;
                let held = self.get(key).is_some();
                if held {
                    self.hold(key).expires_at = Some(at);
                }
                resp::integer(out, held.into());
            }
            ("flushall" | "flushdb", [] | [_]) => {
                if let [mode] = rest
                    && !["sync", "async"]
                        .iter()
                        .any(|known| mode.eq_ignore_ascii_case(known.as_bytes()))
                {
                    return Err(SYNTAX.into());
                }
                self.keys.clear();
                resp::status(out, "OK");
            }
            ("flushall" | "flushdb", _) => return Err(SYNTAX.into()),
            ("get", [key]) => one_or_null(self.get(key), out),
            ("getdel", [key]) => one_or_null(self.take(key).as_deref(), out),
            ("incr", [key]) => return self.add(key, 1, out),
            ("incrby", [key, by]) => {
                let by = integer_of(by).ok_or(NOT_AN_INTEGER)?;
                return self.add(key, by, out);
            }
            ("mget", keys) => {
                resp::array(out, keys.len());
                for key in keys {
                    one_or_null(self.get(key), out);
                }
            }
            ("mset", pairs) => {
                if pairs.len() % 2 == 1 {
                    return Err(wrong_arity("mset"));
                }
                for pair in pairs.chunks_exact(2) {
                    self.put(pair[0], pair[1], None);
                }
                resp::status(out, "OK");
            }
            ("persist", [key]) => {
                let had = self.get(key).is_some() && self.hold(key).expires_at.take().is_some();
                resp::integer(out, had.into());
            }
            ("pttl" | "ttl", [key]) => {
                let held = self.get(key).is_some();
                let left = match held.then(|| self.hold(key).expires_at) {
                    None => -2,
                    Some(None) => -1,
                    Some(Some(at)) if name == "pttl" => at - self.now,
                    // Redis rounds to the nearest second.
                    Some(Some(at)) => (at - self.now + 500) / 1000,
                };
                resp::integer(out, left);
            }
            ("set", [key, value, options @ ..]) => {
                return self.set(key, value, options, protocol, out);
            }
            ("strlen", [key]) => {
                resp::integer(out, length(self.get(key).unwrap_or_default().len()));
            }
            ("type", [key]) => {
                let held = self.get(key).is_some();
                resp::status(out, if held { "string" } else { "none" });
            }
            _ => return Err(SYNTAX.into()),
        }
        Ok(())
    }

    fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        options: &[&[u8]],
        protocol: u8,
        out: &mut Vec<u8>,
    ) -> Answer {
        let (mut only_new, mut only_held, mut give_old, mut keep) = (false, false, false, false);
        let mut expires_at = None;
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let option = option.to_ascii_lowercase();
            match option.as_slice() {
                b"nx" if !only_held => only_new = true,
                b"xx" if !only_new => only_held = true,
                b"get" => give_old = true,
                b"keepttl" if expires_at.is_none() => keep = true,
                b"ex" | b"px" | b"exat" | b"pxat" if expires_at.is_none() && !keep => {
                    let text = options.next().ok_or(SYNTAX)?;
                    expires_at = Some((option, *text));
                }
                _ => return Err(SYNTAX.into()),
            }
        }
        let expires_at = match expires_at {
            None => None,
            Some((option, text)) => Some(self.time_of(&option, text)?),
        };
        let old = self.get(key).map(<[u8]>::to_vec);
        let refused = only_new && old.is_some() || only_held && old.is_none();
        if !refused {
            let kept = (keep && old.is_some()).then(|| self.hold(key).expires_at);
            self.put(key, value, kept.unwrap_or(expires_at));
        }
        match old {
            Some(old) if give_old => resp::bulk(out, &old),
            None if give_old => resp::null(out, protocol),
            _ if refused => resp::null(out, protocol),
            _ => resp::status(out, "OK"),
        }
        Ok(())
    }

    /// The time, in milliseconds since the epoch, that one of `SET`'s options means.
    fn time_of(&self, option: &[u8], text: &[u8]) -> Result<i64, String> {
        let amount = integer_of(text).ok_or(NOT_AN_INTEGER)?;
        let unit = if option.starts_with(b"e") { 1000 } else { 1 };
        let start = if option.ends_with(b"at") { 0 } else { self.now };
        (amount > 0)
            .then_some(amount)
            .and_then(|amount| amount.checked_mul(unit))
            .and_then(|life| life.checked_add(start))
            .ok_or_else(|| invalid_expire("set"))
    }

    fn add(&mut self, key: &[u8], by: i64, out: &mut Vec<u8>) -> Answer {
        let held = integer_of(self.get(key).unwrap_or(b"0")).ok_or(NOT_AN_INTEGER)?;
        let sum = held.checked_add(by).ok_or(OVERFLOW)?;
        self.hold(key).value = sum.to_string().into_bytes();
        resp::integer(out, sum);
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        if !self.keys.get(key)?.lives(self.now) {
            self.keys.remove(key);
        }
        self.keys.get(key).map(|entry| entry.value.as_slice())
    }

    fn take(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let entry = self.keys.remove(key)?;
        entry.lives(self.now).then_some(entry.value)
    }

    fn put(&mut self, key: &[u8], value: &[u8], expires_at: Option<i64>) {
        let value = value.to_vec();
        self.keys.insert(key.to_vec(), Entry { value, expires_at });
    }

    /// The entry of `key`, an empty one made if there is none.
    fn hold(&mut self, key: &[u8]) -> &mut Entry {
        if self.get(key).is_none() {
            self.put(key, b"", None);
        }
        self.keys
            .get_mut(key)
            .expect("it was put if it was not there")
    }
}

impl Entry {
    fn lives(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

fn invalid_expire(name: &str) -> String {
    format!("ERR invalid expire time in '{name}' command")
}
