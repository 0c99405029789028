//! The token endpoints: what they grant, what they refuse, and injected faults.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{StatusCode, header};
use entra_redis_emulator::{EntraFault, FederatedCredential, KeySource, Options};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::signing::{Key, changed, now};
use crate::support::Azure;

/// A request of the application for a token, by its secret unless changed; an empty value removes a field.
fn token_request(azure: &Azure, changes: &[(&str, &str)]) -> RequestBuilder {
    let mut fields = HashMap::from([
        ("grant_type", "client_credentials"),
        ("client_id", azure.variable("AZURE_CLIENT_ID")),
        ("scope", "https://redis.azure.com/.default"),
        ("client_secret", azure.variable("AZURE_CLIENT_SECRET")),
    ]);
    let mut tenant = azure.variable("AZURE_TENANT_ID");
    for (name, value) in changes {
        match *name {
            "tenant" => tenant = value,
            _ if value.is_empty() => _ = fields.remove(name),
            _ => _ = fields.insert(name, value),
        }
    }
    let body: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let authority = azure.variable("AZURE_AUTHORITY_HOST");
    azure
        .http()
        .post(format!("{authority}{tenant}/oauth2/v2.0/token"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body.join("&"))
}

async fn response(request: RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.expect("the emulator responds");
    let status = response.status();
    (status, response.text().await.expect("a complete body"))
}

/// An AADSTS code (0 for a token), the status, and the changes to a valid request.
type Case<'a> = (u32, u16, Vec<(&'a str, String)>);

fn cases_without_assertion<'a>() -> Vec<Case<'a>> {
    let redis_by_id = "acca5fbb-b7e4-4009-81f1-37e38fd66d78/.default";
    let vault = "https://vault.azure.net/.default";
    vec![
        (0, 200, vec![]),
        (0, 200, vec![("scope", redis_by_id.into())]),
        (90002, 400, vec![("tenant", "other".into())]),
        (900144, 400, vec![("grant_type", String::new())]),
        (70003, 400, vec![("grant_type", "password".into())]),
        (700016, 400, vec![("client_id", "other".into())]),
        (70011, 400, vec![("scope", "openid".into())]),
        (500011, 400, vec![("scope", vault.into())]),
        (7000215, 401, vec![("client_secret", "hunter2".into())]),
        (7000216, 401, vec![("client_secret", String::new())]),
    ]
}

fn cases_with_assertion<'a>(assertion: impl Fn(Value) -> String) -> Vec<Case<'a>> {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    [
        (0, 200, assertion(json!({}))),
        (50027, 400, "hunter2".into()),
        (700211, 401, assertion(json!({"iss": "https://other"}))),
        (700212, 401, assertion(json!({"aud": ["other"]}))),
        (700213, 401, assertion(json!({"sub": "other"}))),
        (700024, 401, assertion(json!({"exp": 1}))),
        (700027, 401, assertion(json!({})) + "AAAA"),
    ]
    .map(|(code, status, assertion)| {
        let changes = vec![
            ("client_assertion", assertion),
            ("client_assertion_type", kind.into()),
        ];
        (code, status, changes)
    })
    .into()
}

#[tokio::test]
async fn the_token_endpoint_refuses_as_entra_id_does() {
    let key = Key::p256();
    let directory = tempfile::tempdir().expect("free space");
    let file = directory.path().join("keys.json");
    let keys = json!({"keys": [key.jwk("key")]});
    std::fs::write(&file, keys.to_string()).expect("free space");
    let credential = FederatedCredential {
        issuer: "https://issuer".into(),
        subject: "subject".into(),
        keys: KeySource::File(file),
    };
    let azure = Azure::start(Options {
        federated_credential: Some(credential),
        ..Options::default()
    })
    .await;
    let valid = json!({
        "iss": "https://issuer", "sub": "subject", "aud": "api://AzureADTokenExchange",
        "nbf": now(), "exp": now() + 60,
    });
    let header = json!({"alg": "ES256", "kid": "key"});
    let assertion = |changes: Value| key.sign(&header, &changed(valid.clone(), &changes));
    let cases = [cases_without_assertion(), cases_with_assertion(assertion)];
    for (code, status, changes) in cases.concat() {
        let changes: Vec<(&str, &str)> = changes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let (actual, body) = response(token_request(&azure, &changes)).await;
        assert_eq!(actual.as_u16(), status, "{code}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        if code == 0 {
            assert_eq!(body["token_type"], "Bearer");
            continue;
        }
        assert_eq!(body["error_codes"], json!([code]), "{body}");
        let text = body["error_description"].as_str().expect("a text");
        assert!(text.starts_with(&format!("AADSTS{code}: ")), "{text}");
        assert!(
            !text.contains(['"', '\\']),
            "azure_identity cannot read {text}"
        );
        for (name, value) in changes {
            let secret = ["client_secret", "client_assertion"].contains(&name) && !value.is_empty();
            assert!(
                !secret || !body.to_string().contains(value),
                "{name} is repeated"
            );
        }
    }
}

/// A status, a path, the parts of its query, and the value of the headers by which the two endpoints know a workload.
type IdentityCase<'a> = (u16, &'a str, Vec<&'a str>, &'a str);

#[tokio::test]
async fn managed_identities_are_granted_and_refused() {
    let azure = Azure::with_lifetime(60).await;
    let token = azure.token().await;
    let app = "/msi/token?api-version=2019-08-01";
    let machine = "/metadata/identity/oauth2/token?api-version=2018-02-01";
    let redis = "&resource=https://redis.azure.com";
    let known = format!("&client_id={}", azure.variable("AZURE_CLIENT_ID"));
    let two = format!("{known}&principal_id={}", token.object_id());
    let oid = format!("&object_id={}", token.object_id());
    let principal = oid.replace("object_id", "principal_id");
    let resource = format!("&mi_res_id={}", token.claim("xms_mirid"));
    let machines_resource = resource.replace("mi_res_id", "msi_res_id");
    let header = azure.variable("IDENTITY_HEADER");
    let old = "/msi/token?api-version=2017-09-01";
    let mut cases: Vec<IdentityCase<'_>> = vec![
        (200, app, vec![redis], header),
        (200, app, vec![redis, &known], header),
        (401, app, vec![redis], "wrong"),
        (400, app, vec![], header),
        (400, app, vec![redis, "&client_id=other"], header),
        (400, app, vec![redis, &two], header),
        (400, old, vec![redis], header),
        (400, app, vec!["&resource=https://vault.azure.net"], header),
        (200, machine, vec![redis], "true"),
        (400, machine, vec![redis], "wrong"),
        (400, machine, vec![], "true"),
        (400, machine, vec![redis, "&client_id=other"], "true"),
    ];
    let names = [&known, &oid, &principal, &resource, &machines_resource];
    for (path, header) in [(app, header), (machine, "true")] {
        for (index, name) in names.into_iter().enumerate() {
            cases.push((200, path, vec![redis, name], header));
            for other in &names[index + 1..] {
                cases.push((400, path, vec![redis, name, other], header));
            }
        }
    }
    let endpoint = azure.variable("IDENTITY_ENDPOINT");
    let host = endpoint.strip_suffix("/msi/token").expect("its path");
    let client = azure.http();
    for (status, path, query, header) in cases {
        let uri = format!("{path}{}", query.concat());
        let request = client
            .get(format!("{host}{uri}"))
            .header("x-identity-header", header)
            .header("metadata", header);
        let (actual, body) = response(request).await;
        assert_eq!(actual.as_u16(), status, "{uri}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["access_token"].is_string(), status == 200);
        assert_eq!(
            body["expires_on"].is_string(),
            status == 200,
            "a string, as Azure returns it"
        );
    }
}

#[tokio::test]
async fn entra_faults_are_injected() {
    let azure = Azure::with_lifetime(60).await;
    let controls = &azure.controls;
    let ask = || token_request(&azure, &[]);
    let token = async || {
        let (status, body) = response(ask()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["access_token"].as_str().expect("a token").to_owned()
    };

    assert_ne!(token().await, token().await);
    controls.set_entra(EntraFault::SameToken);
    assert_eq!(token().await, token().await);
    assert_eq!(controls.counts().tokens_issued, 2);
    controls.set_entra(EntraFault::Status(500));
    assert_eq!(response(ask()).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    controls.set_entra(EntraFault::RetryAfter(429, Duration::from_millis(1500)));
    let throttled: Response = ask().send().await.expect("the emulator responds");
    assert_eq!(throttled.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(throttled.headers()[header::RETRY_AFTER], "2");
    controls.set_entra(EntraFault::Garbage);
    let (_, page) = response(ask()).await;
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    controls.set_entra(EntraFault::CutOff);
    let half = async { ask().send().await?.text().await };
    half.await.expect_err("half a response");
    controls.set_entra(EntraFault::Hang);
    let hung = timeout(Duration::from_millis(300), ask().send()).await;
    assert!(hung.is_err(), "{hung:?}");
    controls.set_entra(EntraFault::Slow(Duration::from_millis(300)));
    let slow = timeout(Duration::from_millis(200), ask().send()).await;
    assert!(slow.is_err(), "{slow:?}");
    token().await;
}
