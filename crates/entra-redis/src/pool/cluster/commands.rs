//! Where a command belongs: to the slot of its first key, to any node, or to several.
//!
//! A table of the commands whose key is not their first argument, and of those that have none (Redis documentation,
//! "Command key specifications" and "Command tips"). Commands that are not in it have their key first, or none. All
//! else, that a command's keys share one slot above all, is the server's to judge: its CROSSSLOT reaches the caller.
//!
//! Split by slot are exactly the commands that Azure's proxy splits under the EnterpriseCluster policy (Azure page
//! "Azure Managed Redis architecture"), so that a program runs alike under both.

use redis::{Arg, Cmd};

use super::slots::slot_of;

/// Where a command goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To the master of this slot.
    Slot(u16),
    /// To any master: it has no key.
    Any,
    /// To every master, and the answers become one.
    Every(Combine),
    /// To the masters of its keys' slots, `step` arguments a key, and the answers become one.
    Split { step: usize, combine: Combine },
    /// Nowhere, for this reason.
    Nowhere(&'static str),
}

/// How several nodes' answers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Combine {
    /// They are the same.
    Same,
    /// Integers, added up.
    Sum,
    /// Arrays of 0 and 1: 1 where all have 1.
    All,
    /// Arrays, one behind the other.
    Concatenation,
    /// Arrays, with an item for each key, in the order of the keys.
    ByKey,
}

/// Longer names are no command of the table.
const LONGEST_NAME: usize = 16;

/// Where `command` goes.
pub(super) fn target(command: &Cmd) -> Target {
    let mut buffer = [0; LONGEST_NAME];
    let Some(name) = upper(argument(command, 0), &mut buffer) else {
        return by_key(command, 1);
    };
    match name {
        b"MGET" => split(command, 1, Combine::ByKey),
        b"DEL" | b"EXISTS" | b"TOUCH" | b"UNLINK" => split(command, 1, Combine::Sum),
        b"MSET" => split(command, 2, Combine::Same),

        b"DBSIZE" => Target::Every(Combine::Sum),
        b"KEYS" => Target::Every(Combine::Concatenation),
        b"FLUSHALL" | b"FLUSHDB" => Target::Every(Combine::Same),
        b"FUNCTION" | b"SCRIPT" => library(command),
        b"SCAN" => Target::Nowhere(
            "SCAN walks the keys of one node, and a cluster has several: its cursor means nothing here",
        ),

        b"BITOP" | b"OBJECT" | b"PFDEBUG" | b"XGROUP" | b"XINFO" => by_key(command, 2),
        b"BLMPOP" | b"BZMPOP" | b"EVAL" | b"EVALSHA" | b"EVALSHA_RO" | b"EVAL_RO" | b"FCALL"
        | b"FCALL_RO" => by_counted_key(command, 2),
        b"LMPOP" | b"SINTERCARD" | b"ZDIFF" | b"ZINTER" | b"ZINTERCARD" | b"ZMPOP" | b"ZUNION" => {
            by_counted_key(command, 1)
        }
        b"MEMORY" => match is(argument(command, 1), b"USAGE") {
            true => by_key(command, 2),
            false => Target::Any,
        },
        b"XREAD" | b"XREADGROUP" => {
            let streams = arguments(command).position(|word| is(word, b"STREAMS"));
            streams.map_or(Target::Any, |position| by_key(command, position + 1))
        }

        b"ACL" | b"BGREWRITEAOF" | b"BGSAVE" | b"CLIENT" | b"CLUSTER" | b"COMMAND" | b"CONFIG"
        | b"ECHO" | b"INFO" | b"LASTSAVE" | b"LATENCY" | b"LOLWUT" | b"MODULE" | b"PING"
        | b"PUBLISH" | b"PUBSUB" | b"RANDOMKEY" | b"ROLE" | b"SAVE" | b"SELECT" | b"SLOWLOG"
        | b"TIME" | b"UNWATCH" | b"WAIT" | b"WAITAOF" => Target::Any,

        _ => by_key(command, 1),
    }
}

/// Scripts and functions must be known to every node, as any may be asked to run them.
fn library(command: &Cmd) -> Target {
    let mut buffer = [0; LONGEST_NAME];
    match upper(argument(command, 1), &mut buffer) {
        Some(b"DELETE" | b"FLUSH" | b"LOAD" | b"RESTORE") => Target::Every(Combine::Same),
        Some(b"EXISTS") => Target::Every(Combine::All),
        _ => Target::Any,
    }
}

fn by_key(command: &Cmd, position: usize) -> Target {
    argument(command, position).map_or(Target::Any, |key| Target::Slot(slot_of(key)))
}

/// The key behind the number of keys.
fn by_counted_key(command: &Cmd, position: usize) -> Target {
    match argument(command, position) {
        Some(b"0") | None => Target::Any,
        Some(_) => by_key(command, position + 1),
    }
}

fn split(command: &Cmd, step: usize, combine: Combine) -> Target {
    let mut slots = arguments(command)
        .skip(1)
        .step_by(step)
        .map(|key| slot_of(key.unwrap_or_default()));
    let Some(first) = slots.next() else {
        return Target::Any; // Redis says what is wrong with it
    };
    match slots.all(|slot| slot == first) {
        true => Target::Slot(first),
        // A pair that is not whole goes nowhere but to Redis, which refuses it.
        false if !(arguments(command).count() - 1).is_multiple_of(step) => Target::Slot(first),
        false => Target::Split { step, combine },
    }
}

/// The command's words; `None` for a cursor.
pub(super) fn arguments(command: &Cmd) -> impl Iterator<Item = Option<&[u8]>> {
    command.args_iter().map(|argument| match argument {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    })
}

fn argument(command: &Cmd, position: usize) -> Option<&[u8]> {
    arguments(command).nth(position).flatten()
}

fn is(argument: Option<&[u8]>, word: &[u8]) -> bool {
    argument.is_some_and(|argument| argument.eq_ignore_ascii_case(word))
}

fn upper<'a>(word: Option<&[u8]>, buffer: &'a mut [u8; LONGEST_NAME]) -> Option<&'a [u8]> {
    let word = word?;
    let room = buffer.get_mut(..word.len())?;
    room.copy_from_slice(word);
    room.make_ascii_uppercase();
    Some(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Target {
        let mut command = Cmd::new();
        for word in text.split(' ') {
            command.arg(word);
        }
        target(&command)
    }

    #[test]
    fn keyless_commands_go_to_any_node_and_some_to_every_node() {
        for text in [
            "PING",
            "info",
            "CONFIG GET x",
            "PUBLISH a b",
            "EVAL x 0",
            "SCRIPT SHOW",
        ] {
            assert_eq!(of(text), Target::Any, "{text}");
        }
        assert_eq!(of("DBSIZE"), Target::Every(Combine::Sum));
        assert_eq!(of("script load x"), Target::Every(Combine::Same));
        assert_eq!(of("SCRIPT EXISTS x"), Target::Every(Combine::All));
        assert!(matches!(of("SCAN 0"), Target::Nowhere(_)));
    }

    #[test]
    fn commands_of_many_keys_are_split_only_where_slots_differ() {
        let foo = Target::Slot(12182);
        assert_eq!(of("MGET foo {foo}1"), foo);
        assert_eq!(of("MSET foo 1 {foo}1 2"), foo);
        let split = |step, combine| Target::Split { step, combine };
        assert_eq!(of("mget foo bar"), split(1, Combine::ByKey));
        assert_eq!(of("DEL foo bar"), split(1, Combine::Sum));
        assert_eq!(of("MSET foo 1 bar 2"), split(2, Combine::Same));
        assert_eq!(of("MSET foo 1 bar"), foo, "Redis refuses it");
        assert_eq!(of("MGET"), Target::Any, "Redis refuses it");
        assert_eq!(of("SINTER foo bar"), foo, "Redis refuses it");
    }
}
