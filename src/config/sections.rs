//! The sections of the service: the variables that envy reads for each, and their typed values.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::{Http, Parser, parse};

// For envy every field is optional text, so that reading a section cannot fail and our own parser can report every fault
// instead of the first. The field names are the variables' names.

#[derive(Deserialize)]
pub(super) struct HttpVariables {
    host: Option<String>,
    port: Option<String>,
    admin_port: Option<String>,
    request_timeout: Option<String>,
    max_concurrent_requests: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ServiceVariables {
    pub(super) sample_key: Option<String>,
    pub(super) drain_delay: Option<String>,
    pub(super) drain_timeout: Option<String>,
}

pub(super) fn http(parser: &mut Parser<'_>, raw: HttpVariables) -> Http {
    let host: IpAddr = parser.defaulted("HOST", raw.host, parse::ip_address);
    let port = parser.defaulted("PORT", raw.port, parse::port);
    let admin_port = parser.optional("ADMIN_PORT", raw.admin_port, |text| {
        match parse::port(text)? {
            same if same == port && same != 0 => Err("a port other than PORT"),
            other => Ok(other),
        }
    });
    Http {
        public: SocketAddr::new(host, port),
        admin: admin_port.map(|port| SocketAddr::new(host, port)),
        request_timeout: parser.defaulted("REQUEST_TIMEOUT", raw.request_timeout, parse::duration),
        max_concurrent_requests: parser.defaulted(
            "MAX_CONCURRENT_REQUESTS",
            raw.max_concurrent_requests,
            parse::count,
        ),
    }
}
