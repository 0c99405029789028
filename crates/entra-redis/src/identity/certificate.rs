//! A client certificate as a credential: its file, and the assertion that it signs.
//!
//! The form is from Microsoft's page "Microsoft identity platform application authentication certificate credentials":
//! signed with PS256, the certificate identified by `x5t#S256`. azure_identity has a credential of this kind only over
//! OpenSSL; here ring signs the assertion for azure_identity's `ClientAssertionCredential`.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{RSA_PSS_SHA256, RsaKeyPair},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{file, secret::Secret};

/// The longest life that Entra ID accepts; each assertion is used once, immediately.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// A client certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read the file")]
    Unreadable(#[source] std::io::Error),
    /// Neither PEM nor PFX.
    #[error(
        "the file is neither PEM nor PFX, or AZURE_CLIENT_CERTIFICATE_PASSWORD is not its password"
    )]
    Unknown,
    /// The certificate is missing.
    #[error("the file has no certificate")]
    NoCertificate,
    /// The private key is missing.
    #[error("the file has no private key")]
    NoKey,
    /// The private key is encrypted, and the password is missing or wrong.
    #[error("the private key is encrypted: set AZURE_CLIENT_CERTIFICATE_PASSWORD to its password")]
    Locked,
    /// The private key is encrypted with an unsupported cipher.
    #[error(
        "the private key is encrypted with an unsupported cipher: encrypt it with `openssl pkcs8 -topk8 -v2 aes-256-cbc`"
    )]
    UnknownCipher,
    /// Entra ID accepts RSA keys only.
    #[error("the private key is not an RSA key of 2048 bits or more")]
    NotRsa,
}

/// A certificate with its private key.
pub(super) struct ClientCertificate {
    key: RsaKeyPair,
    /// `x5t#S256`: base64url of the SHA-256 of the certificate's DER.
    thumbprint: String,
}

impl ClientCertificate {
    /// Reads PEM (certificate and key in any order; the key plain or encrypted) or PFX.
    pub(super) fn read(path: &Path, password: Option<&Secret>) -> Result<Self, CertificateError> {
        let bytes = Zeroizing::new(file::read(path).map_err(CertificateError::Unreadable)?);
        let password = password.map_or("", Secret::expose);
        match std::str::from_utf8(&bytes) {
            Ok(text) if text.contains("-----BEGIN") => Self::from_pem(text, password),
            _ => Self::from_pfx(&bytes, password),
        }
    }

    fn from_pem(text: &str, password: &str) -> Result<Self, CertificateError> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|_| CertificateError::NoCertificate)?;
        if let Some(encrypted) = pem_section(text, "ENCRYPTED PRIVATE KEY") {
            let (_, document) =
                pkcs8::SecretDocument::from_pem(encrypted).map_err(|_| CertificateError::NoKey)?;
            let key = pkcs8::EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
                .map_err(|_| CertificateError::UnknownCipher)?
                .decrypt(password)
                .map_err(|_| CertificateError::Locked)?;
            return Self::new(certificate.as_ref(), RsaKeyPair::from_pkcs8(key.as_bytes()));
        }
        let key =
            PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| CertificateError::NoKey)?;
        let key = match &key {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(CertificateError::NotRsa),
        };
        Self::new(certificate.as_ref(), key)
    }

    fn from_pfx(bytes: &[u8], password: &str) -> Result<Self, CertificateError> {
        let policy = p12_keystore::Pkcs12ImportPolicy::Relaxed;
        let store = p12_keystore::KeyStore::from_pkcs12(bytes, password, policy)
            .map_err(|_| CertificateError::Unknown)?;
        let (_, chain) = store.private_key_chain().ok_or(CertificateError::NoKey)?;
        let certificate = chain
            .certs()
            .first()
            .ok_or(CertificateError::NoCertificate)?;
        Self::new(
            certificate.as_der(),
            RsaKeyPair::from_pkcs8(chain.key().as_der()),
        )
    }

    fn new(
        certificate: &[u8],
        key: Result<RsaKeyPair, ring::error::KeyRejected>,
    ) -> Result<Self, CertificateError> {
        let thumbprint = digest::digest(&digest::SHA256, certificate);
        Ok(Self {
            key: key.map_err(|_| CertificateError::NotRsa)?,
            thumbprint: URL_SAFE_NO_PAD.encode(thumbprint),
        })
    }

    /// Returns a signed assertion that the sender is the application.
    fn assertion(&self, client_id: &str, audience: &str, now: SystemTime) -> Secret {
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs()
        };
        let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint });
        let claims = json!({
            "aud": audience,
            "iss": client_id,
            "sub": client_id,
            "jti": format!("{:032x}", fastrand::u128(..)),
            "nbf": seconds(now),
            "iat": seconds(now),
            "exp": seconds(now + ASSERTION_LIFETIME),
        });
        let mut text = URL_SAFE_NO_PAD.encode(header.to_string());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut text);
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &RSA_PSS_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .expect("the buffer has the modulus' length and the system has random numbers");
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Secret::new(text)
    }
}

/// Returns one PEM section, including its BEGIN and END lines.
fn pem_section<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let start = text.find(&begin)?;
    let length = text[start..].find(&end)? + end.len();
    Some(&text[start..start + length])
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

/// The source of assertions for azure_identity.
#[derive(Debug)]
pub(super) struct CertificateAssertion {
    pub(super) certificate: Arc<ClientCertificate>,
    pub(super) client_id: String,
    /// The token endpoint's URL.
    pub(super) audience: String,
}

#[async_trait]
impl ClientAssertion for CertificateAssertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let assertion =
            self.certificate
                .assertion(&self.client_id, &self.audience, SystemTime::now());
        Ok(assertion.expose().to_owned())
    }
}
