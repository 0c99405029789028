//! The slot map: the reply to `CLUSTER SLOTS`, parsed and stored for fast lookup.
//!
//! Replicas are ignored: Azure Managed Redis does not support the READONLY command, so nothing is read from them.

use std::{ops::RangeInclusive, sync::Arc};

use redis::Value;

use super::super::node::Node;
use crate::env::Endpoint;

const SLOTS: u16 = 16384;
/// The index of a slot without a primary.
const UNSERVED: u16 = u16::MAX;

/// Slots and the address of their primary.
pub(in crate::pool) type Ranges = Vec<(RangeInclusive<u16>, Endpoint)>;

/// Returns the slot of a key: CRC16 of the key, or of the part between its first braces (Redis Cluster specification, "Key
/// distribution model").
pub(super) fn slot_of(key: &[u8]) -> u16 {
    const XMODEM: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
    XMODEM.checksum(hash_tag(key).unwrap_or(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|&byte| byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

/// Parses the reply to `CLUSTER SLOTS`; `None` if it is not a list of slots. A node that does not know its own address
/// reports an empty one, which stands for the address that was asked; a node with an unknown address (`?`) is skipped.
pub(in crate::pool) fn read(answer: &Value, asked: &Endpoint) -> Option<Ranges> {
    let Value::Array(entries) = answer else {
        return None;
    };
    let mut ranges = Ranges::with_capacity(entries.len());
    for entry in entries {
        let Value::Array(parts) = entry else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(primary),
            ..,
        ] = &parts[..]
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = &primary[..] else {
            return None;
        };
        let slot = |slot: &i64| u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS);
        let host = match host {
            Value::Nil => "",
            Value::BulkString(bytes) => str::from_utf8(bytes).ok()?,
            Value::SimpleString(text) => text,
            _ => return None,
        };
        let port = u16::try_from(*port).ok()?;
        let address = match host {
            "?" => continue,
            "" => Endpoint::announced(asked.host(), port),
            host => Endpoint::announced(host, port),
        };
        ranges.push((slot(first)?..=slot(last)?, address));
    }
    Some(ranges)
}

/// Returns the address in `MOVED slot host:port` and `ASK slot host:port`; an empty host stands for the host of the node
/// that was `asked`. IPv6 addresses have no brackets.
pub(super) fn redirected(details: &str, asked: &Endpoint) -> Option<Endpoint> {
    let (_, address) = details.split_once(' ')?;
    let (host, port) = address.trim_end().rsplit_once(':')?;
    let port = port.parse().ok()?;
    Some(match host {
        "" => Endpoint::announced(asked.host(), port),
        host => Endpoint::announced(host, port),
    })
}

/// Nodes by slot.
#[derive(Default)]
pub(super) struct Map {
    /// For each slot the index of its primary in `nodes`; empty at first.
    owners: Box<[u16]>,
    pub(super) nodes: Vec<Arc<Node>>,
}

impl Map {
    /// Returns the map of `ranges`, with the node of each address.
    pub(super) fn new(ranges: &Ranges, mut node: impl FnMut(&Endpoint) -> Arc<Node>) -> Self {
        let mut owners = vec![UNSERVED; usize::from(SLOTS)].into_boxed_slice();
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        for (slots, address) in ranges {
            let known = nodes.iter().position(|node| node.address == *address);
            let index = known.unwrap_or_else(|| {
                nodes.push(node(address));
                nodes.len() - 1
            });
            let index = u16::try_from(index).unwrap_or(UNSERVED); // a cluster has at most one primary per slot
            for slot in slots.clone() {
                owners[usize::from(slot)] = index;
            }
        }
        Self { owners, nodes }
    }

    /// Returns the primary of a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        let index = self.owners.get(usize::from(slot))?;
        self.nodes.get(usize::from(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn entry(first: i64, last: i64, host: Value, port: i64) -> Value {
        let replica = Value::Array(vec![bulk("10.0.0.9"), Value::Int(8509)]);
        let primary = Value::Array(vec![host, Value::Int(port), bulk("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
    }

    #[test]
    fn slots_are_computed_as_redis_computes_them() {
        // From the Redis Cluster specification, and `CLUSTER KEYSLOT`.
        assert_eq!(slot_of(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), 8363);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
    }

    #[test]
    fn primaries_are_read_with_their_slots() {
        let asked = Endpoint::announced("name.region.redis.azure.net", 10000);
        let answer = Value::Array(vec![
            entry(0, 8191, bulk("10.0.0.4"), 8501),
            entry(8192, 8192, Value::Nil, 8502),
            entry(8193, 8193, bulk(""), 8502),
            entry(8194, 9000, bulk("?"), 8503),
        ]);
        let ranges = read(&answer, &asked).expect("a list of slots");
        let shown: Vec<String> = ranges
            .iter()
            .map(|(slots, address)| format!("{}-{} {address}", slots.start(), slots.end()))
            .collect();
        let own = "name.region.redis.azure.net:8502";
        assert_eq!(
            shown,
            [
                "0-8191 10.0.0.4:8501".to_owned(),
                format!("8192-8192 {own}"),
                format!("8193-8193 {own}")
            ]
        );
    }

    #[test]
    fn a_reply_that_is_not_a_list_of_slots_is_refused() {
        let asked = Endpoint::announced("localhost", 1);
        for answer in [
            Value::Okay,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![entry(0, 16384, bulk("h"), 1)]),
            Value::Array(vec![entry(0, 1, bulk("h"), 65536)]),
            Value::Array(vec![entry(0, 1, Value::Int(1), 1)]),
        ] {
            assert!(read(&answer, &asked).is_none(), "{answer:?}");
        }
    }

    #[test]
    fn a_redirection_names_a_node() {
        let asked = Endpoint::announced("10.0.0.4", 8501);
        let read = |details| redirected(details, &asked).map(|address| address.to_string());
        assert_eq!(read("3999 10.0.0.5:8502").as_deref(), Some("10.0.0.5:8502"));
        assert_eq!(read("3999 ::1:8502").as_deref(), Some("[::1]:8502"));
        assert_eq!(read("3999 :8502").as_deref(), Some("10.0.0.4:8502"));
        assert_eq!(read("3999 nowhere"), None);
        assert_eq!(read("3999"), None);
    }
}
