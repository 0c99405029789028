//! The command `healthcheck`.

use anyhow::Context;

use super::block_on;
use crate::{
    config::{Environment, Http},
    doctor::local,
};

/// Requests `/healthz` of the service that runs on this machine with the same environment.
///
/// # Errors
/// The service cannot be reached, or the status is not 200.
pub(super) fn healthcheck(environment: &Environment) -> anyhow::Result<()> {
    let listeners = Http::new(environment)?;
    let address = local::address(&listeners);
    block_on(async {
        let (status, _) = local::get(address, "/healthz").await?;
        anyhow::ensure!(status == 200, "unexpected status {status}");
        Ok(())
    })
    .with_context(|| format!("health check of http://{address}/healthz failed"))
}
