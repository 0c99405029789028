//! One command on several nodes: how it is taken apart, and how the answers become one.
//!
//! The parts run side by side and are no transaction. An error of one part is the answer of the whole.

use std::collections::BTreeMap;

use redis::{Cmd, ErrorKind, RedisError, Value};

use super::{
    commands::{Combine, arguments},
    slots::slot_of,
};
use crate::pool::error::Error;

/// What goes to one slot.
pub(super) struct Part {
    pub(super) slot: u16,
    pub(super) command: Cmd,
    /// Which of the whole command's keys these are, counted from 0.
    keys: Vec<usize>,
}

/// Takes a command apart whose keys begin with its first argument and come every `step` arguments.
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

/// Makes one answer of those to `parts`, or to the same command on several nodes.
pub(super) fn combine(
    how: Combine,
    answers: Vec<Result<Value, Error>>,
    parts: &[Part],
) -> Result<Value, Error> {
    let answers: Vec<Value> = answers.into_iter().collect::<Result<_, _>>()?;
    let is_error = |answer: &&Value| matches!(answer, Value::ServerError(_));
    if let Some(error) = answers.iter().find(is_error) {
        return Ok(error.clone());
    }
    match how {
        Combine::Same => answers.into_iter().next(),
        Combine::Sum => sum(&answers),
        Combine::All => all(&answers),
        Combine::Concatenation => concatenation(answers),
        Combine::ByKey => by_key(answers, parts),
    }
    .ok_or_else(|| {
        Error::Command(RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "the nodes' answers do not fit together",
        )))
    })
}

fn sum(answers: &[Value]) -> Option<Value> {
    let mut sum = 0_i64;
    for answer in answers {
        let Value::Int(number) = answer else {
            return None;
        };
        sum = sum.checked_add(*number)?;
    }
    Some(Value::Int(sum))
}

fn all(answers: &[Value]) -> Option<Value> {
    let mut all: Option<Vec<i64>> = None;
    for answer in answers {
        let Value::Array(items) = answer else {
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

fn concatenation(answers: Vec<Value>) -> Option<Value> {
    let mut all = Vec::new();
    for answer in answers {
        let Value::Array(items) = answer else {
            return None;
        };
        all.extend(items);
    }
    Some(Value::Array(all))
}

fn by_key(answers: Vec<Value>, parts: &[Part]) -> Option<Value> {
    let count = parts.iter().map(|part| part.keys.len()).sum();
    let mut all = vec![Value::Nil; count];
    for (answer, part) in answers.into_iter().zip(parts) {
        let Value::Array(items) = answer else {
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
