//! Keys of the test's own and what is signed with them. RSA keys are made by the `openssl` command line: ring makes none.

use std::{path::PathBuf, process::Command};

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

/// An RSA key and a certificate that holds it, in files.
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
        let directory = tempfile::tempdir().expect("there is room");
        let made = Command::new("openssl")
            .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test".split(' '))
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(&directory)
            .output()
            .expect("this test needs the openssl command line");
        let error = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "openssl makes no key: {error}");
        let document = PrivatePkcs8KeyDer::from_pem_file(directory.path().join("key.pem"));
        let document = document.expect("openssl writes PKCS #8");
        let key = RsaKeyPair::from_pkcs8(document.secret_pkcs8_der()).expect("it is RSA");
        let key = Key::Rsa(key);
        let certificate = Self { directory, key };
        let both = ["key.pem", "certificate.pem"].map(|file| {
            std::fs::read_to_string(certificate.directory.path().join(file)).expect("it is there")
        });
        std::fs::write(certificate.with_key(), both.concat()).expect("there is room");
        certificate
    }

    /// The public part.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// Key and certificate in one file, as SDKs read them.
    pub(super) fn with_key(&self) -> PathBuf {
        self.directory.path().join("both.pem")
    }

    pub(super) fn thumbprint(&self, algorithm: &'static digest::Algorithm) -> String {
        let der = CertificateDer::from_pem_file(self.path()).expect("it is a certificate");
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

    /// The public part as Kubernetes publishes it.
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

    /// A JWT signed in the way its header says.
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
                    .expect("the key is good");
                signature
            }
            Self::P256(key) => {
                let signature = key.sign(&random, text.as_bytes());
                signature.expect("the key is good").as_ref().to_vec()
            }
        };
        format!("{text}.{}", BASE64URL.encode(signature))
    }
}
