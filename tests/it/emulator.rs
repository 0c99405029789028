//! The emulator as others meet it: its Entra ID by assertions signed by a cluster or by an application's certificate, and
//! by Microsoft's own SDK for Python, unchanged; its front before a cluster by the nodes that it announces.

mod certificate;
mod cluster;
mod federation;
mod python;
mod signing;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use serde_json::Value;

use crate::support::{Azure, client_trusting};

/// The changes to a right assertion: `null` removes a claim.
fn changed(mut right: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().expect("changes are an object") {
        right[name] = value.clone();
    }
    right
        .as_object_mut()
        .expect("claims are an object")
        .retain(|_, value| !value.is_null());
    right
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is past 1970").as_secs()
}

/// Exchanges an assertion; returns the AADSTS code, 0 for a token, and the error's description.
async fn exchange(azure: &Azure, assertion: &str) -> (u64, String) {
    let authority = std::fs::read(azure.variable("REDIS_CA_FILE")).expect("it is there");
    let client = client_trusting(&authority).build();
    let client = client.expect("there is nothing to go wrong");
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
    // None of the values needs more: they are base64, GUIDs and URLs.
    let fields = fields.map(|(name, value)| format!("{name}={}", value.replace(':', "%3A")));
    let answer = client
        .post(format!("{host}{tenant}/oauth2/v2.0/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(fields.join("&"))
        .send()
        .await
        .expect("the emulator answers");
    let status = answer.status();
    let body = answer.text().await.expect("whole");
    let signature = assertion.rsplit('.').next().unwrap_or_default();
    assert!(
        signature.is_empty() || !body.contains(signature),
        "the assertion is repeated"
    );
    let body: Value = serde_json::from_str(&body).expect("it is JSON");
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
