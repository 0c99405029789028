//! Faults on the way to the cache: DNS, TCP, TLS.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Variables, before, contains_all, plain, report, the_fault, with};
use crate::support::{Certificates, RedisServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_network_fault_is_reported_by_its_step() {
    let unknown = the_fault(&plain("nowhere.invalid:10000"), "dns", "failed").await;
    contains_all(
        &unknown,
        &["nowhere.invalid", "privatelink.redis.azure.net"],
    );

    // A full queue takes no further connection, as a firewall lets none through.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let full = full.expect("sockets are to be had");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    full.bind(&any.into())
        .and_then(|()| full.listen(0))
        .expect("loopback has free ports");
    let address = full
        .local_addr()
        .expect("it is bound")
        .as_socket()
        .expect("it is IPv4");
    let _first = std::net::TcpStream::connect(address).expect("the queue has one place");
    let unreachable = with(
        plain(&address.to_string()),
        &[("REDIS_CONNECT_TIMEOUT", "500ms")],
    );
    let unreachable = the_fault(&unreachable, "tcp", "failed").await;
    contains_all(
        &unreachable,
        &[&address.to_string(), "0.5s", "firewall", "private endpoint"],
    );

    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    let no_tls = with(
        azure.environment("EnvironmentCredential"),
        &[("REDIS_ENDPOINT", &format!("localhost:{}", redis.port))],
    );
    let no_tls = the_fault(&no_tls, "tls", "failed").await;
    contains_all(&no_tls, &["check the port in REDIS_ENDPOINT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_refused_with_its_fault() {
    let good = Certificates::for_name("localhost");
    for (certificates, parts) in [
        (
            good.another("elsewhere.example"),
            [
                "elsewhere.example",
                "the certificate is for another name",
                "REDIS_ENDPOINT",
            ],
        ),
        (
            Certificates::for_name("elsewhere.example").another("localhost"),
            ["UnknownIssuer", "does not trust", "REDIS_CA_FILE"],
        ),
        (
            good.expired("localhost"),
            ["expired", "has expired", "clock"],
        ),
        (
            good.but("localhost", |it| {
                it.not_before = rcgen::date_time_ymd(2090, 1, 1)
            }),
            [
                "not valid yet",
                "or this machine's clock",
                "clock is behind",
            ],
        ),
    ] {
        let redis = RedisServer::with_tls(&certificates).await;
        let variables = trusting(&redis, &good);
        contains_all(&the_fault(&variables, "tls", "failed").await, &parts);
    }

    // One that expires soon is valid, with a warning.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later than 1970");
    let soon = good.but("localhost", |it| {
        it.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(3 * 24 * 3600);
    });
    let redis = RedisServer::with_tls(&soon).await;
    let soon = trusting(&redis, &good);
    let (findings, _) = report(&soon).await;
    let tls = findings.iter().find(|finding| finding["step"] == "tls");
    let tls = tls.expect("the step was run");
    assert_eq!(tls["outcome"], "warned", "{tls:#}");
    contains_all(
        &tls.to_string(),
        &[
            "certificate for localhost, issued by CN=authority for localhost",
            "to 20",
            "in 2 days",
            "is renewed",
        ],
    );

    // Azure's cipher suites of TLS 1.2 are not supported here.
    let only_old = [
        "--tls-protocols",
        "TLSv1.2",
        "--tls-ciphers",
        "ECDHE-ECDSA-AES128-SHA",
    ];
    let redis = RedisServer::start_with(Some(&good), &only_old).await;
    let old = the_fault(&trusting(&redis, &good), "tls", "failed").await;
    contains_all(&old, &["TLS 1.3", "middlebox"]);
}

/// Returns the variables of a service that trusts the authority of this server's certificate.
fn trusting(redis: &RedisServer, authority: &Certificates) -> Variables {
    let endpoint = format!("localhost:{}", redis.tls_port);
    let authority = authority.path("ca.pem").display().to_string();
    let pairs = [
        ("REDIS_ENDPOINT", endpoint.as_str()),
        ("REDIS_AUTH", "none"),
        ("REDIS_CA_FILE", &authority),
    ];
    with(Vec::new(), &pairs)
}
