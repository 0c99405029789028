//! The routing target of a command: the slot of its first key, any node, or several nodes.
//!
//! A table of the commands whose key is not their first argument, and of those without a key (Redis documentation,
//! "Command key specifications" and "Command tips"). The first argument of any other command is its key, if it has
//! arguments. The server judges everything else, above all that a command's keys share a slot: its CROSSSLOT reaches the
//! caller.
//!
//! The commands that are split by slot are exactly those that Azure's proxy splits under the EnterpriseCluster policy (Azure page
//! "Azure Managed Redis architecture"), so that a program behaves alike under both.

use redis::{Arg, Cmd};

use super::slots::slot_of;

/// The nodes that run a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RoutingTarget {
    /// The primary of this slot.
    Slot(u16),
    /// Any primary: the command has no key.
    Any,
    /// Every primary; the replies are combined.
    Every(Combine),
    /// The primaries of its keys' slots, with `step` arguments per key; the replies are combined.
    Split { step: usize, combine: Combine },
    /// None, for this reason.
    Nowhere(&'static str),
}

/// The method by which the replies of several nodes are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Combine {
    /// They are equal.
    Same,
    /// Integers: their sum.
    Sum,
    /// Arrays of 0 and 1: 1 if all arrays have 1.
    All,
    /// Arrays: their concatenation.
    Concatenation,
    /// Arrays with one item per key: the items in the order of the keys.
    ByKey,
}

/// At least the length of each command name in the table: longer ones are not compared with it.
const LONGEST_NAME: usize = 16;

/// Returns the routing target of `command`.
pub(super) fn target(command: &Cmd) -> RoutingTarget {
    let mut buffer = [0; LONGEST_NAME];
    let Some(name) = upper(argument(command, 0), &mut buffer) else {
        return by_key(command, 1);
    };
    match name {
        b"MGET" => split(command, 1, Combine::ByKey),
        b"DEL" | b"EXISTS" | b"TOUCH" | b"UNLINK" => split(command, 1, Combine::Sum),
        b"MSET" => split(command, 2, Combine::Same),

        b"DBSIZE" => RoutingTarget::Every(Combine::Sum),
        b"KEYS" => RoutingTarget::Every(Combine::Concatenation),
        b"FLUSHALL" | b"FLUSHDB" => RoutingTarget::Every(Combine::Same),
        b"FUNCTION" | b"SCRIPT" => library(command),
        b"SCAN" => RoutingTarget::Nowhere(
            "SCAN iterates over the keys of one node: its cursor has no meaning in a cluster",
        ),

        b"BITOP" | b"OBJECT" | b"PFDEBUG" | b"XGROUP" | b"XINFO" => by_key(command, 2),
        b"BLMPOP" | b"BZMPOP" | b"EVAL" | b"EVALSHA" | b"EVALSHA_RO" | b"EVAL_RO" | b"FCALL"
        | b"FCALL_RO" => by_counted_key(command, 2),
        b"LMPOP" | b"SINTERCARD" | b"ZDIFF" | b"ZINTER" | b"ZINTERCARD" | b"ZMPOP" | b"ZUNION" => {
            by_counted_key(command, 1)
        }
        b"MEMORY" if is(argument(command, 1), b"USAGE") => by_key(command, 2),
        b"MEMORY" => RoutingTarget::Any,
        b"XREAD" | b"XREADGROUP" => {
            let streams = arguments(command).position(|word| is(word, b"STREAMS"));
            streams.map_or(RoutingTarget::Any, |position| by_key(command, position + 1))
        }

        b"ACL" | b"BGREWRITEAOF" | b"BGSAVE" | b"CLIENT" | b"CLUSTER" | b"COMMAND" | b"CONFIG"
        | b"ECHO" | b"INFO" | b"LASTSAVE" | b"LATENCY" | b"LOLWUT" | b"MODULE" | b"PING"
        | b"PUBLISH" | b"PUBSUB" | b"RANDOMKEY" | b"ROLE" | b"SAVE" | b"SELECT" | b"SLOWLOG"
        | b"TIME" | b"UNWATCH" | b"WAIT" | b"WAITAOF" => RoutingTarget::Any,

        _ => by_key(command, 1),
    }
}

/// Scripts and functions must be on every node, because any node may have to run them.
fn library(command: &Cmd) -> RoutingTarget {
    let mut buffer = [0; LONGEST_NAME];
    match upper(argument(command, 1), &mut buffer) {
        Some(b"DELETE" | b"FLUSH" | b"LOAD" | b"RESTORE") => RoutingTarget::Every(Combine::Same),
        Some(b"EXISTS") => RoutingTarget::Every(Combine::All),
        _ => RoutingTarget::Any,
    }
}

fn by_key(command: &Cmd, position: usize) -> RoutingTarget {
    argument(command, position).map_or(RoutingTarget::Any, |key| RoutingTarget::Slot(slot_of(key)))
}

/// Returns the target by the key that follows the number of keys.
fn by_counted_key(command: &Cmd, position: usize) -> RoutingTarget {
    match argument(command, position) {
        Some(b"0") | None => RoutingTarget::Any,
        Some(_) => by_key(command, position + 1),
    }
}

fn split(command: &Cmd, step: usize, combine: Combine) -> RoutingTarget {
    let mut slots = arguments(command)
        .skip(1)
        .step_by(step)
        .map(|key| slot_of(key.unwrap_or_default()));
    let Some(first) = slots.next() else {
        return RoutingTarget::Any; // Redis reports the error
    };
    // An incomplete pair goes to Redis as it is, which refuses it.
    let is_incomplete = !(arguments(command).count() - 1).is_multiple_of(step);
    if is_incomplete || slots.all(|slot| slot == first) {
        RoutingTarget::Slot(first)
    } else {
        RoutingTarget::Split { step, combine }
    }
}

/// Returns the command's words; `None` for a cursor.
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

    fn of(text: &str) -> RoutingTarget {
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
            assert_eq!(of(text), RoutingTarget::Any, "{text}");
        }
        assert_eq!(of("DBSIZE"), RoutingTarget::Every(Combine::Sum));
        assert_eq!(of("script load x"), RoutingTarget::Every(Combine::Same));
        assert_eq!(of("SCRIPT EXISTS x"), RoutingTarget::Every(Combine::All));
        assert!(matches!(of("SCAN 0"), RoutingTarget::Nowhere(_)));
    }

    #[test]
    fn commands_of_many_keys_are_split_only_where_slots_differ() {
        let foo = RoutingTarget::Slot(12182);
        assert_eq!(of("MGET foo {foo}1"), foo);
        assert_eq!(of("MSET foo 1 {foo}1 2"), foo);
        let split = |step, combine| RoutingTarget::Split { step, combine };
        assert_eq!(of("mget foo bar"), split(1, Combine::ByKey));
        assert_eq!(of("DEL foo bar"), split(1, Combine::Sum));
        assert_eq!(of("MSET foo 1 bar 2"), split(2, Combine::Same));
        assert_eq!(of("MSET foo 1 bar"), foo, "Redis refuses it");
        assert_eq!(of("MGET"), RoutingTarget::Any, "Redis refuses it");
        assert_eq!(of("SINTER foo bar"), foo, "Redis refuses it");
    }
}
