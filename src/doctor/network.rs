//! From the name to a trusted connection: DNS, TCP, TLS.

use std::{io, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{CertificateError, ProtocolVersion, pki_types::CertificateDer};
use tokio::{net::TcpStream, time::timeout};
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::report::Verdict;
use crate::{
    config::Config,
    redis::{self, ConnectError},
    report::ErrorChain as Chain,
    tls,
};

/// A certificate that ends within this is worth a warning: Azure renews its own long before.
const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

const CHECK_NAME: &str = "check REDIS_ENDPOINT: `az redisenterprise show --cluster-name NAME --resource-group RESOURCE_GROUP --query hostName` prints the name; with a private endpoint, link the zone privatelink.redis.azure.net to this network";
const CHECK_WAY: &str = "allow this way out (network policy, firewall, network security group), and see that the cache has a private endpoint here or public network access";

/// The endpoint's addresses.
pub(super) async fn dns(config: &Config) -> (Verdict, Option<Vec<SocketAddr>>) {
    let endpoint = &config.redis.endpoint;
    let host = endpoint.host();
    let limit = config.redis.connect_timeout;
    let addresses = match timeout(limit, redis::resolve(endpoint)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            let meaning = "this machine's DNS knows no address of that name";
            return (Verdict::failed(Chain(&error), meaning, CHECK_NAME), None);
        }
        Err(_) => {
            let found = format!("no answer about {host} within {}", seconds(limit));
            let meaning = "this machine's DNS server cannot be reached";
            let mend =
                "allow UDP and TCP port 53 out of this network, and look at /etc/resolv.conf";
            return (Verdict::failed(found, meaning, mend), None);
        }
    };
    let shown: Vec<_> = addresses
        .iter()
        .map(|address| format!("{} ({})", address.ip(), kind(address.ip())))
        .collect();
    let found = format!("{host} is {}", shown.join(", "));
    let verdict = match host.contains(".privatelink.") {
        true => Verdict::warned(
            found,
            "this is the name by which DNS finds the private endpoint; the certificate does not carry it",
            format!(
                "set REDIS_ENDPOINT to {}",
                host.replace(".privatelink.", ".")
            ),
        ),
        false => Verdict::passed(found),
    };
    (verdict, Some(addresses))
}

/// Where an address leads.
fn kind(address: IpAddr) -> &'static str {
    match address {
        address if address.is_loopback() => "this machine",
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => "private",
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => "private",
        _ => "public",
    }
}

/// A connection to the first address that accepts.
pub(super) async fn tcp(config: &Config, addresses: &[SocketAddr]) -> (Verdict, Option<TcpStream>) {
    let endpoint = &config.redis.endpoint;
    let limit = config.redis.connect_timeout;
    let error = match timeout(limit, redis::dial(endpoint, addresses)).await {
        Ok(Ok(stream)) => {
            let peer = stream.peer_addr();
            let found = peer.map_or("connected".to_owned(), |peer| {
                format!("connected to {peer}")
            });
            return (Verdict::passed(found), Some(stream));
        }
        Ok(Err(error)) => error,
        Err(_) => {
            let found = format!("no answer from {endpoint} within {}", seconds(limit));
            let meaning = "packets do not reach the cache, or its answers do not come back";
            return (Verdict::failed(found, meaning, CHECK_WAY), None);
        }
    };
    let is_refused = matches!(&error, ConnectError::Dial { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused);
    let verdict = match is_refused {
        true => Verdict::failed(
            Chain(&error),
            "the machine is there and nobody listens on that port",
            "check the port in REDIS_ENDPOINT: Azure Managed Redis has 10000, Azure Cache for Redis 6380",
        ),
        false => Verdict::failed(Chain(&error), "there is no way to that address", CHECK_WAY),
    };
    (verdict, None)
}

/// The handshake, and what the certificate says.
pub(super) async fn tls(config: &Config, stream: TcpStream) -> (Verdict, Option<()>) {
    let redis = &config.redis;
    let trust = match tls::client_config(&redis.roots, redis.ca_file.as_ref()) {
        Ok(trust) => Arc::new(trust),
        Err(error) => {
            let meaning = "there is nobody to trust, so no certificate can be checked";
            let mend = "install the ca-certificates package, or correct SSL_CERT_FILE, SSL_CERT_DIR or REDIS_CA_FILE";
            return (Verdict::failed(Chain(&error), meaning, mend), None);
        }
    };
    let limit = redis.connect_timeout;
    let shaken = redis::handshake(&redis.endpoint, &redis.endpoint, &trust, stream);
    let stream = match timeout(limit, shaken).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let (meaning, mend) = explain(&error);
            return (Verdict::failed(Chain(&error), meaning, mend), None);
        }
        Err(_) => {
            let found = format!("no answer to the handshake within {}", seconds(limit));
            let meaning =
                "whoever accepted the connection does not speak TLS, or is no longer there";
            let mend = "check the port in REDIS_ENDPOINT, and whether something stands between: a proxy, a firewall";
            return (Verdict::failed(found, meaning, mend), None);
        }
    };
    let (_, session) = stream.get_ref();
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    let suite = session.negotiated_cipher_suite();
    let suite = suite
        .and_then(|suite| suite.suite().as_str())
        .unwrap_or("?");
    let chain = session.peer_certificates().unwrap_or_default();
    let read = chain
        .first()
        .and_then(|one| Certificate::from_der(one).ok());
    let Some(certificate) = read else {
        return (Verdict::passed(format!("{version}, {suite}")), Some(()));
    };
    let body = certificate.tbs_certificate();
    let ends = body.validity().not_after.to_unix_duration();
    let now = Timestamp::now();
    let left = ends.saturating_sub(now.as_duration().unsigned_abs());
    let found = format!(
        "{version}, {suite}; certificate for {}, from {}, valid from {} to {}, ends in {} days by this machine's clock, {now:.0}",
        names(&certificate),
        issuers(chain),
        body.validity().not_before,
        body.validity().not_after,
        left.as_secs() / (24 * 3600)
    );
    let verdict = match left < CERTIFICATE_ENDS_SOON {
        true => Verdict::warned(
            found,
            "no connection can be opened once it has ended",
            "see that the certificate is renewed; compare this machine's clock",
        ),
        false => Verdict::passed(found),
    };
    (verdict, Some(()))
}

/// The names and addresses that a certificate is for.
fn names(certificate: &Certificate) -> String {
    let alternative = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = alternative else {
        return "no name".to_owned();
    };
    let names: Vec<_> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            GeneralName::IpAddress(bytes) => {
                let bytes = bytes.as_bytes();
                let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
                address.ok().map(|address| address.to_string())
            }
            _ => None,
        })
        .collect();
    match names.is_empty() {
        true => "no name".to_owned(),
        false => names.join(", "),
    }
}

/// Who vouches for the certificate, and for him, as far as certificates were sent.
fn issuers(chain: &[CertificateDer<'_>]) -> String {
    let issuers = chain.iter().map(|one| {
        let read = Certificate::from_der(one);
        read.map_or("?".to_owned(), |one| {
            one.tbs_certificate().issuer().to_string()
        })
    });
    issuers.collect::<Vec<_>>().join(", by ")
}

/// What a handshake that failed means and what to do.
fn explain(error: &ConnectError) -> (&'static str, &'static str) {
    let ConnectError::Tls { source, .. } = error else {
        return ("the handshake failed", CHECK_WAY);
    };
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(fault)) => match fault {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (
                    "the certificate is for another name",
                    "set REDIS_ENDPOINT to the name that the certificate is for: that of the cache, not an address, not an alias",
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                "the certificate has ended, or this machine's clock is ahead",
                "compare this machine's clock (`date -u`); else have the certificate renewed",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                "the certificate begins later, or this machine's clock is behind",
                "compare this machine's clock (`date -u`)",
            ),
            _ => (
                "the certificate is from an authority that this machine does not trust",
                "name the authority's file in REDIS_CA_FILE; in front of Azure itself: is there a proxy that opens TLS?",
            ),
        },
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::AlertReceived(_)) => (
            "both sides have no version or cipher suite in common",
            "let TLS 1.3 through: is there a middlebox that allows only 1.2?",
        ),
        Some(rustls::Error::InvalidMessage(_)) => (
            "whoever answers there does not speak TLS",
            "check the port in REDIS_ENDPOINT; REDIS_TLS=false is for caches without TLS, and never with Entra ID",
        ),
        _ => (
            "the connection ended during the handshake",
            "check the port in REDIS_ENDPOINT, and whether something stands between: a proxy, a firewall; a cache that has as many connections as it takes does so too (the metric Connected Clients)",
        ),
    }
}

pub(super) fn seconds(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_this_machines_private_or_public() {
        for (address, where_to) in [
            ("127.0.0.9", "this machine"),
            ("::1", "this machine"),
            ("10.1.2.3", "private"),
            ("172.16.0.1", "private"),
            ("192.168.0.1", "private"),
            ("169.254.1.1", "private"),
            ("fd00::1", "private"),
            ("fe80::1", "private"),
            ("20.1.2.3", "public"),
            ("172.32.0.1", "public"),
            ("2603:1030::1", "public"),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(kind(parsed), where_to, "{address}");
        }
    }
}
