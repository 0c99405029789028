//! Workload identity of a Kubernetes cluster: its issuer, keys and assertions.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use axum::{Router, http::StatusCode, routing::get};
use entra_redis_emulator::{Emulator, Error, FederatedCredential, KeySource, Options};
use serde_json::{Value, json};

use crate::signing::{Certificate, Key, changed, exchange, now};
use crate::support::{Azure, eventually};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const SUBJECT: &str = "system:serviceaccount:shop:cart";

/// The claims that the kubelet projects into a pod.
fn cluster_claims() -> Value {
    json!({
        "iss": ISSUER, "sub": SUBJECT, "aud": ["api://AzureADTokenExchange"],
        "iat": now(), "nbf": now(), "exp": now() + 3600, "jti": "1",
        "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "cart"}},
    })
}

fn trust(keys: KeySource) -> Options {
    Options {
        federated_credential: Some(FederatedCredential {
            issuer: ISSUER.to_owned(),
            subject: SUBJECT.to_owned(),
            keys,
        }),
        ..Options::default()
    }
}

#[tokio::test]
async fn valid_assertions_are_exchanged_and_others_get_the_error_of_entra_id() {
    let (rsa, ec) = (Certificate::make().key, Key::p256());
    let directory = tempfile::tempdir().expect("free space");
    let file = directory.path().join("keys.json");
    let keys = json!({"keys": [rsa.jwk("rsa"), ec.jwk("ec"), {"kty": "OKP", "kid": "other"}]});
    std::fs::write(&file, keys.to_string()).expect("free space");
    let azure = Azure::start(trust(KeySource::File(file))).await;
    let printed = |name: &str| azure.variables.iter().any(|(known, _)| *known == name);
    assert!(
        !printed("AZURE_FEDERATED_TOKEN_FILE"),
        "the emulator is not the issuer"
    );

    let (rs256, es256) = (
        json!({"alg": "RS256", "kid": "rsa"}),
        json!({"alg": "ES256", "kid": "ec"}),
    );
    let right = |changes: Value| rsa.sign(&rs256, &changed(cluster_claims(), &changes));
    let mut forged = right(json!({}));
    let ending = forged.rfind('.').expect("three parts") + 1;
    forged.replace_range(
        ending..=ending,
        if &forged[ending..=ending] == "A" {
            "B"
        } else {
            "A"
        },
    );
    let cases = [
        (0, right(json!({}))),
        (0, ec.sign(&es256, &cluster_claims())),
        (
            0,
            right(json!({"aud": "api://AzureADTokenExchange", "nbf": null})),
        ),
        (700211, right(json!({"iss": format!("{ISSUER}/")}))),
        (
            700213,
            right(json!({"sub": "system:serviceaccount:shop:Cart"})),
        ),
        (700212, right(json!({"aud": [ISSUER]}))),
        (
            700212,
            right(json!({"aud": ["api://AzureADTokenExchange", ISSUER]})),
        ),
        (50027, right(json!({"aud": null}))),
        (700024, right(json!({"exp": now() - 1}))),
        (700024, right(json!({"nbf": now() + 600}))),
        (700027, forged),
        // A key with that id, but another one; an unknown id; none.
        (
            700027,
            Certificate::make().key.sign(&rs256, &cluster_claims()),
        ),
        (
            700027,
            rsa.sign(&json!({"alg": "RS256", "kid": "other"}), &cluster_claims()),
        ),
        (
            700027,
            rsa.sign(&json!({"alg": "RS256"}), &cluster_claims()),
        ),
        // The algorithm does not match the key.
        (
            700027,
            rsa.sign(&json!({"alg": "PS256", "kid": "rsa"}), &cluster_claims()),
        ),
        (
            700027,
            rsa.sign(&json!({"alg": "none", "kid": "rsa"}), &cluster_claims()),
        ),
        (
            700027,
            rsa.sign(&json!({"alg": "ES256", "kid": "ec"}), &cluster_claims()),
        ),
        (50027, "no.assertion.atall".to_owned()),
        (50027, right(json!({"exp": null}))),
    ];
    for (index, (code, assertion)) in cases.into_iter().enumerate() {
        let (actual, text) = exchange(&azure, &assertion).await;
        assert_eq!(actual, code, "case {index}: {text}");
    }
    // Only the issuer's keys count, not the emulator's own.
    let own = Azure::with_lifetime(60).await;
    let file = own.variable("AZURE_FEDERATED_TOKEN_FILE");
    let assertion = std::fs::read_to_string(file).expect("the emulator wrote it");
    assert_eq!(exchange(&own, &assertion).await.0, 0);
    assert_eq!(exchange(&azure, &assertion).await.0, 700211);
}

#[tokio::test]
async fn rotated_keys_are_read_again_at_a_limited_rate() {
    // The keys that the cluster publishes; `None` while it is out of order.
    let published: Arc<Mutex<Option<Value>>> = Arc::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let answer = {
        let (published, asked) = (Arc::clone(&published), Arc::clone(&asked));
        move || async move {
            asked.fetch_add(1, Relaxed);
            let keys = published.lock().expect("no panic under the lock").clone();
            keys.map(|keys| keys.to_string())
                .ok_or(StatusCode::SERVICE_UNAVAILABLE)
        }
    };
    let server = axum::serve(
        listener,
        Router::new().route("/openid/v1/jwks", get(answer)),
    );
    tokio::spawn(server.into_future());
    let url = format!("http://{address}/openid/v1/jwks");
    let azure = Azure::start(trust(url.into())).await;
    assert_eq!(
        asked.load(Relaxed),
        0,
        "no request before the first assertion"
    );

    let keys = [Key::p256(), Certificate::make().key];
    let assertion = |index: usize| {
        let header = json!({"alg": (["ES256", "RS256"][index]), "kid": index.to_string()});
        keys[index].sign(&header, &cluster_claims())
    };
    let publish = |keys: Value| *published.lock().expect("no panic under the lock") = Some(keys);
    assert_eq!(
        exchange(&azure, &assertion(0)).await.0,
        50166,
        "the cluster is out of order"
    );
    publish(json!({"keys": [keys[0].jwk("0")]}));
    let good = async |index| exchange(&azure, &assertion(index)).await.0 == 0;
    eventually("the keys are read", async || good(0).await).await;

    let (before, start) = (asked.load(Relaxed), Instant::now());
    for _ in 0..20 {
        assert_eq!(
            exchange(&azure, &assertion(1)).await.0,
            700027,
            "an unknown key"
        );
        assert!(good(0).await);
    }
    let again = asked.load(Relaxed) - before;
    let most = start.elapsed().as_secs() as usize / 3 + 1;
    assert!(again <= most, "read {again} times for 20 unknown keys");

    publish(json!({"keys": [keys[1].jwk("1")]}));
    eventually("the new key is found", async || good(1).await).await;
    assert_eq!(
        exchange(&azure, &assertion(0)).await.0,
        700027,
        "the old key is gone"
    );
}

#[tokio::test]
async fn a_missing_file_of_keys_is_an_error_of_bind() {
    let missing = trust(KeySource::File("/missing".into()));
    assert!(matches!(
        Emulator::bind(missing).await,
        Err(Error::KeyFile { .. })
    ));
}
