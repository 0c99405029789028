//! Requests right, wrong and cut, over HTTP/1.1 and HTTP/2, to both ports.
//!
//! Requests are random; one that fails is made as small as it can be and printed. `PROPTEST_CASES=5000` makes more of
//! them than the 256 of each test.
//!
//! # Invariants
//! - Each request gets a response with a status that the service documents, never a 500.
//! - On any other input the connection is closed.
//! - The service keeps running without an internal error.

use std::net::SocketAddr;

use axum::{
    body::Bytes,
    http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri},
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
    test_runner::{TestCaseError, TestRunner},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

use crate::support::{LIMIT, Service};

/// Every status of the service; 303 leads to Swagger.
const STATUSES: [u16; 11] = [200, 303, 400, 403, 404, 405, 413, 414, 431, 503, 504];

const PATHS: [&str; 19] = [
    "/",
    "/sample",
    "/SAMPLE/",
    "/status.json",
    "/status.css",
    "/status.js",
    "/healthz",
    "/readyz",
    "/metrics",
    "/log-level",
    "/swagger",
    "/swagger/",
    "/swagger/index.html",
    "/swagger/nothing",
    "/swagger/%ff/..%2f",
    "/openapi.json",
    "*",
    "http://elsewhere.example/sample",
    "//sample",
];

/// A service that one test sends requests to, on both ports.
struct Surface {
    runtime: Runtime,
    service: Service,
    ports: [SocketAddr; 2],
}

impl Surface {
    fn start() -> Self {
        let runtime = Runtime::new().expect("there are threads");
        let service = runtime.block_on(Service::start(&["dev"], [("ADMIN_PORT", "0")]));
        runtime.block_on(service.ready_at_admin());
        let address = |url: &str| {
            let address = url.trim_start_matches("http://");
            address.parse().expect("a valid address")
        };
        let admin = service.admin.as_deref().expect("it has one");
        let ports = [address(&service.public), address(admin)];
        Self {
            runtime,
            service,
            ports,
        }
    }

    /// Sends many of `inputs`, each to one of the ports, and looks at the service once more at the end.
    fn meets<I: Strategy>(
        self,
        inputs: I,
        meet: impl AsyncFn(SocketAddr, I::Value) -> Result<(), TestCaseError>,
    ) {
        let config = ProptestConfig {
            failure_persistence: None,
            max_shrink_time: 60_000,
            ..ProptestConfig::default()
        };
        let outcome =
            TestRunner::new(config).run(&(inputs, select(self.ports.to_vec())), |(input, port)| {
                self.runtime.block_on(async {
                    let outcome = timeout(LIMIT, meet(port, input)).await;
                    outcome.unwrap_or_else(|_| {
                        Err(TestCaseError::fail("the exchange does not finish"))
                    })
                })
            });
        let log = self.service.log();
        if let Err(error) = outcome {
            let end: Vec<_> = log.lines().rev().take(5).collect();
            panic!("{error}\nend of the log:\n{}", end.join("\n"));
        }
        let healthz = format!("http://{}/healthz", self.ports[1]);
        let (status, _) = self.runtime.block_on(self.service.at(&healthz));
        assert_eq!(status, 200);
        let is_fault =
            |line: &&str| line.contains("panicked") || line.contains(r#""level":"ERROR""#);
        assert_eq!(log.lines().find(is_fault), None);
    }
}

#[derive(Debug, Clone)]
struct Sent {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

impl Sent {
    fn any() -> BoxedStrategy<Self> {
        let method = prop_oneof![
            8 => select(&["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"][..])
                .prop_map(str::to_owned),
            1 => "[A-Za-z!#$%&'*+.^_`|~-]{1,20}".prop_filter("a tunnel is another thing", |method| method != "CONNECT"),
        ];
        let target = prop_oneof![
            8 => (select(&PATHS[..]), option::of("[?][a-z=&%/;]{0,20}"))
                .prop_map(|(path, query)| format!("{path}{}", query.unwrap_or_default())),
            4 => "/[a-zA-Z0-9._~%/!$&'()*+,;=:@?-]{0,60}",
            1 => (1000..70_000_usize).prop_map(|length| format!("/{}", "x".repeat(length))),
        ];
        let known = prop_oneof![
            (
                Just("accept"),
                "(application/json|text/plain|text/[*]|[*]/[*]|;q=[0-9.]{1,4}|, ?){0,6}"
            ),
            (Just("x-request-id"), "[ -~]{0,140}"),
            (
                Just("traceparent"),
                "(00|ff)-[0-9a-f]{31,33}-[0-9a-f]{16}-0[0-9]"
            ),
            (Just("tracestate"), "[a-z=,]{0,20}"),
            (Just("x-forwarded-for"), "[0-9.]{1,15}"),
            (Just("range"), "bytes=[0-9]{0,4}-[0-9]{0,22}"),
            (Just("if-none-match"), "[*]|\"[a-z]{0,9}\""),
            (Just("accept-encoding"), "gzip|br|identity;q=0|[*]"),
            (Just("upgrade"), "h2c|websocket"),
            (Just("content-type"), "[a-z/;=-]{0,30}"),
        ];
        let header = prop_oneof![
            6 => known.prop_map(|(name, value)| (name.to_owned(), value)),
            3 => ("x-[a-z0-9!#$%&'*+.^_`|~-]{1,20}", "[ -~\t\u{a0}-\u{ff}]{0,40}"),
            1 => ("x-[a-z]{1,9}", (1000..40_000_usize).prop_map(|length| "x".repeat(length))),
        ];
        let body = prop_oneof![
            4 => Just(Vec::new()),
            4 => vec(any::<u8>(), 0..100),
            2 => "(info|debug|error|entra_redis=trace|h2=off|,| |[a-z]{1,9}){0,6}".prop_map(String::into_bytes),
            1 => (1000..200_000_usize).prop_map(|length| vec![b'x'; length]),
        ];
        (method, target, vec(header, 0..8), body, any::<bool>())
            .prop_map(|(method, target, headers, body, chunked)| Self {
                method,
                target,
                // "off" would hide the faults that are looked for.
                body: if body.trim_ascii().eq_ignore_ascii_case(b"off") {
                    Vec::new()
                } else {
                    body
                },
                headers,
                chunked,
            })
            .boxed()
    }

    fn has_long_head(&self) -> bool {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.target.len() + headers.sum::<usize>() > 16 * 1024
    }

    /// As HTTP/1.1 has it.
    fn bytes(&self) -> Vec<u8> {
        let Self {
            method,
            target,
            headers,
            body,
            chunked,
        } = self;
        let mut bytes =
            format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: ").as_bytes());
            // Bytes above ASCII are allowed one by one, not as UTF-8.
            bytes.extend(value.chars().map(|c| c as u8));
            bytes.extend_from_slice(b"\r\n");
        }
        match chunked {
            true => {
                bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in body.chunks(1 << 14) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            false => {
                bytes.extend_from_slice(
                    format!("content-length: {}\r\n\r\n", body.len()).as_bytes(),
                );
                bytes.extend_from_slice(body);
            }
        }
        bytes
    }
}

/// Sends these bytes and returns everything received until the other side closed the connection.
async fn exchange(port: SocketAddr, bytes: &[u8], end: bool) -> Result<Vec<u8>, TestCaseError> {
    let stream = TcpStream::connect(port).await;
    let stream = stream.map_err(|error| TestCaseError::fail(format!("cannot connect: {error}")))?;
    let (mut read, mut write) = stream.into_split();
    let mut answer = Vec::new();
    // It may be closed before all is sent, and unread bytes then cause a reset.
    let send = async {
        let _ = write.write_all(bytes).await;
        if end {
            let _ = write.shutdown().await;
        }
    };
    tokio::join!(send, async { _ = read.read_to_end(&mut answer).await });
    Ok(answer)
}

/// The head of a response, the rest, and the status.
fn parts(answer: &[u8]) -> Option<(u16, String, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, head, &answer[end + 4..]))
}

/// An error that the router made is a problem document; those of HTTP itself have no body.
fn judge(
    status: u16,
    id: Option<&str>,
    kind: Option<&str>,
    body: Option<&[u8]>,
) -> Result<(), TestCaseError> {
    prop_assert!(STATUSES.contains(&status), "{}", status);
    let Some(id) = id else {
        prop_assert!(
            [400, 414, 431].contains(&status),
            "{} without an id",
            status
        );
        prop_assert!(body.is_none_or(<[u8]>::is_empty));
        return Ok(());
    };
    prop_assert!(
        !id.is_empty() && id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic())
    );
    // The body of `/readyz` has one form, whatever the status.
    if status >= 400 && kind != Some("application/json") {
        prop_assert_eq!(kind, Some("application/problem+json"), "{}", status);
        if let Some(body) = body {
            let problem: Value = serde_json::from_slice(body)
                .map_err(|error| TestCaseError::fail(format!("{error}: {body:?}")))?;
            prop_assert_eq!(&problem["status"], status);
            let kind = problem["type"].as_str().unwrap_or_default();
            prop_assert!(kind.starts_with("urn:entra-redis:problem:"), "{}", problem);
        }
    }
    Ok(())
}

#[test]
fn any_request_is_answered() {
    Surface::start().meets(Sent::any(), async |port, sent| {
        let answer = exchange(port, &sent.bytes(), false).await?;
        let parts = parts(&answer);
        let (status, head, body) = parts.ok_or_else(|| {
            TestCaseError::fail(format!("no answer: {}", String::from_utf8_lossy(&answer)))
        })?;
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find_map(|(key, value)| (key == name).then_some(value))
        };
        let body = (sent.method != "HEAD").then_some(body);
        if status == 405 {
            prop_assert!(header("allow").is_some_and(|allow| allow.contains("GET")));
        }
        judge(status, header("x-request-id"), header("content-type"), body)
    });
}

/// Almost a request: cut, with something put in, or several behind each other; or none at all.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame = (any::<u8>(), any::<u8>(), 0..5_u32, vec(any::<u8>(), 0..40)).prop_map(
        |(kind, flags, stream, payload)| {
            let length = (payload.len() as u32).to_be_bytes();
            [
                &length[1..],
                &[kind % 12, flags],
                &stream.to_be_bytes(),
                &payload,
            ]
            .concat()
        },
    );
    let start = prop_oneof![
        4 => Sent::any().prop_map(|sent| sent.bytes()),
        1 => vec(Sent::any().prop_map(|sent| sent.bytes()), 2..4).prop_map(|all| all.concat()),
        2 => vec(frame, 0..8).prop_map(move |frames| [preface.to_vec(), frames.concat()].concat()),
        1 => vec(any::<u8>(), 0..300),
    ];
    let change = (any::<Index>(), 0..3_usize, vec(any::<u8>(), 0..3));
    (start, vec(change, 0..4), option::of(any::<Index>())).prop_map(|(mut bytes, changes, cut)| {
        for (at, less, more) in changes {
            // In the first of it, where a body does not swallow the change.
            let at = at.index(bytes.len().min(300) + 1);
            let end = (at + less).min(bytes.len());
            bytes.splice(at..end, more);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes
    })
}

#[test]
fn any_bytes_are_disconnected() {
    Surface::start().meets(bytes(), async |port, bytes| {
        let answer = exchange(port, &bytes, true).await?;
        if answer.starts_with(b"HTTP/1.1 ") {
            let status = parts(&answer).map(|(status, ..)| status);
            let known = status.is_some_and(|status| status == 100 || STATUSES.contains(&status));
            prop_assert!(known, "{}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    });
}

#[test]
fn any_request_over_http_2_is_answered() {
    Surface::start().meets(vec(Sent::any(), 1..6), async |port, all| {
        let stream = TcpStream::connect(port).await.expect("it listens");
        stream.set_nodelay(true).expect("it is open");
        let handshake = h2::client::handshake(stream).await;
        let (mut requests, connection) = handshake.expect("it speaks HTTP/2");
        let connection = tokio::spawn(connection);
        for sent in &all {
            let Some(request) = over_http_2(sent, port) else {
                continue;
            };
            match answer_over_http_2(&mut requests, request, sent).await {
                Ok(judged) => judged?,
                // Header lists that are far too long end the connection, as h2 protects itself from floods.
                Err(error) if error.is_go_away() && sent.has_long_head() => return Ok(()),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        drop(requests);
        let ended = connection.await.expect("no panic");
        ended.map_err(|error| TestCaseError::fail(error.to_string()))
    });
}

/// Sends one request and checks its response; an error is HTTP/2's own.
async fn answer_over_http_2(
    requests: &mut h2::client::SendRequest<Bytes>,
    request: Request<()>,
    sent: &Sent,
) -> Result<Result<(), TestCaseError>, h2::Error> {
    std::future::poll_fn(|context| requests.poll_ready(context)).await?;
    let (answer, mut body) = requests.send_request(request, sent.body.is_empty())?;
    if !sent.body.is_empty() {
        // Where it is not accepted, the response shows it.
        let _ = body.send_data(sent.body.clone().into(), true);
    }
    let (head, mut answered) = answer.await?.into_parts();
    let mut whole = Vec::new();
    while let Some(part) = answered.data().await {
        let part = part?;
        let _ = answered.flow_control().release_capacity(part.len());
        whole.extend_from_slice(&part);
    }
    let header = |name: &str| head.headers.get(name)?.to_str().ok();
    if head.status == StatusCode::METHOD_NOT_ALLOWED && header("allow").is_none() {
        return Ok(Err(TestCaseError::fail("405 without what is allowed")));
    }
    let body = (sent.method != "HEAD").then_some(whole.as_slice());
    let (id, kind) = (header("x-request-id"), header("content-type"));
    Ok(judge(head.status.as_u16(), id, kind, body))
}

/// The same, as far as HTTP/2 can express it.
fn over_http_2(sent: &Sent, port: SocketAddr) -> Option<Request<()>> {
    let uri: Uri = if sent.target.starts_with('/') {
        format!("http://{port}{}", sent.target).parse().ok()?
    } else {
        sent.target.parse().ok()?
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(sent.method.as_bytes()).ok()?;
    *request.uri_mut() = uri;
    for (name, value) in &sent.headers {
        let value: Vec<u8> = value.chars().map(|c| c as u8).collect();
        let (name, value) = (HeaderName::try_from(name), HeaderValue::try_from(value));
        // HTTP/2 has none of a connection.
        if name.as_ref().is_ok_and(|name| name != "upgrade") {
            request.headers_mut().append(name.ok()?, value.ok()?);
        }
    }
    Some(request)
}
