//! Programs built on the library, as the README shows them: each example is run against the emulated Azure.

use entra_redis_emulator::EntraFault;
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::support::{Azure, LIMIT, RedisServer, Service, eventually, example};

/// The example with an environment of nothing but these.
fn program(name: &str) -> Command {
    let mut command = Command::new(example(name));
    command.env_clear().stdin(std::process::Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_ones_own_has_the_pool_and_answers_problems_as_sample_does() {
    let azure = Azure::with_lifetime(60).await;
    let environment = azure.environment("WorkloadIdentityCredential");
    let mut service = Service::run(program("own_route"), environment).await;
    service.ready().await;
    let visit = async |page: &str| {
        let url = service.url(&format!("/visits/{page}"));
        service.client.post(url).send().await.expect("it answers")
    };
    for (page, visits) in [("one", "1\n"), ("one", "2\n"), ("two", "1\n")] {
        let answer = visit(page).await;
        assert!(answer.headers().contains_key("x-request-id"), "{answer:?}");
        assert_eq!(answer.text().await.expect("it is whole"), visits, "{page}");
    }
    let labels = ["http_route=\"/visits/{page}\"", "code=\"200\""];
    let counted = async || {
        service
            .metric("http_server_request_duration_seconds_count", &labels)
            .await
    };
    assert_eq!(counted().await, 3.0);
    assert_eq!(service.get("/visits/one").await.status(), 405);
    assert!(
        service
            .text("/sample")
            .await
            .starts_with("Previous visit was at: ")
    );
    service.signal("-TERM");
    assert_eq!(service.end().await.code(), Some(0), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_ones_own_without_a_token_is_a_problem_that_is_logged() {
    let azure = Azure::with_lifetime(60).await;
    azure.controls.set_entra(EntraFault::Status(500));
    let environment = azure.environment("WorkloadIdentityCredential");
    let mut service = Service::run(program("own_route"), environment).await;
    let mut problem = Value::Null;
    eventually("no token is to be had", async || {
        let asked = service.client.post(service.url("/visits/one")).send();
        let answer = asked.await.expect("it answers");
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert!(answer.headers().contains_key("retry-after"));
        let body = answer.text().await.expect("it is whole");
        problem = serde_json::from_str(&body).expect("it is JSON");
        problem["type"] == "urn:entra-redis:problem:no-token"
    })
    .await;
    let logged = service.event("request failed at Redis").await;
    assert_eq!(logged["level"], "WARN");
    assert_eq!(logged["span"]["http.route"], "/visits/{page}", "{logged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_alone_authenticates_and_counts() {
    let redis = RedisServer::start().await;
    let azure = Azure::start(entra_redis_emulator::Options {
        redis: Some(redis.address()),
        ..Default::default()
    })
    .await;
    let run = async || {
        let mut program = program("own_pool");
        program.envs(azure.environment("WorkloadIdentityCredential"));
        // The tokens live for longer: an example that waits for their expiry is found.
        let output = timeout(LIMIT, program.kill_on_drop(true).output()).await;
        let output = output.expect("it exits in time").expect("it was built");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("it is text")
    };
    for visit in 1..=2 {
        assert_eq!(
            run().await,
            format!("visit {visit}; Redis has counted {visit}\nremoved: false\n")
        );
    }
}

/// The README's programs are the examples, but for their headers, so that what it shows is what runs.
#[test]
fn the_readme_shows_the_examples() {
    let file = |path: &str| {
        std::fs::read_to_string(crate::support::repository().join(path)).expect("it is there")
    };
    let readme = file("README.md");
    let shown: Vec<&str> = readme
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let examples = [
        "examples/own_route.rs",
        "crates/entra-redis/examples/own_pool.rs",
    ]
    .map(|path| {
        let text = file(path);
        let (_, program) = text.split_once("\n\n").expect("a header");
        program.to_owned()
    });
    assert_eq!(shown, examples);
}
