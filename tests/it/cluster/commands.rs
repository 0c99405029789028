//! Routing of commands: keys, several keys, pipelines and transactions, also while a slot is migrated.

use entra_redis::pool::{Connection, Error, Pool};
use redis::{ErrorKind, ServerErrorKind, Value, aio::ConnectionLike};

use super::{azure, builder, filled};
use crate::support::{Azure, LIMIT, RedisCluster};

async fn three_primaries() -> (RedisCluster, Azure, Pool) {
    let cluster = RedisCluster::start(3, 0).await;
    let azure = azure(&cluster, 60).await;
    // These tests are of where commands go, not of how long they take, which is much on a busy machine.
    let pool = builder(&azure).command_timeout(LIMIT).build();
    let pool = pool.expect("the certificate is there");
    filled(&pool, 7).await;
    (cluster, azure, pool)
}

fn command(text: &str) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in text.split(' ') {
        command.arg(word);
    }
    command
}

/// Commands whose key is not simply their first argument, and some whose it is; `k` and `{k}2` are the keys.
const FORMS: &[&str] = &[
    "APPEND k v",
    "BITFIELD k GET u8 0",
    "BITOP NOT k {k}2",
    "BLMPOP 0.01 1 k LEFT",
    "BZMPOP 0.01 1 k MIN",
    "COPY k {k}2",
    "DUMP k",
    "EVAL return 1 k",
    "EVALSHA aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 2 k {k}2",
    "EVALSHA_RO aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 1 k",
    "EVAL_RO return_1 1 k",
    "FCALL f 1 k",
    "FCALL_RO f 1 k",
    "GEOADD k 13 38 p",
    "GEORADIUS k 1 1 1 m",
    "GEORADIUSBYMEMBER k p 1 m",
    "GEOSEARCHSTORE k {k}2 FROMMEMBER m BYRADIUS 1 m",
    "GET k",
    "HSET k f v",
    "LMOVE k {k}2 LEFT LEFT",
    "LMPOP 1 k LEFT",
    "MEMORY USAGE k",
    "MSETNX k v {k}2 v",
    "OBJECT ENCODING k",
    "OBJECT FREQ k",
    "OBJECT IDLETIME k",
    "OBJECT REFCOUNT k",
    "PFADD k e",
    "PFCOUNT k {k}2",
    "PFDEBUG ENCODING k",
    "PFMERGE k {k}2",
    "RENAME k {k}2",
    "SINTERCARD 1 k",
    "SINTERSTORE k {k}2",
    "SORT k",
    "SORT_RO k",
    "SPUBLISH k m",
    "XADD k * f v",
    "XGROUP CREATE k g $ MKSTREAM",
    "XGROUP CREATECONSUMER k g c",
    "XGROUP DELCONSUMER k g c",
    "XGROUP DESTROY k g",
    "XGROUP SETID k g $",
    "XINFO CONSUMERS k g",
    "XINFO GROUPS k",
    "XINFO STREAM k",
    "XREAD COUNT 1 STREAMS k 0",
    "XREADGROUP GROUP g c STREAMS k >",
    "ZADD k 1 m",
    "ZDIFF 1 k",
    "ZDIFFSTORE k 1 {k}2",
    "ZINTER 1 k",
    "ZINTERCARD 1 k",
    "ZINTERSTORE k 1 {k}2",
    "ZMPOP 1 k MIN",
    "ZRANGESTORE k {k}2 0 -1",
    "ZUNION 1 k",
    "ZUNIONSTORE k 1 {k}2",
];

/// Commands with keys elsewhere that have no place in a pool: they move keys between servers or mean the connection.
const LEFT_OUT: &[&str] = &["migrate", "restore-asking"];

/// A command that goes to the wrong node is answered with MOVED, which Redis counts.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_goes_to_the_node_that_redis_names_for_its_keys() {
    let (cluster, _azure, pool) = three_primaries().await;
    for form in FORMS {
        for number in 0..12 {
            let key = format!("key{number}");
            let text = form.replace("{k}", &format!("{{{key}}}"));
            let words = text.split(' ').map(|word| match word {
                "k" => &key,
                word => word,
            });
            let mut command = redis::Cmd::new();
            words.for_each(|word| _ = command.arg(word));
            let _: Result<Value, Error> = pool.query(&command).await; // most find nothing, or of another type
        }
    }
    for index in 0..3 {
        let mut info = redis::cmd("INFO");
        let stats: String = info
            .arg(&["errorstats", "commandstats"])
            .query_async(&mut cluster.admin(index).await)
            .await
            .expect("INFO");
        assert!(!stats.contains("errorstat_MOVED"), "node {index}: {stats}");
        assert!(
            stats.contains("cmdstat_get:"),
            "node {index} was not used: {stats}"
        );
    }

    // No command is forgotten whose first key is not its first argument.
    let known: Vec<Value> = command("COMMAND")
        .query_async(&mut cluster.admin(0).await)
        .await
        .expect("COMMAND");
    let mut unusual = Vec::new();
    known
        .iter()
        .for_each(|entry| with_unusual_keys(entry, &mut unusual));
    assert!(unusual.len() > 20, "{unusual:?}");
    let forms: Vec<String> = FORMS.iter().map(|form| form.to_lowercase()).collect();
    for name in unusual {
        let words = name.replace('|', " ");
        let is_tried = forms
            .iter()
            .any(|form| form.starts_with(&format!("{words} ")));
        assert!(
            is_tried || LEFT_OUT.contains(&name.as_str()),
            "{name} is not tried"
        );
    }
}

/// Names of the commands in an entry of COMMAND, subcommands included, that have keys which do not begin with the first
/// argument.
fn with_unusual_keys(entry: &Value, names: &mut Vec<String>) {
    let Value::Array(parts) = entry else {
        panic!("{entry:?}");
    };
    let text = |value: &Value| -> String {
        redis::FromRedisValue::from_redis_value_ref(value).expect("a text")
    };
    let Value::Array(flags) = &parts[2] else {
        panic!("{entry:?}");
    };
    let is_movable = flags.iter().any(|flag| text(flag) == "movablekeys");
    let first = match parts[3] {
        Value::Int(first) => first,
        _ => panic!("{entry:?}"),
    };
    if first > 1 || (is_movable && first == 0) {
        names.push(text(&parts[0]));
    }
    if let Some(Value::Array(subcommands)) = parts.get(9) {
        subcommands
            .iter()
            .for_each(|entry| with_unusual_keys(entry, names));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_many_keys_are_split_by_slot_and_others_refused() {
    let (_cluster, _azure, pool) = three_primaries().await;
    let mut connection = pool.get().await.expect("it is open");
    let keys: Vec<String> = (0..40).map(|number| format!("many:{number}")).collect();
    let mut set = redis::cmd("MSET");
    for (number, key) in keys.iter().enumerate() {
        set.arg(key).arg(number);
    }
    set.query_async::<()>(&mut connection)
        .await
        .expect("it is split");

    let asked: Vec<String> = keys
        .iter()
        .rev()
        .cloned()
        .chain(["nothing".to_owned()])
        .collect();
    let values: Vec<Option<usize>> = pool
        .query(redis::cmd("MGET").arg(&asked))
        .await
        .expect("it is split");
    let expected: Vec<Option<usize>> = (0..40).rev().map(Some).chain([None]).collect();
    assert_eq!(values, expected, "each value is in its key's place");

    let count = async |name: &str, keys: &[String]| -> usize {
        pool.query(redis::cmd(name).arg(keys))
            .await
            .expect("it is split")
    };
    assert_eq!(count("EXISTS", &asked).await, 40);
    assert_eq!(count("TOUCH", &asked).await, 40);
    assert_eq!(
        pool.query::<usize>(&command("DBSIZE"))
            .await
            .expect("every node replies"),
        40
    );
    let mut all: Vec<String> = pool
        .query(&command("KEYS many:*"))
        .await
        .expect("every node replies");
    all.sort();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(all, sorted);
    assert_eq!(count("DEL", &keys[..10]).await, 10);
    assert_eq!(count("UNLINK", &asked).await, 30);

    // An odd MSET is Redis' to refuse, and SINTER over two slots, too.
    let refused = async |text: &str| match pool.query::<Value>(&command(text)).await {
        Err(Error::Command(error)) => error,
        other => panic!("{text}: {other:?}"),
    };
    let odd = refused("MSET many:1 1 {many:1}").await;
    assert_eq!(odd.code(), Some("ERR"));
    let cross_slot = ErrorKind::Server(ServerErrorKind::CrossSlot);
    assert_eq!(refused("SINTER many:1 many:2").await.kind(), cross_slot);
    assert_eq!(refused("SCAN 0").await.kind(), ErrorKind::Client);
    for mut pipeline in [redis::pipe(), redis::pipe().atomic().clone()] {
        pipeline.get("many:1").get("many:2");
        let error = pipeline.query_async::<Value>(&mut connection).await;
        assert_eq!(error.expect_err("two slots").kind(), cross_slot);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_known_to_every_primary() {
    let (_cluster, _azure, pool) = three_primaries().await;
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg("return redis.call('INCR', KEYS[1])");
    let digest: String = pool.query(&load).await.expect("every node accepts it");
    for number in 0..12 {
        let mut run = redis::cmd("EVALSHA");
        run.arg(&digest).arg(1).arg(format!("script:{number}"));
        assert_eq!(pool.query::<u64>(&run).await.expect("it is known"), 1);
    }
    let mut exists = redis::cmd("SCRIPT");
    exists.arg("EXISTS").arg(&digest).arg("a".repeat(40));
    let exist: Vec<bool> = pool.query(&exists).await.expect("every node replies");
    assert_eq!(exist, [true, false]);
}

/// The slot of `{way}` on its way from the node that has it to another; `{way}here` is still there, `{way}gone` is not.
async fn migrating(cluster: &RedisCluster, pool: &Pool) -> (u16, usize, usize) {
    let mut set = redis::cmd("MSET");
    set.arg(&["{way}here", "1", "{way}gone", "2"]);
    pool.query::<()>(&set).await.expect("one slot");
    let slot = cluster.slot_of("{way}").await;
    let from = cluster.primary_of(slot).await.expect("all agree");
    let to = (from + 1) % 3;
    let run = async |node: usize, text: String| {
        let mut admin = cluster.admin(node).await;
        command(&text)
            .query_async::<()>(&mut admin)
            .await
            .expect("the administrator may");
    };
    run(
        to,
        format!("CLUSTER SETSLOT {slot} IMPORTING {}", cluster.id(from)),
    )
    .await;
    run(
        from,
        format!("CLUSTER SETSLOT {slot} MIGRATING {}", cluster.id(to)),
    )
    .await;
    run(
        from,
        format!("MIGRATE 127.0.0.1 {} {{way}}gone 0 5000", cluster.port(to)),
    )
    .await;
    (slot, from, to)
}

/// Many at once on the same connections: an ASKING must never reach another caller's command.
#[tokio::test(flavor = "multi_thread")]
async fn commands_follow_a_slot_on_its_way() {
    let (cluster, _azure, pool) = three_primaries().await;
    let (slot, from, to) = migrating(&cluster, &pool).await;
    let callers = (0..64).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let here: u64 = pool.query(&command("GET {way}here")).await?;
                let gone: u64 = pool.query(&command("GET {way}gone")).await?;
                assert_eq!((here, gone), (1, 2));
            }
            Ok::<_, Error>(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic").expect("no request fails");
    }
    let moved: String = command("INFO errorstats")
        .query_async(&mut cluster.admin(to).await)
        .await
        .expect("INFO");
    assert!(
        !moved.contains("MOVED"),
        "ASKING was lost on the way: {moved}"
    );

    // A pipeline of which each command is served where its key is, in order.
    let mut connection: Connection = pool.get().await.expect("it is open");
    let mut pipeline = redis::pipe();
    pipeline
        .incr("{way}here", 1)
        .incr("{way}gone", 1)
        .incr("{way}here", 1)
        .incr("{way}gone", 1);
    let values: Vec<u64> = pipeline
        .query_async(&mut connection)
        .await
        .expect("all are served");
    assert_eq!(values, [2, 3, 3, 4]);
    // Transactions run where all their keys are.
    for (key, expected) in [("{way}here", [4, 5]), ("{way}gone", [5, 6])] {
        let mut transaction = redis::pipe().atomic().clone();
        transaction.incr(key, 1).incr(key, 1);
        let values: Vec<u64> = transaction
            .query_async(&mut connection)
            .await
            .expect("it is served");
        assert_eq!(values, expected, "{key}");
    }
    let raw = connection
        .req_packed_commands(redis::pipe().atomic().get("{way}gone"), 2, 1)
        .await;
    assert!(matches!(&raw.expect("it is served")[..], [Value::Array(values)] if values.len() == 1));

    // Keys that are apart are waited for (TRYAGAIN) until the slot has arrived.
    let both = tokio::spawn({
        let pool = pool.clone();
        async move {
            pool.query::<Vec<u64>>(&command("MGET {way}here {way}gone"))
                .await
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!both.is_finished());
    cluster.reshard(from, to, slot..=slot).await;
    assert_eq!(
        both.await
            .expect("no panic")
            .expect("the keys are on one node"),
        [5, 6]
    );
}
