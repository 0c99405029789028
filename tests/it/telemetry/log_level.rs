//! `GET` and `PUT /log-level`.

use serde_json::Value;

use crate::support::{Service, client_trusting, eventually};

#[tokio::test]
async fn the_log_level_changes_while_the_service_runs() {
    let service = Service::start(&["dev"], [("ADMIN_PORT", "0")]).await;
    service.ready_at_admin().await;
    let admin = service.admin.clone().expect("it has one");
    let url = format!("{admin}/log-level");
    let put = async |body: &str| {
        let request = service.client.put(&url).body(body.to_owned());
        let answer = request.send().await.expect("it answers");
        // Its body was read: the connection is kept.
        assert_eq!(answer.headers().get("connection"), None);
        (
            answer.status().as_u16(),
            answer.text().await.expect("it is whole"),
        )
    };
    assert_eq!(service.at(&url).await, (200, "info\n".to_owned()));
    service.text("/sample").await;
    let has_debug = || service.log().contains("\"level\":\"DEBUG\"");
    assert!(!has_debug());

    let (status, answer) = put("warn,access=debug").await;
    assert_eq!((status, answer.as_str()), (200, "warn,access=debug\n"));
    assert_eq!(
        service.at(&url).await,
        (200, "warn,access=debug\n".to_owned())
    );
    service.at(&format!("{admin}/healthz")).await;
    eventually("debug events are logged", async || has_debug()).await;

    let ask_as = async |id: &str| {
        let request = service.client.get(service.url("/sample"));
        let answer = request.header("x-request-id", id).send().await;
        assert_eq!(answer.expect("it answers").status(), 200);
    };
    assert_eq!(put("off").await.0, 200);
    ask_as("silent").await;
    assert_eq!(put("info").await.0, 200);
    ask_as("heard").await;
    eventually("it is heard again", async || {
        service.log().contains("heard")
    })
    .await;
    let log = service.log();
    assert!(!log.contains("silent"), "{log}");
    assert!(log.contains("changing log filter"), "{log}");
}

#[tokio::test]
async fn an_invalid_filter_is_refused_with_a_reason_and_changes_nothing() {
    let service = Service::start(&["dev"], [("ADMIN_PORT", "0")]).await;
    let admin = service.admin.clone().expect("it has one");
    let url = format!("{admin}/log-level");
    let large = "x".repeat(5000);
    for (body, status, part) in [
        (
            "info,verbose",
            400,
            "\"verbose\" is not a valid directive; expected a level",
        ),
        ("", 400, "a directive is empty"),
        (large.as_str(), 413, "exceeds"),
    ] {
        let request = service.client.put(&url).body(body.to_owned());
        let answer = request.send().await.expect("it answers");
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let body = answer.text().await.expect("it is whole");
        let problem: Value = serde_json::from_str(&body).expect("JSON");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(part), "{problem}");
    }
    assert_eq!(service.at(&url).await.1, "info\n");
}

#[tokio::test]
async fn only_this_machine_may_ask_and_only_on_the_admin_port() {
    // A second address of this machine stands for another machine: 127.0.0.2 is not 127.0.0.1.
    let service = Service::start(&["dev"], [("ADMIN_PORT", "0"), ("HOST", "0.0.0.0")]).await;
    let port = |url: &str| url.rsplit(':').next().expect("a port").to_owned();
    let admin = port(service.admin.as_ref().expect("it has one"));
    let near = format!("http://127.0.0.1:{admin}/log-level");
    assert_eq!(service.at(&near).await.0, 200);
    let far = client_trusting(&[])
        .local_address(std::net::IpAddr::from([127, 0, 0, 2]))
        .build()
        .expect("a client without TLS files");
    for request in [far.get(&near), far.put(&near).body("off")] {
        let answer = request.send().await.expect("it answers");
        assert_eq!(answer.status(), 403);
    }
    for header in ["x-forwarded-for", "forwarded", "via"] {
        let request = service
            .client
            .put(&near)
            .header(header, "10.0.0.4")
            .body("off");
        assert_eq!(
            request.send().await.expect("it answers").status(),
            403,
            "{header}"
        );
    }
    assert_eq!(service.at(&near).await.1, "info\n");
    let public = format!("http://127.0.0.1:{}/log-level", port(&service.public));
    assert_eq!(service.at(&public).await.0, 404);
    let alone = Service::start(&["dev"], [("", ""); 0]).await;
    assert_eq!(alone.get("/log-level").await.status(), 404);
}
