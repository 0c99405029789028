//! Keys of the tests, assertions signed with them, and their exchange for a token.
//!
//! RSA keys are made by the `openssl` command line: ring makes none.

use std::{
    path::PathBuf,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::Azure;

/// An RSA key and a certificate of it, in files.
pub(super) struct Certificate {
    directory: TempDir,
    pub(super) key: Key,
}

pub(super) enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl Certificate {
    pub(super) fn make() -> Self {
        let directory = tempfile::tempdir().expect("free space");
        let made = Command::new("openssl")
            .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test".split(' '))
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(&directory)
            .output()
            .expect("this test needs the openssl command line");
        let output = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "openssl failed: {output}");
        let document = PrivatePkcs8KeyDer::from_pem_file(directory.path().join("key.pem"));
        let document = document.expect("openssl writes PKCS #8");
        let key = RsaKeyPair::from_pkcs8(document.secret_pkcs8_der()).expect("an RSA key");
        let key = Key::Rsa(key);
        let certificate = Self { directory, key };
        let both = ["key.pem", "certificate.pem"].map(|file| {
            std::fs::read_to_string(certificate.directory.path().join(file))
                .expect("openssl wrote it")
        });
        std::fs::write(certificate.with_key(), both.concat()).expect("free space");
        certificate
    }

    /// The certificate's file.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// Key and certificate in one file, as SDKs read them.
    pub(super) fn with_key(&self) -> PathBuf {
        self.directory.path().join("both.pem")
    }

    pub(super) fn thumbprint(&self, algorithm: &'static digest::Algorithm) -> String {
        let der = CertificateDer::from_pem_file(self.path()).expect("a certificate");
        BASE64URL.encode(digest::digest(algorithm, &der))
    }
}

impl Key {
    pub(super) fn p256() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("ring makes keys");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        Self::P256(key.expect("ring reads what it writes"))
    }

    /// Returns the public key as Kubernetes publishes it.
    pub(super) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                let (n, e) = (BASE64URL.encode(public.n), BASE64URL.encode(public.e));
                json!({"use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": n, "e": e})
            }
            Self::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
                json!({"use": "sig", "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "x": x, "y": y})
            }
        }
    }

    /// Signs a JWT with the algorithm in its header.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let parts = [header, claims].map(|part| BASE64URL.encode(part.to_string()));
        let text = parts.join(".");
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let padding: &dyn ring::signature::RsaEncoding = match header["alg"].as_str() {
                    Some("PS256") => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, text.as_bytes(), &mut signature)
                    .expect("a valid key");
                signature
            }
            Self::P256(key) => {
                let signature = key.sign(&random, text.as_bytes());
                signature.expect("a valid key").as_ref().to_vec()
            }
        };
        format!("{text}.{}", BASE64URL.encode(signature))
    }
}

/// Changes a valid set of claims: `null` removes one.
pub(super) fn changed(mut valid: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().expect("changes are an object") {
        valid[name] = value.clone();
    }
    valid
        .as_object_mut()
        .expect("claims are an object")
        .retain(|_, value| !value.is_null());
    valid
}

pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a time after 1970").as_secs()
}

/// Exchanges an assertion; returns the AADSTS code, 0 for a token, and the error's description.
pub(super) async fn exchange(azure: &Azure, assertion: &str) -> (u64, String) {
    let (host, tenant) = ["AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID"]
        .map(|name| azure.variable(name))
        .into();
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", azure.variable("AZURE_CLIENT_ID")),
        ("scope", "https://redis.azure.com/.default"),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", assertion),
    ];
    // Other characters need no encoding: the values are base64, GUIDs and URLs.
    let fields = fields.map(|(name, value)| format!("{name}={}", value.replace(':', "%3A")));
    let response = azure
        .http()
        .post(format!("{host}{tenant}/oauth2/v2.0/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(fields.join("&"))
        .send()
        .await
        .expect("the emulator responds");
    let status = response.status();
    let body = response.text().await.expect("a complete body");
    let signature = assertion.rsplit('.').next().unwrap_or_default();
    assert!(
        signature.is_empty() || !body.contains(signature),
        "the assertion is repeated"
    );
    let body: Value = serde_json::from_str(&body).expect("JSON");
    if status == StatusCode::OK {
        assert!(body["access_token"].is_string());
        return (0, String::new());
    }
    let code = body["error_codes"][0].as_u64().expect("Entra ID's shape");
    let expected = match code {
        50027 | 50166 => (StatusCode::BAD_REQUEST, "invalid_request"),
        _ => (StatusCode::UNAUTHORIZED, "invalid_client"),
    };
    assert_eq!(
        (status, body["error"].as_str()),
        (expected.0, Some(expected.1)),
        "{body}"
    );
    let text = body["error_description"].as_str().expect("a text");
    assert!(text.starts_with(&format!("AADSTS{code}: ")), "{text}");
    (code, text.to_owned())
}
