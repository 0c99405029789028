//! An application that authenticates with its certificate.

use entra_redis::emulator::{Emulator, Error, Options};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::{Value, json};

use super::{changed, exchange, now, signing::Certificate};
use crate::support::{Azure, Certificates};

#[tokio::test]
async fn a_certificate_authenticates_in_either_form_and_in_no_mixture() {
    let (ours, other) = (Certificate::make(), Certificate::make());
    let azure = Azure::start(Options {
        client_certificate: Some(ours.path()),
        ..Options::default()
    })
    .await;
    let client_id = azure.variable("AZURE_CLIENT_ID");
    let tenant = format!(
        "{}{}",
        azure.variable("AZURE_AUTHORITY_HOST"),
        azure.variable("AZURE_TENANT_ID")
    );
    let claims = |changes: Value| {
        let right = json!({
            "iss": client_id, "sub": client_id, "aud": format!("{tenant}/oauth2/v2.0/token"),
            "jti": "1", "nbf": now(), "exp": now() + 600,
        });
        changed(right, &changes)
    };
    let (sha1, sha256) = (&SHA1_FOR_LEGACY_USE_ONLY, &SHA256);
    let ps256 = json!({"alg": "PS256", "x5t#S256": ours.thumbprint(sha256)});
    let rs256 = json!({"alg": "RS256", "x5t": ours.thumbprint(sha1)});
    let sign = |header: &Value| ours.key.sign(header, &claims(json!({})));
    let signed = |changes: Value| ours.key.sign(&ps256, &claims(changes));
    let both = json!({"x5t": ours.thumbprint(sha1), "x5t#S256": ours.thumbprint(sha256)});
    let cases = [
        (0, sign(&ps256)),
        (0, sign(&rs256)),
        (0, sign(&changed(rs256.clone(), &json!({"x5c": ["MIIC"]})))),
        (
            0,
            sign(&json!({"alg": "RS256", "x5t": format!("{}=", ours.thumbprint(sha1))})),
        ),
        (0, signed(json!({"aud": format!("{tenant}/v2.0")}))),
        (
            0,
            signed(json!({"aud": tenant, "nbf": null, "exp": now() as f64 + 60.5})),
        ),
        (
            700027,
            sign(&json!({"alg": "PS256", "x5t": ours.thumbprint(sha1)})),
        ),
        (
            700027,
            sign(&json!({"alg": "RS256", "x5t#S256": ours.thumbprint(sha256)})),
        ),
        (
            700027,
            sign(&changed(both.clone(), &json!({"alg": "PS256"}))),
        ),
        (700027, sign(&changed(both, &json!({"alg": "RS256"})))),
        (700027, sign(&json!({"alg": "PS256"}))),
        (
            700027,
            sign(&json!({"alg": "PS512", "x5t#S256": ours.thumbprint(sha256)})),
        ),
        // Our certificate, another's key; another's certificate and key.
        (700027, other.key.sign(&ps256, &claims(json!({})))),
        (
            700027,
            other.key.sign(
                &json!({"alg": "RS256", "x5t": other.thumbprint(sha1)}),
                &claims(json!({})),
            ),
        ),
        (700024, signed(json!({"exp": now() - 1}))),
        (700024, signed(json!({"nbf": now() + 600}))),
        (
            700023,
            signed(json!({"aud": "https://login.microsoftonline.com/common"})),
        ),
        (700021, signed(json!({"sub": "other"}))),
        (50027, signed(json!({"sub": null}))),
        // Told apart by the issuer: this one is not the application.
        (700211, signed(json!({"iss": "other"}))),
    ];
    for (index, (code, assertion)) in cases.into_iter().enumerate() {
        let (found, text) = exchange(&azure, &assertion).await;
        assert_eq!(found, code, "case {index}: {text}");
    }
    let header = json!({"alg": "PS256", "x5t#S256": other.thumbprint(sha256)});
    let (_, text) = exchange(&azure, &sign(&header)).await;
    assert!(text.contains("The key was not found"), "{text}");
    // Nothing registered, nothing accepted.
    let bare = Azure::with_lifetime(60).await;
    let id = bare.variable("AZURE_CLIENT_ID");
    let assertion = ours
        .key
        .sign(&ps256, &claims(json!({"iss": id, "sub": id})));
    assert_eq!(exchange(&bare, &assertion).await.0, 700027);
}

#[tokio::test]
async fn a_file_without_a_usable_certificate_shows_at_the_start() {
    let bind = |path| {
        Emulator::bind(Options {
            client_certificate: Some(path),
            ..Options::default()
        })
    };
    assert!(matches!(
        bind("/missing".into()).await,
        Err(Error::ClientCertificate { .. })
    ));
    let ec = Certificates::for_name("localhost");
    let refused = bind(ec.path("server.pem")).await;
    assert!(matches!(refused, Err(Error::ClientCertificateKey { .. })));
}
