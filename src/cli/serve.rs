//! The command `serve`, and the service that `dev` runs as well.

use anyhow::Context;

use super::block_on;
use crate::{
    app::{self, App},
    config::{Config, Environment},
    lifecycle, telemetry,
};

/// Runs the service until SIGTERM or SIGINT.
pub(super) fn serve(environment: &Environment) -> anyhow::Result<()> {
    let config = Config::new(environment)?;
    block_on(async {
        let stop = lifecycle::stop_signal().context("cannot listen for signals")?;
        serve_until(config, |_| Ok(()), stop).await
    })
}

/// Runs the service until `stop` completes. `bound` is called once the listeners are bound. Telemetry is flushed last,
/// also after an error.
pub(super) async fn serve_until(
    config: Config,
    bound: impl FnOnce(&App) -> anyhow::Result<()>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let telemetry = telemetry::start(&config.telemetry)?;
    // Each client takes a file descriptor, and the usual soft limit (1024) is meant for programs that use select(2). A limit
    // that cannot be raised is no reason not to serve.
    #[cfg(unix)]
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "could not raise the open-file limit");
    }
    let service = async {
        let metrics = app::install_metrics(Some(&telemetry)).context("cannot set up metrics")?;
        let app = App::bind(config, metrics).await?;
        bound(&app)?;
        Ok(app.log_filter(telemetry.log_filter()).run(stop).await?)
    };
    let result = service.await;
    telemetry.finish().await;
    result
}
