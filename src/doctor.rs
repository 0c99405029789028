//! The examination of a deployment: walks the path of a request from the configuration to Redis, step by step.
//!
//! Each step has a timeout and an [`Outcome`]; a failure comes with its likely cause and its fix. `examination` runs the
//! steps, `report` displays the findings, and each step has a file. `service` examines the process that
//! runs beside this one.
//!
//! # Invariants
//! - A step uses the library's own functions (`diagnostics`), so that a step that passes here works in the service.
//! - A step whose prerequisite failed is skipped, so that one fault is reported once.
//! - No finding contains a token, a key or an assertion.
//! - Redis is left as it was found.
//!
//! Out of scope: fixing anything, and a path to Azure or Redis that the service does not take.

mod assertion;
mod authentication;
mod certificate;
mod claims;
mod clustering;
mod commands;
mod configuration;
mod connect;
mod duration;
mod examination;
mod identity;
mod latency;
pub(crate) mod local;
mod report;
mod resolve;
mod service;
mod tls;
mod token;

use std::time::Duration;

use tokio::time::timeout;

use self::examination::Examination;
pub use self::report::{Finding, Outcome, Report, Step};
use crate::config::{Auth, Config, Environment};
use entra_redis::identity::AccessToken;

/// Time to wait for the replies to commands that were sent already.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The progress of [`examine`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A step has started.
    Started(Step),
    /// A step has finished.
    Finished(&'a Finding),
}

/// Walks the path that the service takes with `environment`, and reports each step to `progress`.
///
/// Each step has a timeout, derived from `REDIS_CONNECT_TIMEOUT`, `REDIS_COMMAND_TIMEOUT` and the credential's; with their
/// defaults, all steps together take at most a minute, and half a minute more with the Azure CLI. Writes one key beside the
/// sample's and removes it. Dropping the future stops the examination; the key then expires within a minute.
pub async fn examine(
    environment: &Environment,
    progress: impl FnMut(Progress<'_>) + Send,
) -> Report {
    let mut run = Examination::new(progress);
    let configuration = async { configuration::check(environment) };
    if let Some(config) = run.step(Step::Configuration, configuration).await {
        walk(environment, &config, &mut run).await;
        let is_path_healthy = run.report().is_healthy();
        let service = service::check(&config, is_path_healthy);
        run.step(Step::LocalService, service).await;
    }
    run.skip_to(Step::LocalService);
    run.into_report()
}

/// From the endpoint's name to the latency of a command.
async fn walk(
    environment: &Environment,
    config: &Config,
    run: &mut Examination<impl FnMut(Progress<'_>) + Send>,
) {
    let network = network(config, run).await;
    run.skip_to(Step::Tls);
    let token = match config.redis.auth {
        Auth::Entra => identity(environment, config, run).await.map(Some),
        Auth::Key(_) | Auth::None => {
            for step in [Step::IdentityEnvironment, Step::Token, Step::Claims] {
                run.not_applicable(step, "REDIS_AUTH is not entra: no token is used");
            }
            Some(None)
        }
    };
    run.skip_to(Step::Claims);
    if let (Some(()), Some(token)) = (network, token) {
        redis(config, token, run).await;
    }
    run.skip_to(Step::Latency);
}

/// From the name to TLS; `None` if a step failed.
async fn network(
    config: &Config,
    run: &mut Examination<impl FnMut(Progress<'_>) + Send>,
) -> Option<()> {
    let addresses = run.step(Step::Dns, resolve::check(config)).await?;
    let connected = connect::check(config, &addresses);
    let connected = run.step(Step::Tcp, connected).await?;
    if config.redis.tls {
        run.step(Step::Tls, tls::check(config, connected)).await
    } else {
        run.not_applicable(Step::Tls, "REDIS_TLS is false");
        Some(())
    }
}

/// From the identity's variables to the token; `None` if a step failed.
async fn identity(
    environment: &Environment,
    config: &Config,
    run: &mut Examination<impl FnMut(Progress<'_>) + Send>,
) -> Option<AccessToken> {
    let credential = async { identity::check(environment, config) };
    let credential = run.step(Step::IdentityEnvironment, credential).await?;
    let token = token::check(config, &credential);
    let token = run.step(Step::Token, token).await?;
    let claims = async { claims::check(config, &token) };
    run.step(Step::Claims, claims).await?;
    Some(token)
}

/// From the authentication to the latency; `None` if a step failed.
async fn redis(
    config: &Config,
    token: Option<AccessToken>,
    run: &mut Examination<impl FnMut(Progress<'_>) + Send>,
) -> Option<()> {
    let expires_at = token.as_ref().map(|token| token.expires_at);
    let pool = authentication::check(config, token);
    let pool = run.step(Step::Authentication, pool).await?;
    let commands = async {
        let clustering = clustering::check(config, &pool);
        run.step(Step::Clustering, clustering).await?;
        let commands = commands::check(config, &pool, expires_at);
        run.step(Step::Commands, commands).await?;
        let latency = latency::check(&pool, expires_at);
        run.step(Step::Latency, latency).await
    };
    let result = commands.await;
    // The process exits soon, and with it whatever is still open.
    let _ = timeout(CLOSE_TIMEOUT, pool.close()).await;
    result
}
