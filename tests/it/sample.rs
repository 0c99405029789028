//! `GET /sample`, its alternative spellings, and the headers of every response.

use serde_json::{Value, json};

use crate::support::{Azure, Service, eventually};

#[tokio::test]
async fn the_second_visit_returns_the_time_of_the_first() {
    let azure = Azure::with_lifetime(60).await;
    let service = Service::start(&[], azure.environment("WorkloadIdentityCredential")).await;
    service.ready().await;
    assert_eq!(service.text("/sample").await, "Previous visit was at: ");
    let body = service.text("/sample").await;
    let time = body
        .strip_prefix("Previous visit was at: ")
        .expect("the ASP.NET sample's words");
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00");

    for same in ["/Sample", "/SAMPLE", "/sample/", "/sAmPlE?x=1"] {
        let response = service.get(same).await;
        assert_eq!(response.status(), 200, "{same}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["vary"], "Accept");
        assert_eq!(
            response.headers()["content-type"],
            "text/plain; charset=utf-8"
        );
    }
    // Whatever its spelling, the route is one.
    let metrics = service.text("/metrics").await;
    assert!(metrics.contains("http_route=\"/sample\""), "{metrics}");
    assert!(
        !metrics.to_lowercase().contains("http_route=\"/sample/"),
        "{metrics}"
    );
    assert!(!metrics.contains("/SAMPLE"), "{metrics}");

    let handled = || {
        let events = service.log();
        let events = events
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let events = events.filter(|event| {
            event["target"] == "access" && event["span"]["http.route"] == "/sample"
        });
        events.collect::<Vec<_>>()
    };
    eventually("one event a request", async || handled().len() == 6).await;
    let handled = handled();
    assert_eq!(handled[1]["message"], "request completed");
    assert_eq!(handled[1]["sample.previous_visit"], time);
}

#[tokio::test]
async fn json_is_returned_where_it_is_accepted() {
    let azure = Azure::with_lifetime(60).await;
    let service = Service::start(&[], azure.environment("WorkloadIdentityCredential")).await;
    service.ready().await;
    let ask = async || {
        let request = service
            .client
            .get(service.url("/sample"))
            .header("accept", "application/json");
        let response = request.send().await.expect("it answers");
        assert_eq!(response.headers()["content-type"], "application/json");
        serde_json::from_str::<Value>(&response.text().await.expect("a complete body"))
            .expect("it is JSON")
    };
    assert_eq!(ask().await, json!({ "previousVisit": null }));
    let second = ask().await;
    assert!(
        second["previousVisit"]
            .as_str()
            .is_some_and(|time| time.len() == 19),
        "{second}"
    );
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_document_with_a_request_id() {
    let azure = Azure::with_lifetime(60).await;
    let service = Service::start(&[], azure.environment("WorkloadIdentityCredential")).await;
    let client = &service.client;
    let cases = [
        (client.get(service.url("/nothing")), 404, "not-found", None),
        (
            client.get(service.url("/swagger/nothing")),
            404,
            "not-found",
            None,
        ),
        (
            client.post(service.url("/sample")).body(vec![0; 70_000]),
            405,
            "method-not-allowed",
            Some("GET"),
        ),
        (
            client.post(service.url("/sample")),
            405,
            "method-not-allowed",
            Some("GET"),
        ),
        (
            client.delete(service.url("/Sample")),
            405,
            "method-not-allowed",
            Some("GET"),
        ),
        (
            client.post(service.url("/healthz")),
            405,
            "method-not-allowed",
            Some("GET,HEAD"),
        ),
        (
            client.get(service.url("/sample")).body(vec![0; 70_000]),
            413,
            "body-too-large",
            None,
        ),
    ];
    for (request, status, kind, allow) in cases {
        let response = request
            .header("x-request-id", "mine-1")
            .send()
            .await
            .expect("it answers");
        assert_eq!(response.status(), status);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["x-request-id"], "mine-1");
        assert_eq!(
            headers.get("allow").map(|v| v.to_str().expect("ASCII")),
            allow
        );
        let body: Value =
            serde_json::from_str(&response.text().await.expect("a complete body")).expect("JSON");
        assert_eq!(body["type"], format!("urn:entra-redis:problem:{kind}"));
        assert_eq!(body["status"], status);
    }
    // HEAD would write without returning the value: it is refused.
    let head = client
        .head(service.url("/sample"))
        .send()
        .await
        .expect("it answers");
    assert_eq!(head.status(), 405);
    let id = head.headers()["x-request-id"].to_str().expect("ASCII");
    assert_eq!(id.len(), 32);
}

#[tokio::test]
async fn swagger_ui_is_whole_without_the_internet_and_the_document_names_every_route() {
    let azure = Azure::with_lifetime(60).await;
    let service = Service::start(&[], azure.environment("WorkloadIdentityCredential")).await;
    let page = service.get("/swagger").await;
    assert_eq!(page.url().path(), "/swagger/");
    assert_eq!(page.status(), 200);
    for asset in [
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "swagger-ui-standalone-preset.js",
        "swagger-initializer.js",
    ] {
        assert_eq!(
            service.get(&format!("/swagger/{asset}")).await.status(),
            200,
            "{asset}"
        );
    }
    let document: Value = serde_json::from_str(&service.text("/openapi.json").await).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let paths: Vec<_> = document["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .collect();
    assert_eq!(
        paths,
        ["/healthz", "/metrics", "/readyz", "/sample", "/status.json"]
    );
    let responses = &document["paths"]["/sample"]["get"]["responses"];
    assert!(responses["503"]["content"]["application/problem+json"].is_object());
}

#[tokio::test]
async fn with_an_admin_port_probes_and_metrics_leave_the_public_one() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("WorkloadIdentityCredential");
    environment.push(("ADMIN_PORT".to_owned(), "0".to_owned()));
    let service = Service::start(&[], environment).await;
    let admin = service.admin.clone().expect("it has an admin listener");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(service.get(path).await.status(), 404, "{path}");
        let response = service
            .client
            .get(format!("{admin}{path}"))
            .send()
            .await
            .expect("it answers");
        assert_ne!(response.status(), 404, "{path}");
        assert!(response.headers().contains_key("x-request-id"));
    }
    let response = service
        .client
        .get(format!("{admin}/sample"))
        .send()
        .await
        .expect("it answers");
    assert_eq!(response.status(), 404);
}
