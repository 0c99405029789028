//! The store, compared with a real `redis-server`.

use tokio::net::TcpStream;

use crate::support::{Azure, Client, RedisServer, command};

#[tokio::test]
async fn the_store_replies_like_redis_server_byte_for_byte() {
    let long = "l".repeat(200);
    let commands = "\
        PING; PING hi; PING a b; ECHO x; ECHO; GET; get nokey; SET k; SET k 1; GET k; SET k 2 NX; \
        SET k 2 NX GET; SET new 1 XX; SET k 2 XX GET; SET new 1 NX GET; SET k v EX; SET k v EX 0; SET k v EX x; \
        SET k v EX 10 PX 10; SET k v NX XX; SET k v KEEPTTL EX 1; SET k v PX -5; \
        SET k v EX 9223372036854775807; SET k v bad; SET k v EX 100; TTL k; SET k w KEEPTTL; TTL k; SET k w; \
        TTL k; PTTL nokey; TTL nokey; EXPIRE k 50; TTL k; PERSIST k; PERSIST k; PERSIST nokey; PEXPIRE k 50000; \
        TTL k; EXPIRE nokey 1; EXPIRE k x; EXPIRE k 9223372036854775807; EXPIRE k 10 bad; EXPIRE k -1; \
        EXISTS k; SET p 1 EXAT 1; GET p; SET p 1 PXAT 32503680000000; GET p; INCR n; INCRBY n 41; DECR n; \
        DECRBY n 1; INCRBY n x; SET n 9223372036854775807; INCR n; DECRBY n -9223372036854775808; SET n abc; \
        INCR n; SET n 01; INCR n; APPEND a x; APPEND a yz; GET a; STRLEN a; STRLEN nokey; MSET a 1 b 2; MSET a; \
        MSET a 1 b; MGET a b nokey; EXISTS a b a nokey; TYPE a; TYPE nokey; GETDEL a; GETDEL a; DEL a b nokey; \
        UNLINK k p; SELECT 0; SELECT 99; SELECT x; CLIENT SETNAME me; CLIENT GETNAME; CLIENT SETNAME; \
        CLIENT NONSENSE; CLIENT; COMMAND NONSENSE; CLUSTER SLOTS; CLUSTER; UNWATCH; UNWATCH x; FLUSHDB bad; \
        FLUSHALL SYNC; FLUSHALL a b; DBSIZE; SET z 1; DBSIZE; FLUSHDB; DBSIZE; foo; foo bar baz; foo LONG b; \
        LONG; HELLO 4; HELLO x; HELLO 3 SETNAME; HELLO 3 nonsense";
    let server = RedisServer::start().await;
    let real = async || Client {
        stream: TcpStream::connect(server.address()).await.expect("it runs"),
    };
    let azure = Azure::with_lifetime(60).await;
    let (mut expected, mut store) = (real().await, azure.authenticated().await);
    for line in commands.split("; ") {
        let line = line.replace("LONG", &long);
        let ask = command(&line.split(' ').collect::<Vec<_>>());
        let replies = [
            store.up_to_mark(&ask).await,
            expected.up_to_mark(&ask).await,
        ];
        assert_eq!(replies[0], replies[1], "{line}");
    }
    for malformed in ["*x\r\n", "*1\r\n:1\r\n", "*1\r\n$-1\r\n"] {
        let (mut expected, mut store) = (real().await, azure.client().await);
        expected.send(malformed).await;
        store.send(malformed).await;
        assert_eq!(store.rest().await, expected.rest().await, "{malformed:?}");
    }
}
