//! The addresses of a cluster's nodes in the replies of a server.
//!
//! Replies that may name nodes are shard maps and errors. Each address in them becomes that of the node's proxy, announced
//! as Azure does, by IP and port and without a name.
//!
//! `INFO` and `ROLE` are not rewritten, because no client finds nodes by them, and neither is a shard map inside `MULTI`.
//!
//! # Invariants
//!
//! - Everything else in a reply stays as it is, and a reply that is not understood passes untouched.

use std::net::SocketAddr;

use crate::resp::Value;

/// The form of a reply that names nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShardMap {
    /// Ranges of slots with the nodes that have them.
    Slots,
    /// Shards with their slots and nodes, by field.
    Shards,
    /// Text with one node on each line; one string, or one for each node.
    Lines,
}

impl ShardMap {
    /// Returns the form of the reply to a command, if it is a shard map.
    pub(super) fn requested_by(arguments: &[&[u8]]) -> Option<Self> {
        let [name, subcommand, ..] = arguments else {
            return None;
        };
        if !name.eq_ignore_ascii_case(b"CLUSTER") {
            return None;
        }
        match subcommand.to_ascii_uppercase().as_slice() {
            b"SLOTS" => Some(Self::Slots),
            b"SHARDS" => Some(Self::Shards),
            b"NODES" | b"REPLICAS" | b"SLAVES" => Some(Self::Lines),
            _ => None,
        }
    }
}

/// A function that returns the address of a node's proxy, by the node's host and port. The host is empty or `?` if the
/// server leaves it out.
pub(super) type ProxyOf<'a> = dyn Fn(&str, u16) -> Option<SocketAddr> + 'a;

/// Rewrites a complete reply for the client; `None` if it stays as it is.
pub(super) fn rewrite(
    map: Option<ShardMap>,
    reply: &[u8],
    proxy_of: &ProxyOf<'_>,
) -> Option<Vec<u8>> {
    if reply.starts_with(b"-") {
        return redirection(reply, proxy_of);
    }
    let map = map?;
    let mut value = Value::parse(reply)?;
    match map {
        ShardMap::Slots => {
            for range in value.elements() {
                // Two numbers, then the nodes.
                for node in range.elements().iter_mut().skip(2) {
                    node_of_slots(node, proxy_of);
                }
            }
        }
        ShardMap::Shards => {
            for shard in value.elements() {
                if let Some(nodes) = shard.field("nodes") {
                    for node in nodes.elements() {
                        node_of_shard(node, proxy_of);
                    }
                }
            }
        }
        ShardMap::Lines => lines(&mut value, proxy_of),
    }
    let mut out = Vec::with_capacity(reply.len());
    value.write(&mut out);
    Some(out)
}

/// Rewrites `-MOVED slot host:port` and `-ASK slot host:port`.
fn redirection(reply: &[u8], proxy_of: &ProxyOf<'_>) -> Option<Vec<u8>> {
    let line = str::from_utf8(reply).ok()?.strip_suffix("\r\n")?;
    let mut words = line.split(' ');
    let (kind, slot, address) = (words.next()?, words.next()?, words.next()?);
    if !matches!(kind, "-MOVED" | "-ASK") || words.next().is_some() {
        return None;
    }
    let (host, port) = address.rsplit_once(':')?;
    let proxy = proxy_of(host, port.parse().ok()?)?;
    let (ip, port) = (proxy.ip(), proxy.port());
    Some(format!("{kind} {slot} {ip}:{port}\r\n").into_bytes())
}

/// Rewrites host, port and id; Redis 7 adds a map of further names.
fn node_of_slots(node: &mut Value, proxy_of: &ProxyOf<'_>) {
    let [host, port, _, more @ ..] = node.elements() else {
        return;
    };
    let named = |text: &str| !matches!(text, "" | "?");
    let ip = more.first_mut().and_then(|names| names.field("ip"));
    let text = host.text().filter(|text| named(text));
    let text = text.or_else(|| ip.and_then(|ip| ip.text()).filter(|text| named(text)));
    let text = text.unwrap_or_default().to_owned();
    let Some(proxy) = port.port().and_then(|port| proxy_of(&text, port)) else {
        return;
    };
    *host = Value::bulk(&proxy.ip().to_string());
    *port = Value::integer(proxy.port());
    if let Some(names) = more.first_mut() {
        names.elements_mut(Vec::clear);
    }
}

fn node_of_shard(node: &mut Value, proxy_of: &ProxyOf<'_>) {
    let text = ["ip", "endpoint"].map(|name| {
        let value = node.field(name).and_then(|value| value.text());
        value.unwrap_or_default().to_owned()
    });
    let ports = ["port", "tls-port"].map(|name| node.field(name).and_then(|port| port.port()));
    let [ip, endpoint] = &text;
    let host = if ip.is_empty() { endpoint } else { ip };
    let port = ports.into_iter().flatten().next();
    let Some(proxy) = port.and_then(|port| proxy_of(host, port)) else {
        return;
    };
    for name in ["ip", "endpoint"] {
        if let Some(value) = node.field(name) {
            *value = Value::bulk(&proxy.ip().to_string());
        }
    }
    for name in ["port", "tls-port"] {
        if let Some(value) = node.field(name) {
            *value = Value::integer(proxy.port());
        }
    }
    node.elements_mut(|elements| {
        let hostname = elements
            .chunks_exact(2)
            .position(|pair| pair[0].text() == Some("hostname"));
        if let Some(at) = hostname {
            elements.drain(2 * at..2 * at + 2);
        }
    });
}

fn lines(value: &mut Value, proxy_of: &ProxyOf<'_>) {
    match value {
        Value::Line(_) => {}
        Value::Aggregate(_, elements) => {
            for element in elements {
                lines(element, proxy_of);
            }
        }
        Value::String(_, text) => {
            let Ok(before) = str::from_utf8(text) else {
                return;
            };
            let after: Vec<String> = before
                .split('\n')
                .map(|text| line(text, proxy_of))
                .collect();
            *text = after.join("\n").into_bytes();
        }
    }
}

/// Rewrites `id host:port@bus-port[,hostname[,…]] flags …`.
fn line(text: &str, proxy_of: &ProxyOf<'_>) -> String {
    let announced = |word: &str| {
        let (address, _) = word.split_once('@')?;
        let (host, port) = address.rsplit_once(':')?;
        let proxy = proxy_of(host, port.parse().ok()?)?;
        let (ip, port) = (proxy.ip(), proxy.port());
        // No client connects to the cluster bus, and its real port would disclose the node's own address.
        Some(format!("{ip}:{port}@{port}"))
    };
    let mut words: Vec<&str> = text.split(' ').collect();
    let address = words.get(1).and_then(|word| announced(word));
    if let Some(address) = &address {
        words[1] = address;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proxies at 10.0.0.4, on the node's port plus 1500.
    fn proxy_of(host: &str, port: u16) -> Option<SocketAddr> {
        let known = matches!(host, "127.0.0.1" | "::1" | "" | "?");
        (known && port > 0).then(|| SocketAddr::from(([10, 0, 0, 4], port + 1500)))
    }

    fn rewritten(map: Option<ShardMap>, reply: &str) -> String {
        let reply_to_client = rewrite(map, reply.as_bytes(), &proxy_of);
        reply_to_client.map_or_else(
            || reply.to_owned(),
            |reply| String::from_utf8(reply).expect("text"),
        )
    }

    #[test]
    fn redirections_name_proxies() {
        for (reply, expected) in [
            ("-MOVED 5 127.0.0.1:7001\r\n", "-MOVED 5 10.0.0.4:8501\r\n"),
            ("-ASK 5 127.0.0.1:7001\r\n", "-ASK 5 10.0.0.4:8501\r\n"),
            ("-MOVED 5 ::1:7001\r\n", "-MOVED 5 10.0.0.4:8501\r\n"),
            ("-MOVED 5 :7000\r\n", "-MOVED 5 10.0.0.4:8500\r\n"),
            ("-MOVED 5 ?:7000\r\n", "-MOVED 5 10.0.0.4:8500\r\n"),
        ] {
            assert_eq!(rewritten(None, reply), expected);
            assert_eq!(rewritten(Some(ShardMap::Slots), reply), expected);
        }
        for other in [
            "-MOVED 5 127.0.0.1\r\n",
            "-MOVED 5 127.0.0.1:7001 more\r\n",
            "-MOVED 5 127.0.0.1:x\r\n",
            "-ERR MOVED 5 127.0.0.1:7001\r\n",
            "-MOVED\r\n",
        ] {
            assert_eq!(rewritten(None, other), other);
        }
    }

    #[test]
    fn slots_name_proxies_and_no_host_names() {
        // A node that does not know its own address yet; one with a name and its address beside it; one without both.
        let reply = "*1\r\n*5\r\n:0\r\n:5\r\n*4\r\n$0\r\n\r\n:7000\r\n$1\r\na\r\n*0\r\n\
            *4\r\n$4\r\nname\r\n:7001\r\n$1\r\nb\r\n*2\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n\
            *4\r\n$-1\r\n:7002\r\n$1\r\nc\r\n*2\r\n$8\r\nhostname\r\n$4\r\nname\r\n";
        let expected = "*1\r\n*5\r\n:0\r\n:5\r\n*4\r\n$8\r\n10.0.0.4\r\n:8500\r\n$1\r\na\r\n*0\r\n\
            *4\r\n$4\r\nname\r\n:7001\r\n$1\r\nb\r\n*2\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n\
            *4\r\n$8\r\n10.0.0.4\r\n:8502\r\n$1\r\nc\r\n*0\r\n";
        assert_eq!(rewritten(Some(ShardMap::Slots), reply), expected);
        let reply = "*1\r\n*3\r\n:0\r\n:5\r\n*4\r\n$1\r\n?\r\n:7001\r\n$1\r\na\r\n%1\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n";
        let expected = "*1\r\n*3\r\n:0\r\n:5\r\n*4\r\n$8\r\n10.0.0.4\r\n:8501\r\n$1\r\na\r\n%0\r\n";
        assert_eq!(rewritten(Some(ShardMap::Slots), reply), expected);
    }

    #[test]
    fn shards_name_proxies_in_both_protocols() {
        let fields = |ip: &str, port: u16| {
            format!(
                "$2\r\nid\r\n$1\r\na\r\n$4\r\nport\r\n:{port}\r\n$2\r\nip\r\n${}\r\n{ip}\r\n\
                $8\r\nendpoint\r\n${}\r\n{ip}\r\n",
                ip.len(),
                ip.len()
            )
        };
        let name = "$8\r\nhostname\r\n$4\r\nname\r\n";
        let role = "$4\r\nrole\r\n$6\r\nmaster\r\n";
        let slots = "$5\r\nslots\r\n*2\r\n:0\r\n:5\r\n";
        for (two, without, with) in [("*4", "*10", "*12"), ("%2", "%5", "%6")] {
            let reply = |head: &str, fields: String, name: &str| {
                format!("*1\r\n{two}\r\n{slots}$5\r\nnodes\r\n*1\r\n{head}\r\n{fields}{name}{role}")
            };
            let expected = reply(without, fields("10.0.0.4", 8501), "");
            let plain = reply(without, fields("127.0.0.1", 7001), "");
            assert_eq!(rewritten(Some(ShardMap::Shards), &plain), expected);
            let named = reply(with, fields("127.0.0.1", 7001), name);
            // Redis counts the pairs of RESP3 and the elements of RESP2.
            assert_eq!(rewritten(Some(ShardMap::Shards), &named), expected);
        }
    }

    #[test]
    fn lines_name_proxies_and_no_host_names() {
        let before = "a :7000@17000 myself,master - 0 0 1 connected 0-5 [6->-b]\n\
            b 127.0.0.1:7001@17001,name,shard-id=1 slave a 0 1 1 connected\n\
            c :0@0 master,noaddr - 1 1 0 disconnected\n";
        let after = "a 10.0.0.4:8500@8500 myself,master - 0 0 1 connected 0-5 [6->-b]\n\
            b 10.0.0.4:8501@8501 slave a 0 1 1 connected\n\
            c :0@0 master,noaddr - 1 1 0 disconnected\n";
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let verbatim = |text: &str| format!("={}\r\ntxt:{text}\r\n", text.len() + 4);
        let map = Some(ShardMap::Lines);
        assert_eq!(rewritten(map, &bulk(before)), bulk(after));
        assert_eq!(rewritten(map, &verbatim(before)), verbatim(after));
        let many = |text: &str| {
            let lines: Vec<String> = text.lines().map(bulk).collect();
            format!("*{}\r\n{}", lines.len(), lines.concat())
        };
        assert_eq!(rewritten(map, &many(before)), many(after));
    }

    #[test]
    fn other_replies_stay_as_they_are() {
        for reply in [
            "+QUEUED\r\n",
            "*0\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "_\r\n",
            "*1\r\n:1\r\n",
        ] {
            for map in [ShardMap::Slots, ShardMap::Shards, ShardMap::Lines] {
                assert_eq!(rewritten(Some(map), reply), reply);
            }
        }
    }

    #[test]
    fn maps_are_recognized_by_their_commands() {
        let asked = |text: &str| {
            let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
            ShardMap::requested_by(&words)
        };
        assert_eq!(asked("cluster Slots"), Some(ShardMap::Slots));
        assert_eq!(asked("CLUSTER SHARDS"), Some(ShardMap::Shards));
        for lines in ["NODES", "REPLICAS id", "slaves id"] {
            assert_eq!(asked(&format!("CLUSTER {lines}")), Some(ShardMap::Lines));
        }
        for other in ["CLUSTER", "CLUSTER INFO", "GET SLOTS"] {
            assert_eq!(asked(other), None);
        }
    }

    #[test]
    fn a_field_without_a_value_stays_as_it_is() {
        let reply = |ip: &str, port: u16| {
            let ip = format!("${}\r\n{ip}\r\n", ip.len());
            format!(
                "*1\r\n*2\r\n$5\r\nnodes\r\n*1\r\n*5\r\n$4\r\nport\r\n:{port}\r\n$2\r\nip\r\n{ip}$8\r\nhostname\r\n"
            )
        };
        let actual = rewritten(Some(ShardMap::Shards), &reply("127.0.0.1", 7001));
        assert_eq!(actual, reply("10.0.0.4", 8501));
    }

    #[test]
    fn a_reply_nested_too_deep_stays_as_it_is() {
        let deep = "*1\r\n".repeat(1_000_000);
        for map in [ShardMap::Slots, ShardMap::Shards, ShardMap::Lines] {
            assert_eq!(rewrite(Some(map), deep.as_bytes(), &proxy_of), None);
        }
    }

    mod properties {
        use proptest::{collection::vec, prelude::*};

        use super::*;

        /// Replies of the words and types of shard maps, in any order.
        fn reply() -> impl Strategy<Value = Value> {
            let word = prop_oneof![
                "nodes|ip|endpoint|hostname|port|tls-port|127.0.0.1|\\?|",
                "a 127.0.0.1:[0-9]{1,6}@1,name flags\n(b :1@1)?",
                "\\PC{0,10}",
            ];
            let string = |kind| move |text: String| Value::String(kind, text.into_bytes());
            let leaf = prop_oneof![
                word.clone().prop_map(string(b'$')),
                word.prop_map(string(b'=')),
                any::<u32>().prop_map(|number| Value::Line(format!(":{number}").into())),
                "_|[$]-1|[+][a-z]{0,5}".prop_map(|line| Value::Line(line.into_bytes())),
            ];
            leaf.prop_recursive(6, 64, 8, |inner| {
                prop_oneof![
                    vec(inner.clone(), 0..8).prop_map(|all| Value::Aggregate(b'*', all)),
                    vec((inner.clone(), inner), 0..5).prop_map(|pairs| {
                        let all = pairs.into_iter().flat_map(|(key, value)| [key, value]);
                        Value::Aggregate(b'%', all.collect())
                    }),
                ]
            })
        }

        proptest! {
            #[test]
            fn an_unchanged_reply_is_written_as_it_was(value in reply()) {
                let mut bytes = Vec::new();
                value.write(&mut bytes);
                let read = Value::parse(&bytes).expect("a reply");
                let mut again = Vec::new();
                read.write(&mut again);
                prop_assert_eq!(&again, &bytes);
                for map in [ShardMap::Slots, ShardMap::Shards, ShardMap::Lines] {
                    let actual = rewrite(Some(map), &bytes, &proxy_of).expect("a reply");
                    // It is still one complete reply.
                    prop_assert!(Value::parse(&actual).is_some());
                    if map != ShardMap::Lines {
                        prop_assert_eq!(rewrite(Some(map), &actual, &|_, _| None), Some(actual));
                    }
                }
            }

            #[test]
            fn any_bytes_are_rewritten_or_left_alone(
                bytes in prop_oneof![
                    vec(any::<u8>(), 0..200),
                    "(-(MOVED|ASK) [0-9]{0,5} \\PC{0,20}(:[0-9]{0,6})?|[*%$~=!:|-]([0-9]{0,3}|18446744073709551615)(\r\n)?){0,12}"
                        .prop_map(String::into_bytes),
                ],
            ) {
                for map in [None, Some(ShardMap::Slots), Some(ShardMap::Shards), Some(ShardMap::Lines)] {
                    if let Some(new) = rewrite(map, &bytes, &proxy_of) {
                        prop_assert!(new.len() <= 4 * bytes.len() + 64, "{} bytes", new.len());
                    }
                }
            }
        }
    }
}
