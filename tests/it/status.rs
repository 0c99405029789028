//! The status page: its parts, and the details that each port shows.

use serde_json::Value;

use crate::support::{Azure, Service, eventually};

/// Each part matters: nothing else states what the page may not do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn json(service: &Service, url: &str) -> Value {
    let (status, body) = service.at(url).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("it is JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_whole_and_may_load_nothing_else() {
    let azure = Azure::with_lifetime(60).await;
    let service = Service::start(&[], azure.environment("EnvironmentCredential")).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/status.css", "text/css; charset=utf-8"),
        ("/status.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = service.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let header = |name: &str| {
            answer.headers()[name]
                .to_str()
                .expect("it is text")
                .to_owned()
        };
        assert_eq!(header("content-type"), kind);
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("content-security-policy"), POLICY);
        let text = answer.text().await.expect("the body is whole");
        assert!(
            !text.contains("//cdn") && !text.contains("http"),
            "{path} names another place"
        );
        assert!(
            !text.contains("style=") && !text.contains("onclick"),
            "{path} breaks its policy"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_is_shown_on_the_admin_port_only() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("EnvironmentCredential");
    environment.push(("ADMIN_PORT".to_owned(), "0".to_owned()));
    let service = Service::start(&[], environment).await;
    let admin = service.admin.clone().expect("it has one");
    eventually("it is ready", async || {
        service.at(&format!("{admin}/readyz")).await.0 == 200
    })
    .await;
    for _ in 0..3 {
        assert_eq!(service.get("/sample").await.status(), 200);
    }
    let public = json(&service, &service.url("/status.json")).await;
    let whole = json(&service, &format!("{admin}/status.json")).await;
    for status in [&public, &whole] {
        assert_eq!(status["ready"], true, "{status:#}");
        assert_eq!(status["visits"], 3);
        assert_eq!(status["checks"]["redis"]["status"], "passed");
        assert_eq!(status["checks"]["redis"]["primaries"], 1);
        assert_eq!(status["checks"]["lifecycle"]["phase"], "serving");
        assert!(status["checks"]["token"]["expires_in_seconds"].is_u64());
        assert!((1..=60).contains(&status["tokenExpiresInSeconds"].as_u64().expect("a number")));
        assert_eq!(status["connectionsWanted"], 2);
    }
    assert_eq!(whole["credential"], "EnvironmentCredential");
    assert_eq!(
        whole["nodes"][0]["address"],
        azure.variable("REDIS_ENDPOINT")
    );
    let object_id = whole["objectId"].as_str().expect("it is shown");
    assert_eq!(object_id.len(), 36);
    for part in [
        object_id,
        "EnvironmentCredential",
        azure.variable("REDIS_ENDPOINT"),
    ] {
        assert!(!public.to_string().contains(part), "{part} is public");
    }
    // tests/status-page follows the links.
    let links =
        |page: &str| ["sample", "readyz"].map(|to| page.contains(&format!("href=\"{to}\"")));
    let (status, page) = service.at(&format!("{admin}/")).await;
    assert_eq!((status, links(&page)), (200, [false, true]));
    assert_eq!(links(&service.text("/").await), [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_shown_and_the_page_stays() {
    let environment = [
        ("REDIS_ENDPOINT", "localhost:1"),
        ("REDIS_AUTH", "none"),
        ("REDIS_TLS", "false"),
    ];
    let service = Service::start(&[], environment).await;
    let status = json(&service, &service.url("/status.json")).await;
    assert_eq!(status["ready"], false, "{status:#}");
    assert_eq!(status["tokenExpiresInSeconds"], Value::Null);
    assert_eq!(status["connectionsOpen"], 0);
    assert_eq!(service.get("/").await.status(), 200);
}
