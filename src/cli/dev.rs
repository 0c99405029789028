//! The command `dev`: emulator and service in one process.
//!
//! The service is configured by variables, as any other deployment is. Nothing here is in a production build.

mod console;

use anyhow::Context;
use clap::Args;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::console::{Banner, print_stopped, report, url};
use super::{
    block_on,
    emulator_options::{EmulatorOptions, port_in_use},
    serve::serve_until,
};
use crate::{
    app::{self, App},
    config::{Config, Environment, Http},
    lifecycle,
};
use entra_redis_emulator::{Controls, Emulator};

/// Variables that a shell may still have from another deployment, and that must not reach this one.
const UNSET: [&str; 5] = [
    "REDIS_TLS",
    "REDIS_KEY",
    "REDIS_CLUSTERING_POLICY",
    "REDIS_USERNAME",
    "REDIS_SCOPE",
];

/// Options of `dev`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    emulator: EmulatorOptions,
    /// Open the status page in a browser
    #[arg(long)]
    open: bool,
}

/// Runs emulator and service until SIGTERM or SIGINT.
///
/// The log is short by default: requests, warnings, and one line for each token. `RUST_LOG` changes that, and so does
/// `LOG_FORMAT=json`, which is for programs.
pub(super) fn dev(mut environment: Environment, options: Options) -> anyhow::Result<()> {
    environment.set_default("HOST", "127.0.0.1");
    environment.set_default("DRAIN_DELAY", "0s"); // no load balancer must notice
    environment.set_default("LOG_FORMAT", "text");
    let for_people = environment.is("LOG_FORMAT", "text");
    if for_people {
        environment.set_default("RUST_LOG", "warn,access=info");
    }
    let host = Http::new(&environment)?.public.ip();
    block_on(async {
        let stop = lifecycle::stop_signal().context("cannot listen for signals")?;
        let emulator = Emulator::bind(options.emulator.on(host))
            .await
            .context("cannot start the emulator")?;
        configure(&mut environment, emulator.variables());
        let config = Config::new(&environment)?;
        let controls = emulator.controls();
        let stop_emulator = CancellationToken::new();
        let running = tokio::spawn(emulator.run(stop_emulator.clone()));
        let result = run_service(config, options, controls, for_people, stop).await;
        stop_emulator.cancel();
        running.await.context("the emulator failed")?;
        result.map_err(with_another_port)?;
        if for_people {
            print_stopped()?;
        }
        Ok(())
    })
}

/// Points the service at the emulator.
fn configure(
    environment: &mut Environment,
    variables: impl IntoIterator<Item = (&'static str, String)>,
) {
    for name in UNSET {
        environment.unset(name);
    }
    for (name, value) in variables {
        environment.set(name, value);
    }
    // The one credential whose every part can be given in this process: azure_identity reads the variables of managed
    // identity from the process itself.
    environment.set("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential");
    environment.set("REDIS_AUTH", "entra");
}

/// Runs the service until `stop`; the banner is printed once it listens.
async fn run_service(
    config: Config,
    options: Options,
    controls: Controls,
    for_people: bool,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let redis_endpoint = config.redis.endpoint.to_string();
    let authority = config.identity.authority_host.clone();
    let (bound, banner) = oneshot::channel();
    let announce = |app: &App| {
        let service = url(app.public_address());
        let _ = bound.send(Banner {
            probes: app.admin_address().map_or(service.clone(), url),
            service,
            authority,
            redis_endpoint,
            store: options.emulator.redis,
            token_lifetime: options.emulator.token_lifetime,
            opens_browser: options.open,
        });
        Ok(())
    };
    let stopping = CancellationToken::new();
    let console = tokio::spawn(report(banner, controls, for_people, stopping.clone()));
    let stop = async {
        stop.await;
        stopping.cancel();
    };
    let result = serve_until(config, announce, stop).await;
    console.abort();
    result
}

/// Adds what to do when the service's port is in use, as it is when `dev` runs already.
fn with_another_port(error: anyhow::Error) -> anyhow::Error {
    let Some(app::Error::Bind {
        variable,
        address,
        source,
    }) = error.downcast_ref::<app::Error>()
    else {
        return error;
    };
    let Some(port) = port_in_use(*address, source) else {
        return error;
    };
    let next = port.checked_add(1).unwrap_or(port - 1);
    let context = format!(
        "port {port} is in use by another program: use another one with `{variable}={next} entra-redis dev`, or a free one with {variable}=0"
    );
    error.context(context)
}
