//! The commands about keys.
//!
//! A session locks [`Keys`] for each command and calls [`Keys::begin`].
//!
//! # Invariants
//!
//! - An expired key is never seen; it is removed when it is next touched.
//! - Time stands still within one command.
//! - Values are strings, so no command finds a wrong type.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::commands::wrong_arity;
use super::{NOT_AN_INTEGER, Outcome, SYNTAX, length};
use crate::resp::{self, integer_of};

const OVERFLOW: &str = "ERR increment or decrement would overflow";

/// All keys, and the current command's time and protocol.
#[derive(Debug, Default)]
pub(super) struct Keys {
    entries: HashMap<Vec<u8>, Entry>,
    /// Milliseconds since the epoch.
    now: i64,
    protocol: u8,
}

/// The value of a key and its expiry.
#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    /// Milliseconds since the epoch.
    expires_at: Option<i64>,
}

/// The options of `SET`.
#[derive(Default)]
struct SetOptions<'a> {
    only_new: bool,
    only_existing: bool,
    get: bool,
    keep_ttl: bool,
    /// One of `EX`, `PX`, `EXAT` and `PXAT` in lower case, with its argument.
    expiry: Option<(Vec<u8>, &'a [u8])>,
}

impl Keys {
    /// Begins a command on a connection that speaks `protocol`.
    pub(super) fn begin(&mut self, protocol: u8) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        self.protocol = protocol;
    }

    /// Returns the number of keys.
    pub(super) fn count(&mut self) -> usize {
        let now = self.now;
        self.entries.retain(|_, entry| entry.is_live(now));
        self.entries.len()
    }

    pub(super) fn append(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let entry = self.entry(arguments[0]);
        entry.value.extend_from_slice(arguments[1]);
        resp::integer(out, length(entry.value.len()));
        Ok(())
    }

    pub(super) fn dbsize(&mut self, _: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        resp::integer(out, length(self.count()));
        Ok(())
    }

    pub(super) fn decr(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        self.add(arguments[0], -1, out)
    }

    pub(super) fn decrby(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let by = integer_of(arguments[1]).ok_or(NOT_AN_INTEGER)?;
        let by = by.checked_neg().ok_or("ERR decrement would overflow")?;
        self.add(arguments[0], by, out)
    }

    /// `DEL` and `UNLINK`.
    pub(super) fn del(&mut self, keys: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let found = keys.iter().filter(|key| self.take(key).is_some());
        resp::integer(out, length(found.count()));
        Ok(())
    }

    pub(super) fn exists(&mut self, keys: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let found = keys.iter().filter(|key| self.value(key).is_some());
        resp::integer(out, length(found.count()));
        Ok(())
    }

    pub(super) fn expire(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        self.expire_in("expire", 1000, arguments, out)
    }

    pub(super) fn pexpire(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        self.expire_in("pexpire", 1, arguments, out)
    }

    /// `FLUSHALL` and `FLUSHDB`: there is one database.
    pub(super) fn flush(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let is = |mode: &[u8], word: &str| mode.eq_ignore_ascii_case(word.as_bytes());
        match arguments {
            [] => {}
            [mode] if is(mode, "sync") || is(mode, "async") => {}
            _ => return Err(SYNTAX.into()),
        }
        self.entries.clear();
        resp::status(out, "OK");
        Ok(())
    }

    pub(super) fn get(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let protocol = self.protocol;
        bulk_or_null(self.value(arguments[0]), protocol, out);
        Ok(())
    }

    pub(super) fn getdel(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        bulk_or_null(self.take(arguments[0]).as_deref(), self.protocol, out);
        Ok(())
    }

    pub(super) fn incr(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        self.add(arguments[0], 1, out)
    }

    pub(super) fn incrby(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let by = integer_of(arguments[1]).ok_or(NOT_AN_INTEGER)?;
        self.add(arguments[0], by, out)
    }

    pub(super) fn mget(&mut self, keys: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let protocol = self.protocol;
        resp::array(out, keys.len());
        for key in keys {
            bulk_or_null(self.value(key), protocol, out);
        }
        Ok(())
    }

    pub(super) fn mset(&mut self, pairs: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        if pairs.len() % 2 == 1 {
            return Err(wrong_arity("mset"));
        }
        for pair in pairs.chunks_exact(2) {
            self.put(pair[0], pair[1], None);
        }
        resp::status(out, "OK");
        Ok(())
    }

    pub(super) fn persist(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let entry = self.existing(arguments[0]);
        let had = entry.is_some_and(|entry| entry.expires_at.take().is_some());
        resp::integer(out, had.into());
        Ok(())
    }

    pub(super) fn pttl(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let left = self.time_left(arguments[0]).unwrap_or_else(|none| none);
        resp::integer(out, left);
        Ok(())
    }

    pub(super) fn ttl(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        // Redis rounds to the nearest second.
        let left = self.time_left(arguments[0]).map(|left| (left + 500) / 1000);
        resp::integer(out, left.unwrap_or_else(|none| none));
        Ok(())
    }

    pub(super) fn set(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let (key, value) = (arguments[0], arguments[1]);
        let options = SetOptions::parse(&arguments[2..])?;
        let expires_at = match &options.expiry {
            None => None,
            Some((option, text)) => Some(self.expiry_of(option, text)?),
        };
        let old = self.value(key).map(<[u8]>::to_vec);
        let refused = options.only_new && old.is_some() || options.only_existing && old.is_none();
        if !refused {
            let entry = self.existing(key).filter(|_| options.keep_ttl);
            let kept = entry.and_then(|entry| entry.expires_at);
            self.put(key, value, kept.or(expires_at));
        }
        if options.get {
            bulk_or_null(old.as_deref(), self.protocol, out);
        } else if refused {
            resp::null(out, self.protocol);
        } else {
            resp::status(out, "OK");
        }
        Ok(())
    }

    pub(super) fn strlen(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let value = self.value(arguments[0]).unwrap_or_default();
        resp::integer(out, length(value.len()));
        Ok(())
    }

    pub(super) fn type_of(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let exists = self.value(arguments[0]).is_some();
        resp::status(out, if exists { "string" } else { "none" });
        Ok(())
    }

    /// Returns the milliseconds until a key expires. The error is the reply to send instead: -2 if there is no such key,
    /// -1 if it never expires.
    fn time_left(&mut self, key: &[u8]) -> Result<i64, i64> {
        let now = self.now;
        let entry = self.existing(key).ok_or(-2)?;
        entry.expires_at.map(|at| at - now).ok_or(-1)
    }

    fn expire_in(
        &mut self,
        command: &str,
        unit: i64,
        arguments: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Outcome {
        let time = integer_of(arguments[1]).ok_or(NOT_AN_INTEGER)?;
        if let Some(condition) = arguments.get(2) {
            let condition = String::from_utf8_lossy(condition);
            return Err(format!("ERR Unsupported option {condition}"));
        }
        let at = time
            .checked_mul(unit)
            .and_then(|time| time.checked_add(self.now))
            .ok_or_else(|| invalid_expire(command))?;
        let entry = self.existing(arguments[0]);
        let exists = entry.is_some();
        if let Some(entry) = entry {
            entry.expires_at = Some(at);
        }
        resp::integer(out, exists.into());
        Ok(())
    }

    /// Returns the expiry that one of `SET`'s options asks for.
    fn expiry_of(&self, option: &[u8], text: &[u8]) -> Result<i64, String> {
        let amount = integer_of(text).ok_or(NOT_AN_INTEGER)?;
        let unit = if option.starts_with(b"e") { 1000 } else { 1 };
        let start = if option.ends_with(b"at") { 0 } else { self.now };
        (amount > 0)
            .then_some(amount)
            .and_then(|amount| amount.checked_mul(unit))
            .and_then(|time| time.checked_add(start))
            .ok_or_else(|| invalid_expire("set"))
    }

    fn add(&mut self, key: &[u8], by: i64, out: &mut Vec<u8>) -> Outcome {
        let old = integer_of(self.value(key).unwrap_or(b"0")).ok_or(NOT_AN_INTEGER)?;
        let sum = old.checked_add(by).ok_or(OVERFLOW)?;
        self.entry(key).value = sum.to_string().into_bytes();
        resp::integer(out, sum);
        Ok(())
    }

    fn value(&mut self, key: &[u8]) -> Option<&[u8]> {
        self.existing(key).map(|entry| entry.value.as_slice())
    }

    fn existing(&mut self, key: &[u8]) -> Option<&mut Entry> {
        if !self.entries.get(key)?.is_live(self.now) {
            self.entries.remove(key);
        }
        self.entries.get_mut(key)
    }

    fn take(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let entry = self.entries.remove(key)?;
        entry.is_live(self.now).then_some(entry.value)
    }

    fn put(&mut self, key: &[u8], value: &[u8], expires_at: Option<i64>) {
        let value = value.to_vec();
        self.entries
            .insert(key.to_vec(), Entry { value, expires_at });
    }

    /// Returns the entry of `key`; a new, empty one if there is none.
    fn entry(&mut self, key: &[u8]) -> &mut Entry {
        if self.existing(key).is_none() {
            self.put(key, b"", None);
        }
        self.entries.get_mut(key).expect("inserted above if absent")
    }
}

impl<'a> SetOptions<'a> {
    fn parse(options: &[&'a [u8]]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let option = option.to_ascii_lowercase();
            match option.as_slice() {
                b"nx" if !parsed.only_existing => parsed.only_new = true,
                b"xx" if !parsed.only_new => parsed.only_existing = true,
                b"get" => parsed.get = true,
                b"keepttl" if parsed.expiry.is_none() => parsed.keep_ttl = true,
                b"ex" | b"px" | b"exat" | b"pxat"
                    if parsed.expiry.is_none() && !parsed.keep_ttl =>
                {
                    let text = options.next().ok_or(SYNTAX)?;
                    parsed.expiry = Some((option, *text));
                }
                _ => return Err(SYNTAX.into()),
            }
        }
        Ok(parsed)
    }
}

impl Entry {
    fn is_live(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

fn bulk_or_null(value: Option<&[u8]>, protocol: u8, out: &mut Vec<u8>) {
    match value {
        Some(value) => resp::bulk(out, value),
        None => resp::null(out, protocol),
    }
}

fn invalid_expire(command: &str) -> String {
    format!("ERR invalid expire time in '{command}' command")
}
