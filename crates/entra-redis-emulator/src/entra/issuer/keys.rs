//! Public keys of an issuer, and signatures verified with them.
//!
//! # Invariants
//!
//! - The kind of a key and the algorithm that a text names must match, so that no text chooses how it is verified.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

use super::super::jwt::Jwt;

/// The keys of an issuer, by their ids.
#[derive(Default)]
pub(crate) struct KeySet(HashMap<String, PublicKey>);

/// A key of a kind that Kubernetes signs with.
pub(crate) enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256 { point: Vec<u8> },
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Parses a JSON Web Key Set (RFC 7517). Keys of other kinds and keys without an id are skipped: they verify nothing.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(document)?;
        let keys = document.keys.into_iter().filter_map(|mut jwk| {
            let id = jwk.kid.take()?;
            Some((id, PublicKey::from_jwk(jwk)?))
        });
        Ok(Self(keys.collect()))
    }

    /// Returns the key that a text names.
    pub(crate) fn of(&self, jwt: &Jwt<'_>) -> Option<&PublicKey> {
        self.0.get(jwt.header.kid.as_ref()?)
    }
}

impl PublicKey {
    fn from_jwk(jwk: Jwk) -> Option<Self> {
        let bytes = |text: Option<String>| BASE64URL.decode(text?).ok();
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Some(Self::Rsa {
                n: bytes(jwk.n)?,
                e: bytes(jwk.e)?,
            }),
            // An uncompressed point: one byte 4, then the two coordinates.
            ("EC", Some("P-256")) => Some(Self::P256 {
                point: [vec![4], bytes(jwk.x)?, bytes(jwk.y)?].concat(),
            }),
            _ => None,
        }
    }

    /// Returns true if this key signed the text, with the algorithm that the text names.
    pub(crate) fn signed(&self, jwt: &Jwt<'_>) -> bool {
        match (self, jwt.header.alg.as_str()) {
            (Self::Rsa { n, e }, "RS256") => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, jwt.signed, &jwt.signature)
                .is_ok(),
            (Self::P256 { point }, "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(jwt.signed, &jwt.signature)
                    .is_ok()
            }
            _ => false,
        }
    }
}
