//! The application's certificate, and assertions signed with its key.
//!
//! As in Entra ID, the certificate is only a container of a key: its issuer and names are not looked at.
//!
//! # Invariants
//!
//! - An assertion has one of the two forms that Microsoft documents (PS256 with the certificate's SHA-256, RS256 with its
//!   SHA-1), never a mixture.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use webpki::EndEntityCert;
use webpki::ring::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256_LEGACY_KEY};

use super::jwt::Jwt;
use crate::Error;

/// A reason for which an assertion is not signed by the application.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// The header names another certificate, or none in the form of its algorithm.
    KeyNotFound {
        /// The thumbprint in the header, in hexadecimal as portals show it.
        thumbprint: Option<String>,
    },
    /// The signature is not one of the certificate's key.
    Signature,
}

/// The certificate registered for the application.
pub(crate) struct ClientCertificate {
    certificate: CertificateDer<'static>,
}

impl ClientCertificate {
    /// Reads the first certificate of a PEM file and ignores a private key in it.
    pub(crate) fn read(path: PathBuf) -> Result<Self, Error> {
        let certificate = match CertificateDer::from_pem_file(&path) {
            Ok(certificate) => certificate,
            Err(error) => {
                let source = error.into();
                return Err(Error::ClientCertificate { path, source });
            }
        };
        // An empty signature is always refused; the error shows if the key is of the right kind.
        let refused = EndEntityCert::try_from(&certificate)
            .and_then(|parsed| parsed.verify_signature(RSA_PKCS1_2048_8192_SHA256, b"", b""));
        match refused {
            Err(webpki::Error::InvalidSignatureForPublicKey) => Ok(Self { certificate }),
            _ => Err(Error::ClientCertificateKey { path }),
        }
    }

    fn thumbprint(&self, hash: &'static Algorithm) -> Vec<u8> {
        digest(hash, &self.certificate).as_ref().to_vec()
    }
}

/// Checks that an assertion is signed with the registered certificate's key.
pub(crate) fn check_signature(
    registered: Option<&ClientCertificate>,
    jwt: &Jwt<'_>,
) -> Result<(), Unsigned> {
    let header = &jwt.header;
    let (algorithm, hash, named) = match (header.alg.as_str(), &header.x5t_s256, &header.x5t) {
        ("PS256", Some(named), None) => (RSA_PSS_2048_8192_SHA256_LEGACY_KEY, &SHA256, named),
        ("RS256", None, Some(named)) => {
            (RSA_PKCS1_2048_8192_SHA256, &SHA1_FOR_LEGACY_USE_ONLY, named)
        }
        _ => return Err(Unsigned::KeyNotFound { thumbprint: None }),
    };
    // Some SDKs send padding.
    let named = BASE64URL.decode(named.trim_end_matches('='));
    // A text of another length is not a thumbprint and must not be repeated.
    let named = named.ok().filter(|named| named.len() == hash.output_len());
    let registered = registered.filter(|it| named.as_ref() == Some(&it.thumbprint(hash)));
    let Some(registered) = registered else {
        let hexadecimal = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        return Err(Unsigned::KeyNotFound {
            thumbprint: named.map(hexadecimal),
        });
    };
    EndEntityCert::try_from(&registered.certificate)
        .and_then(|parsed| parsed.verify_signature(algorithm, jwt.signed, &jwt.signature))
        .map_err(|_| Unsigned::Signature)
}
