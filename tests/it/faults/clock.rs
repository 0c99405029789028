//! The machine's clock is set by hours, forwards and backwards, while the service runs.
//!
//! By libfaketime, which replaces the C library's functions for the time of day.

use std::path::PathBuf;

use serde_json::Value;

use super::{none_failed, under_load};
use crate::support::{Azure, MonitoredService, eventually};

/// The library of Debian's package `faketime`.
pub(super) fn library() -> PathBuf {
    let places = ["/usr/lib", "/usr/lib64"].map(PathBuf::from);
    let below = places.iter().flat_map(std::fs::read_dir).flatten();
    let below = below.filter_map(|entry| Some(entry.ok()?.path()));
    let all = below.chain(places.iter().cloned());
    let mut found = all.map(|place| place.join("faketime/libfaketimeMT.so.1"));
    found
        .find(|library| library.exists())
        .expect("libfaketime is installed; `tests/run` sees to it")
}

/// The service's time, in seconds since the epoch: the clock by which it dates its log.
fn now_of(service: &MonitoredService) -> i64 {
    let log = service.log();
    let mut lines = log.lines().rev();
    let dated = lines.find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        event["timestamp"].as_str()?.parse::<jiff::Timestamp>().ok()
    });
    dated.expect("it has a log").as_second()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_by_hours_costs_no_request_and_tokens_keep_rotating() {
    let azure = Azure::with_lifetime(4).await;
    let directory = tempfile::tempdir().expect("there is room");
    let setting = directory.path().join("clock");
    let set = |hours: i64| {
        // In one go: a file half written is no time.
        let new = directory.path().join("new");
        std::fs::write(&new, format!("{hours:+}h\n")).expect("there is room");
        std::fs::rename(&new, &setting).expect("it is there");
    };
    set(0);
    let mut environment = azure.environment("WorkloadIdentityCredential");
    let library = library().display().to_string();
    let setting = setting.display().to_string();
    environment.extend(super::with([
        ("LD_PRELOAD", &library),
        ("FAKETIME_TIMESTAMP_FILE", &setting),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]));
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    let load = under_load(&service, 4).await;
    for hours in [5, -7] {
        set(hours);
        let real = jiff::Timestamp::now().as_second();
        eventually("the clock is another", async || {
            (now_of(&service) - real - hours * 3600).abs() < 60
        })
        .await;
        let reauths = async || {
            let labels = ["kind=\"reauth\"", "outcome=\"success\""];
            service.metric("redis_auth_total", &labels).await
        };
        // The second token is the first one that was requested by the new clock alone.
        let wanted = reauths().await + 4.0;
        eventually("tokens rotate", async || reauths().await >= wanted).await;
        assert_eq!(service.readiness().await.0, 200);
    }
    none_failed(load).await;
    assert_eq!(
        service.metric("redis_connections_opened_total", &[]).await,
        2.0
    );
}
