//! One command on several nodes: its parts, and one reply made of theirs.
//!
//! The parts run concurrently and are not a transaction. An error of one part is the reply to the whole command.

use std::collections::BTreeMap;

use redis::{Cmd, ErrorKind, RedisError, Value};

use super::super::error::Error;
use super::{
    commands::{Combine, arguments},
    slots::slot_of,
};

/// The part of a command for one slot.
pub(super) struct Part {
    pub(super) slot: u16,
    pub(super) command: Cmd,
    /// The positions of these keys among the whole command's keys, from 0.
    keys: Vec<usize>,
}

/// Splits a command by slot. Its keys begin with the first argument and come every `step` arguments.
pub(super) fn split(command: &Cmd, step: usize) -> Vec<Part> {
    let mut words = arguments(command).map(Option::unwrap_or_default);
    let name = words.next().unwrap_or_default();
    let words: Vec<&[u8]> = words.collect();
    let mut parts: BTreeMap<u16, Part> = BTreeMap::new();
    for (index, words) in words.chunks(step).enumerate() {
        let slot = slot_of(words[0]);
        let part = parts.entry(slot).or_insert_with(|| {
            let mut command = Cmd::new();
            command.arg(name);
            Part {
                slot,
                command,
                keys: Vec::new(),
            }
        });
        part.keys.push(index);
        for word in words {
            part.command.arg(*word);
        }
    }
    parts.into_values().collect()
}

/// Combines the replies to `parts`, or to the same command on several nodes.
pub(super) fn combine(
    how: Combine,
    replies: Vec<Result<Value, Error>>,
    parts: &[Part],
) -> Result<Value, Error> {
    let replies: Vec<Value> = replies.into_iter().collect::<Result<_, _>>()?;
    let is_error = |reply: &&Value| matches!(reply, Value::ServerError(_));
    if let Some(error) = replies.iter().find(is_error) {
        return Ok(error.clone());
    }
    match how {
        Combine::Same => replies.into_iter().next(),
        Combine::Sum => sum(&replies),
        Combine::All => all(&replies),
        Combine::Concatenation => concatenation(replies),
        Combine::ByKey => by_key(replies, parts),
    }
    .ok_or_else(|| {
        Error::Command(RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "the replies of the nodes do not fit together",
        )))
    })
}

fn sum(replies: &[Value]) -> Option<Value> {
    let mut sum = 0_i64;
    for reply in replies {
        let Value::Int(number) = reply else {
            return None;
        };
        sum = sum.checked_add(*number)?;
    }
    Some(Value::Int(sum))
}

fn all(replies: &[Value]) -> Option<Value> {
    let mut all: Option<Vec<i64>> = None;
    for reply in replies {
        let Value::Array(items) = reply else {
            return None;
        };
        let numbers = items.iter().map(|item| match item {
            Value::Int(number) => Some(*number),
            _ => None,
        });
        let numbers: Vec<i64> = numbers.collect::<Option<_>>()?;
        all = Some(match all {
            None => numbers,
            Some(all) if all.len() == numbers.len() => all
                .into_iter()
                .zip(numbers)
                .map(|(a, b)| a.min(b))
                .collect(),
            Some(_) => return None,
        });
    }
    Some(Value::Array(all?.into_iter().map(Value::Int).collect()))
}

fn concatenation(replies: Vec<Value>) -> Option<Value> {
    let mut all = Vec::new();
    for reply in replies {
        let Value::Array(items) = reply else {
            return None;
        };
        all.extend(items);
    }
    Some(Value::Array(all))
}

fn by_key(replies: Vec<Value>, parts: &[Part]) -> Option<Value> {
    let count = parts.iter().map(|part| part.keys.len()).sum();
    let mut all = vec![Value::Nil; count];
    for (reply, part) in replies.into_iter().zip(parts) {
        let Value::Array(items) = reply else {
            return None;
        };
        if items.len() != part.keys.len() {
            return None;
        }
        for (item, key) in items.into_iter().zip(&part.keys) {
            all[*key] = item;
        }
    }
    Some(Value::Array(all))
}
