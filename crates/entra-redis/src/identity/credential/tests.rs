//! Tests of managed identity through azure_identity, against the emulator.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entra_redis_emulator::{Emulator, Options};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::env::{Environment, Settings};

/// The metadata service's requests as azure_identity sends them, redirected to the emulator by a proxy.
#[tokio::test]
async fn requests_to_the_metadata_service_are_as_documented() {
    let emulator = Emulator::bind(Options::default())
        .await
        .expect("free ports");
    let variables: std::collections::HashMap<_, _> = emulator.variables().into_iter().collect();
    let stop = CancellationToken::new();
    let running = tokio::spawn(emulator.run(stop.clone()));
    let pairs = [
        ("AZURE_TOKEN_CREDENTIALS", "prod"),
        ("AZURE_CLIENT_ID", variables["AZURE_CLIENT_ID"].as_str()),
        ("REDIS_ENDPOINT", "localhost:1"),
    ];
    let environment: Environment = pairs.into_iter().collect();
    let config = Settings::new(&environment).expect("the pairs are valid");
    let mut credential = AzureCredential::new(config.identity).expect("it can be set up");
    let endpoint = variables["IDENTITY_ENDPOINT"].trim_end_matches("/msi/token");
    let proxy = reqwest::Proxy::http(endpoint).expect("it is a URL");
    let tls = tls::client_config(&Default::default(), None).expect("the system has roots");
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .proxy(proxy);
    credential.local = client.build().expect("the settings are valid");

    let token = credential.fetch().await.expect("it issues a token");
    assert_eq!(credential.name(), "ManagedIdentityCredential");
    assert_eq!(token.username.len(), 36, "an object id");

    // By its other two names: one is the user name, the other is in the token.
    let claims = token.secret.expose().split('.').nth(1).expect("a JWT");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
    let resource_id = claims["xms_mirid"].as_str().expect("its resource id");
    for identity in [
        ManagedIdentity::ObjectId(token.username.clone()),
        ManagedIdentity::ResourceId(resource_id.to_owned()),
    ] {
        credential = credential
            .managed_identity(identity)
            .expect("no App Service");
        let again = credential.fetch().await.expect("it issues a token");
        assert_eq!(again.username, token.username);
    }
    let unknown = ManagedIdentity::ResourceId("/subscriptions/0".to_owned());
    credential = credential
        .managed_identity(unknown)
        .expect("no App Service");
    let error = credential.fetch().await.expect_err("no identity has it");
    assert!(error.to_string().contains("is not assigned"), "{error}");
    stop.cancel();
    running.await.expect("it stops without a panic");
}
