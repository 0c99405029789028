//! Access tokens, issued and checked.
//!
//! Every token is new (its `uti` is random), looks like a version 1 token of Entra ID and is as long as one. Only the
//! algorithm differs: ES256 for Entra ID's RS256, because ring generates no RSA keys.
//!
//! # Invariants
//!
//! - One signing key is made for each start, and it never leaves this file.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde_json::{Value, json};

use super::jwt::{Claims, Jwt};

/// The audience of a token for Redis, which is also the resource of the request.
pub(crate) const REDIS_RESOURCE: &str = "https://redis.azure.com";

/// Redis as an application in Entra ID: the same resource by its id.
pub(crate) const REDIS_APPLICATION: &str = "acca5fbb-b7e4-4009-81f1-37e38fd66d78";

/// The audience of an assertion to be exchanged for a token.
pub(crate) const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// Entra ID dates tokens back by five minutes, for a resource whose clock is behind.
const BACKDATE_S: u64 = 300;

/// Bytes of the padding claim, which gives a token the 1.2–1.6 KB of a real one.
const PADDING: usize = 120;

/// A reason for rejecting a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("not a signed JWT")]
    Malformed,
    #[error("not signed by the emulator")]
    Signature,
    #[error("wrong audience")]
    Audience,
    #[error("expired or not valid yet")]
    Time,
    #[error("the object id is not the user name")]
    User,
}

/// One identity of the emulated tenant.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) client_id: String,
    pub(crate) object_id: String,
    pub(crate) resource_id: String,
}

/// An access token and its times; without `Debug`, because it is a credential.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) text: String,
    pub(crate) not_before: u64,
    pub(crate) expires_at: u64,
}

/// The signing key of one start, and its tenant.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
    pub(crate) tenant: String,
}

impl Signer {
    /// Makes a key and a tenant.
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .expect("the system has random numbers");
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
                .expect("ring reads the key it wrote");
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
        let key_id = BASE64URL.encode(&digest.as_ref()[..20]);
        let tenant = guid(&random);
        Self {
            key,
            key_id,
            random,
            tenant,
        }
    }

    /// Makes an identity called `name`.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        let subscription = guid(&self.random);
        Identity {
            client_id: guid(&self.random),
            object_id: guid(&self.random),
            resource_id: format!(
                "/subscriptions/{subscription}/resourcegroups/emulator/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
            ),
        }
    }

    /// Makes a secret, valid for this start.
    pub(crate) fn secret(&self) -> String {
        self.random_text(30)
    }

    /// Issues an access token for Redis to `identity`.
    pub(crate) fn issue(&self, identity: &Identity, now: u64, lifetime: Duration) -> Issued {
        let not_before = now.saturating_sub(BACKDATE_S);
        let expires_at = now.saturating_add(lifetime.as_secs().max(1));
        let text = self.sign(&json!({
            "aud": REDIS_RESOURCE,
            "iss": format!("https://sts.windows.net/{}/", self.tenant),
            "iat": not_before,
            "nbf": not_before,
            "exp": expires_at,
            "aio": self.random_text(42),
            "appid": identity.client_id,
            "appidacr": "2",
            "idp": format!("https://sts.windows.net/{}/", self.tenant),
            "idtyp": "app",
            "oid": identity.object_id,
            "rh": format!("1.{}.", self.random_text(38)),
            "sub": identity.object_id,
            "tid": self.tenant,
            "uti": self.random_text(16),
            "ver": "1.0",
            "xms_ftd": self.random_text(PADDING),
            "xms_idrel": "7 10",
            "xms_mirid": identity.resource_id,
            "xms_rd": self.random_text(44),
        }));
        Issued {
            text,
            not_before,
            expires_at,
        }
    }

    /// Signs claims as a JWT.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "ES256", "kid": self.key_id});
        let mut text = BASE64URL.encode(header.to_string());
        text.push('.');
        BASE64URL.encode_string(claims.to_string(), &mut text);
        let signature = self
            .key
            .sign(&self.random, text.as_bytes())
            .expect("the system has random numbers");
        text.push('.');
        BASE64URL.encode_string(signature, &mut text);
        text
    }

    /// Returns the claims of a text signed with this key. Times and audience are not checked.
    fn verify(&self, text: &[u8]) -> Result<Claims, Refusal> {
        let jwt = Jwt::parse(text).ok_or(Refusal::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key())
            .verify(jwt.signed, &jwt.signature)
            .map_err(|_| Refusal::Signature)?;
        Ok(jwt.claims)
    }

    /// Checks the user name and token of an `AUTH` as Azure does. Returns the token's expiry, in seconds since the epoch.
    pub(crate) fn authenticate(&self, user: &[u8], token: &[u8], now: u64) -> Result<u64, Refusal> {
        let claims = self.verify(token)?;
        if claims.aud != REDIS_RESOURCE {
            return Err(Refusal::Audience);
        }
        if !claims.in_time(now) {
            return Err(Refusal::Time);
        }
        if claims.oid.as_ref().map(String::as_bytes) != Some(user) {
            return Err(Refusal::User);
        }
        Ok(claims.exp)
    }

    /// Checks that a token was issued at least this long ago, in whole seconds.
    pub(crate) fn check_age(&self, token: &[u8], least: Duration) -> Result<(), Refusal> {
        let issued = self.verify(token)?.nbf + BACKDATE_S;
        if issued + least.as_secs() <= now() {
            Ok(())
        } else {
            Err(Refusal::Time)
        }
    }

    /// Returns the public key as a JSON Web Key Set.
    pub(crate) fn key_set(&self) -> Value {
        // An uncompressed point: one byte 4, then the two coordinates of 32 bytes.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.key_id,
            "x": BASE64URL.encode(x), "y": BASE64URL.encode(y),
        }]})
    }

    /// Returns a new GUID, for a trace or a correlation.
    pub(crate) fn guid(&self) -> String {
        guid(&self.random)
    }

    fn random_text(&self, bytes: usize) -> String {
        let mut buffer = vec![0; bytes];
        fill(&self.random, &mut buffer);
        BASE64URL.encode(buffer)
    }
}

/// Returns the wall clock's time in whole seconds since the epoch, as in tokens.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn fill(random: &SystemRandom, buffer: &mut [u8]) {
    random.fill(buffer).expect("the system has random numbers");
}

fn guid(random: &SystemRandom) -> String {
    let mut bytes = [0; 16];
    fill(random, &mut bytes);
    // RFC 9562: version 4, variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = format!("{:032x}", u128::from_be_bytes(bytes));
    for position in [20, 16, 12, 8] {
        text.insert(position, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn issued() -> (Signer, Identity, Issued) {
        let signer = Signer::new();
        let identity = signer.identity("a");
        let token = signer.issue(&identity, NOW, Duration::from_secs(60));
        (signer, identity, token)
    }

    #[test]
    fn a_token_authenticates_its_owner_until_it_expires() {
        let (signer, identity, token) = issued();
        let check =
            |now| signer.authenticate(identity.object_id.as_bytes(), token.text.as_bytes(), now);
        assert_eq!(check(NOW), Ok(NOW + 60));
        assert_eq!(check(NOW + 59), Ok(NOW + 60));
        assert_eq!(check(NOW + 60), Err(Refusal::Time));
        assert_eq!(check(NOW - BACKDATE_S), Ok(NOW + 60));
        assert_eq!(check(NOW - BACKDATE_S - 1), Err(Refusal::Time));
    }

    #[test]
    fn another_user_or_audience_is_rejected() {
        let (signer, identity, token) = issued();
        let check =
            |user: &str, text: &str| signer.authenticate(user.as_bytes(), text.as_bytes(), NOW);
        assert_eq!(check(&identity.client_id, &token.text), Err(Refusal::User));
        assert_eq!(check("default", &token.text), Err(Refusal::User));
        let mut claims = signer
            .verify(token.text.as_bytes())
            .expect("signed by this key");
        claims.aud = "https://management.azure.com".into();
        let other = signer.sign(&serde_json::to_value(&claims).expect("claims are JSON"));
        assert_eq!(check(&identity.object_id, &other), Err(Refusal::Audience));
    }

    #[test]
    fn no_changed_token_is_accepted() {
        let (signer, identity, token) = issued();
        let check = |text: &[u8]| signer.authenticate(identity.object_id.as_bytes(), text, NOW);
        for position in 0..token.text.len() {
            let mut text = token.text.clone().into_bytes();
            text[position] = if text[position] == b'A' { b'B' } else { b'A' };
            assert!(check(&text).is_err(), "changed at {position}");
        }
        assert_eq!(check(b""), Err(Refusal::Malformed));
        assert_eq!(check(b"a.b"), Err(Refusal::Malformed));
        assert_eq!(check(b"password"), Err(Refusal::Malformed));
        assert_eq!(
            Signer::new().verify(token.text.as_bytes()).err(),
            Some(Refusal::Signature)
        );
    }

    #[test]
    fn tokens_differ_and_are_as_long_as_real_ones() {
        let (signer, identity, token) = issued();
        let other = signer.issue(&identity, NOW, Duration::from_secs(60));
        assert_ne!(token.text, other.text);
        assert!(
            (1200..=1600).contains(&token.text.len()),
            "{}",
            token.text.len()
        );
    }

    #[test]
    fn a_guid_has_its_form() {
        let text = guid(&SystemRandom::new());
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(text.as_bytes()[14], b'4');
    }
}
