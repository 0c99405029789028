//! TLS: the handshake and the certificate.

use std::time::Duration;

use super::{
    certificate::Certificates,
    examination::{Checked, Failed, Passed},
};
use crate::config::Config;
use entra_redis::{
    diagnostics::{self, Connected, Error, Fault},
    error_chain::ErrorChain,
};

/// A certificate that expires within this time is worth a warning: Azure renews its own long before.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// Performs the handshake and reads the certificate.
pub(super) async fn check(config: &Config, connected: Connected) -> Checked<()> {
    let session = diagnostics::tls_handshake(&config.redis, connected).await;
    let session = session.map_err(|error| explain(&error))?;
    let suite = session.cipher_suite.unwrap_or("unknown cipher suite");
    let observed = format!("{}, {suite}", session.version);
    let Some(certificates) = Certificates::read(&session.certificates) else {
        return Ok(Passed::new(observed, ()));
    };
    let observed = format!("{observed}; {certificates}");
    if certificates.expires_in() < EXPIRES_SOON {
        return Ok(Passed::warned(
            observed,
            "new connections fail once the certificate has expired",
            "check that the certificate is renewed, and check this machine's clock",
            (),
        ));
    }
    Ok(Passed::new(observed, ()))
}

fn explain(error: &Error) -> Failed {
    const CHECK_PORT: &str = "check the port in REDIS_ENDPOINT, and any proxy or firewall between this machine and the cache";
    let (cause, fix) = match error.fault() {
        Fault::NoTrustedRoots => (
            "no trusted CA certificates found, so no certificate can be verified",
            "install the ca-certificates package, or correct SSL_CERT_FILE, SSL_CERT_DIR or REDIS_CA_FILE",
        ),
        Fault::TimedOut(_) => (
            "the peer does not speak TLS, or has stopped responding",
            CHECK_PORT,
        ),
        Fault::CertificateName => (
            "the certificate is for another name",
            "set REDIS_ENDPOINT to the name that the certificate is for: the cache's own host name, not an address or an alias",
        ),
        Fault::CertificateExpired => (
            "the certificate has expired, or this machine's clock is ahead",
            "check this machine's clock (`date -u`); if it is right, have the certificate renewed",
        ),
        Fault::CertificateNotYetValid => (
            "the certificate is not valid yet, or this machine's clock is behind",
            "check this machine's clock (`date -u`)",
        ),
        Fault::CertificateUntrusted => (
            "the certificate was issued by an authority that this machine does not trust",
            "set REDIS_CA_FILE to the authority's certificate; if the cache is in Azure, look for a proxy that intercepts TLS",
        ),
        Fault::NoCommonTls => (
            "client and server have no TLS version or cipher suite in common",
            "allow TLS 1.3: look for a middlebox that allows only TLS 1.2",
        ),
        Fault::NotTls => (
            "the server does not speak TLS",
            "check the port in REDIS_ENDPOINT; REDIS_TLS=false is for caches without TLS, and not possible with Entra ID",
        ),
        _ => (
            "the connection closed during the TLS handshake",
            "check the port in REDIS_ENDPOINT, and any proxy or firewall in between; a cache at its connection limit also does this (metric Connected Clients)",
        ),
    };
    Failed::new(ErrorChain(error), cause, fix)
}
