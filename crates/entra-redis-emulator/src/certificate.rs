//! The certificates of the emulator's listeners.
//!
//! Each start makes a certificate authority, a leaf for the token endpoint, valid for this machine's loopback names and the
//! chosen host, and one for the proxy before Redis, valid for the endpoint's name alone: Azure's has no address in it
//! either, though the nodes of a cluster are announced by theirs.
//!
//! # Invariants
//!
//! - The authority's key is dropped as soon as the leaves are signed, and no key is written to disk.
//! - The process-wide crypto provider is neither read nor installed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion};

use crate::Error;

/// An emulator runs for days at most; Apple's platforms refuse a leaf that is valid for more than 825.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Start of the validity before now, for a container whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// The authority's certificate, and the TLS configurations with the two leaves.
pub(crate) struct Certificates {
    /// The authority's certificate, PEM.
    pub(crate) authority_pem: String,
    /// For the token endpoint: HTTP/1.1.
    pub(crate) https: Arc<ServerConfig>,
    /// For the proxy before Redis, with the protocol and cipher suites that a rustls client has in common with Azure.
    pub(crate) redis: Arc<ServerConfig>,
}

impl Certificates {
    /// Makes a new authority, a leaf for `localhost`, both loopback addresses, `host` and `name`, and one for Redis, for
    /// `localhost` and `name`, which is an address if the endpoint is one.
    pub(crate) fn make(host: IpAddr, name: &str) -> Result<Self, Error> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(Into::into).to_vec();
        for name in [&host.to_string(), name] {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let mut redis_names = vec!["localhost".to_owned()];
        if name != "localhost" {
            redis_names.push(name.to_owned());
        }
        Self::for_names(names, redis_names).map_err(Error::Certificate)
    }

    fn for_names(
        names: Vec<String>,
        redis_names: Vec<String>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let now = date_time_ymd(1970, 1, 1) + since_epoch();
        let validity = (now - BACKDATE, now + LIFETIME);

        let mut params = CertificateParams::default();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::CommonName, "entra-redis emulator");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity;
        let issuer_key = KeyPair::generate()?;
        let authority = params.self_signed(&issuer_key)?;
        let issuer = Issuer::new(params, issuer_key);

        let leaf = |names| -> Result<_, rcgen::Error> {
            let mut params = CertificateParams::new(names)?;
            let subject = &mut params.distinguished_name;
            subject.push(DnType::CommonName, "localhost");
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            // Python verifies strictly (VERIFY_X509_STRICT) and finds the authority by its key.
            params.use_authority_key_identifier_extension = true;
            (params.not_before, params.not_after) = validity;
            let key = KeyPair::generate()?;
            let leaf = params.signed_by(&key, &issuer)?;
            Ok((leaf.der().clone(), key.serialize_der()))
        };
        let mut https = server(leaf(names)?, ring::default_provider(), rustls::ALL_VERSIONS)?;
        https.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Azure Managed Redis has TLS 1.3 with AES-GCM, and TLS 1.2 with CBC suites only, which rustls lacks.
        let mut provider = ring::default_provider();
        provider.cipher_suites.retain(|suite| {
            matches!(
                suite.suite(),
                CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS13_AES_256_GCM_SHA384
            )
        });
        let redis = server(leaf(redis_names)?, provider, &[&rustls::version::TLS13])?;
        Ok(Self {
            authority_pem: authority.pem(),
            https: Arc::new(https),
            redis: Arc::new(redis),
        })
    }

    /// Returns the system's roots and this authority in one PEM text, for variables that *replace* a client's roots.
    pub(crate) fn bundle(&self) -> String {
        // The client could not have read a root either that cannot be read here.
        let mut bundle: String = rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(to_pem)
            .collect();
        bundle.push_str(&self.authority_pem);
        bundle
    }
}

fn server(
    (certificate, key): (CertificateDer<'static>, Vec<u8>),
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.into()))
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
