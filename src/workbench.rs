//! The commands of the workbench: `dev` and `emulate`.
//!
//! Both run the emulator; `dev` runs the service against it in the same process, configured as any service would be, by
//! variables. Nothing here is in a production build.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::Context;
use clap::{Args, ValueEnum};
use entra_redis::{
    app::App,
    config::{Config, Endpoint, Environment, Http},
    emulator::{self, Controls, Emulator, FederatedCredential, KeySource},
    lifecycle,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{block_on, complain, print, run};

/// How often `dev` looks whether a token rotated.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Connections sign in again within 5 % of what is left of a token; with short tokens that is a moment.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Options of both commands.
#[derive(Args)]
pub(crate) struct Options {
    /// How long tokens live, such as 5s or 2m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = lifetime)]
    token_lifetime: Duration,
    /// A real Redis behind the emulated front, without TLS or password; without it an in-memory store
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    redis: Option<String>,
    /// Let the emulated Redis be clustered by this policy of Azure's; without it, it is what the server behind it is
    #[arg(long, value_name = "POLICY")]
    clustering_policy: Option<ClusteringPolicy>,
    #[command(flatten)]
    federated: Option<Federated>,
    /// The application's certificate (PEM, RSA): whoever signs with its key gets a token
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
}

/// The policies that are not the server's own doing.
#[derive(Clone, Copy, ValueEnum)]
enum ClusteringPolicy {
    #[value(name = "EnterpriseCluster")]
    EnterpriseCluster,
}

/// A federated identity credential: all three or none.
#[derive(Args)]
#[group(requires_all = ["issuer", "subject", "keys"])]
struct Federated {
    /// Take assertions of this issuer instead of the emulator's own, such as a Kubernetes cluster's
    #[arg(long = "federated-issuer", value_name = "URL", required = false)]
    issuer: String,
    /// Whom they must speak for, such as system:serviceaccount:default:app
    #[arg(long = "federated-subject", value_name = "SUBJECT", required = false)]
    subject: String,
    /// The issuer's keys: a JSON Web Key Set, as from kubectl get --raw /openid/v1/jwks
    #[arg(long = "federated-keys", value_name = "FILE|URL", required = false)]
    keys: KeySource,
}

/// Options of `dev`.
#[derive(Args)]
pub(crate) struct DevOptions {
    #[command(flatten)]
    both: Options,
    /// Open the status page in a browser
    #[arg(long)]
    open: bool,
}

/// Options of `emulate`.
#[derive(Args)]
pub(crate) struct EmulateOptions {
    #[command(flatten)]
    both: Options,
    /// The name by which clients on other machines reach it, such as a Kubernetes Service's
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    host_name: Option<String>,
    /// Port of the managed identity endpoint (http), which also serves /ca.pem; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    identity_port: u16,
    /// Port of the token endpoint (https); 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    authority_port: u16,
    /// Port of Redis (TLS); 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    redis_port: u16,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match entra_redis::config::duration(text) {
        Ok(lifetime) if lifetime >= Duration::from_secs(1) => Ok(lifetime),
        Ok(_) => Err("expected at least 1s: tokens count whole seconds".to_owned()),
        Err(expected) => Err(format!("expected {expected}")),
    }
}

fn host_name(text: &str) -> Result<String, String> {
    match rustls::pki_types::DnsName::try_from(text) {
        Ok(name) => Ok(name.to_lowercase_owned().as_ref().to_owned()),
        Err(_) => Err("expected a host name, such as emulator.default.svc".to_owned()),
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => Ok(endpoint.to_string()),
        Err(error) => Err(error
            .faults()
            .iter()
            .map(|f| format!("expected {}", f.expected))
            .collect()),
    }
}

/// Runs the emulator until told to stop.
pub(crate) fn emulate(mut environment: Environment, options: EmulateOptions) -> anyhow::Result<()> {
    environment.set_default("HOST", "127.0.0.1");
    let host = Http::new(&environment)?.public.ip();
    block_on(async {
        let stop = lifecycle::stop_signal().context("cannot listen for signals")?;
        let emulator = Emulator::bind(emulator::Options {
            identity_port: options.identity_port,
            authority_port: options.authority_port,
            redis_port: options.redis_port,
            host_name: options.host_name,
            ..options.both.emulator(host)
        })
        .await
        .context("cannot start the emulator")?;
        let lines: Vec<String> = emulator
            .variables()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        print(&lines.join("\n"))?;
        let end = CancellationToken::new();
        let mut running = tokio::spawn(emulator.run(end.clone()));
        tokio::select! {
            () = stop => end.cancel(),
            ended = &mut running => return ended.context("the emulator failed"),
        }
        running.await.context("the emulator failed")
    })
}

/// Runs emulator and service until told to stop.
///
/// For a person it is calm: requests, trouble, and one line for each rotation. RUST_LOG says otherwise, and so does
/// LOG_FORMAT=json, which is for programs.
pub(crate) fn dev(mut environment: Environment, options: DevOptions) -> anyhow::Result<()> {
    let DevOptions {
        both: options,
        open,
    } = options;
    environment.set_default("HOST", "127.0.0.1");
    environment.set_default("DRAIN_DELAY", "0s"); // no load balancer must notice
    environment.set_default("LOG_FORMAT", "text");
    let is_for_a_person = environment.is("LOG_FORMAT", "text");
    if is_for_a_person {
        environment.set_default("RUST_LOG", "warn,access=info");
    }
    let host = Http::new(&environment)?.public.ip();
    block_on(async {
        let stop = lifecycle::stop_signal().context("cannot listen for signals")?;
        let emulator = Emulator::bind(options.emulator(host))
            .await
            .context("cannot start the emulator")?;
        // What a shell still has of another deployment must not reach this one.
        for name in [
            "REDIS_TLS",
            "REDIS_KEY",
            "REDIS_CLUSTERING_POLICY",
            "REDIS_USERNAME",
            "REDIS_SCOPE",
        ] {
            environment.unset(name);
        }
        for (name, value) in emulator.variables() {
            environment.set(name, value);
        }
        // The one credential whose every part can be given in this process: azure_identity reads the variables of
        // managed identity from the process itself.
        environment.set("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential");
        environment.set("REDIS_AUTH", "entra");
        let config = Config::new(&environment)?;
        let redis_endpoint = config.redis.endpoint.to_string();
        let authority = config.identity.authority_host.clone();
        let announce = |app: &App| {
            let service = url(app.public_address());
            let probes = app.admin_address().map_or(service.clone(), url);
            let behind = options.redis.as_deref().unwrap_or("a store in memory");
            let lifetime = options.token_lifetime.as_secs();
            let (bold, faint) = (Style::new().bold(), Style::new().dimmed());
            show(&format!(
                "{bold}entra-redis dev{bold:#}: the service, Entra ID and Redis run in this process

  try        {bold}curl {service}/sample{bold:#}
  look       {bold}{service}/{bold:#}
  explore    {service}/swagger
  ready?     {probes}/readyz
  metrics    {probes}/metrics
  Entra ID   {authority}  {faint}(emulated; tokens live {lifetime} s and rotate by themselves){faint:#}
  Redis      {redis_endpoint}  {faint}(emulated front with TLS and sign-in; behind it {behind}){faint:#}

{faint}Ctrl-C stops it. `entra-redis emulate` runs Entra ID and Redis alone, for programs of your own.{faint:#}
"
            ))?;
            if open && let Err(error) = open::that_detached(format!("{service}/")) {
                complain(&format!("entra-redis: cannot open a browser: {error}"));
            }
            Ok(())
        };
        let controls = emulator.controls();
        let telling =
            is_for_a_person.then(|| tokio::spawn(tell_rotations(controls, options.token_lifetime)));
        let end = CancellationToken::new();
        let running = tokio::spawn(emulator.run(end.clone()));
        let result = run(config, announce, stop).await;
        if let Some(telling) = telling {
            telling.abort();
        }
        end.cancel();
        running.await.context("the emulator failed")?;
        result
    })
}

/// One line for each token: how many connections signed in with it in place, as Redis' front counted.
async fn tell_rotations(controls: Controls, lifetime: Duration) {
    let mut told = controls.counts();
    loop {
        sleep(LOOK_EVERY).await;
        let now = controls.counts();
        if now.auth_accepted == told.auth_accepted {
            continue;
        }
        // Sign-ins are staggered: the line waits for the last.
        let mut latest = now;
        loop {
            sleep(SETTLED_AFTER).await;
            let now = controls.counts();
            if now.auth_accepted == latest.auth_accepted {
                break;
            }
            latest = now;
        }
        let signed_in = latest.auth_accepted - told.auth_accepted;
        let opened = latest.connections_opened - told.connections_opened;
        let style = AnsiColor::Cyan.on_default();
        let line = format!(
            "{style}token {}{style:#} lives {} s: {signed_in} sign-ins, {opened} connections opened",
            latest.tokens_issued,
            lifetime.as_secs()
        );
        if show(&line).is_err() {
            return;
        }
        told = latest;
    }
}

/// Prints with colours where there are any to be seen.
fn show(text: &str) -> anyhow::Result<()> {
    let text = match AutoStream::choice(&std::io::stdout()) {
        ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
        _ => text.to_owned(),
    };
    print(&text)
}

/// Where a person on this machine finds a listener.
fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

impl Options {
    fn emulator(&self, host: IpAddr) -> emulator::Options {
        emulator::Options {
            host,
            token_lifetime: self.token_lifetime,
            redis: self.redis.clone(),
            clustering_policy: match self.clustering_policy {
                Some(ClusteringPolicy::EnterpriseCluster) => {
                    emulator::ClusteringPolicy::EnterpriseCluster
                }
                None => emulator::ClusteringPolicy::OfServer,
            },
            federated_credential: self
                .federated
                .as_ref()
                .map(|federated| FederatedCredential {
                    issuer: federated.issuer.clone(),
                    subject: federated.subject.clone(),
                    keys: federated.keys.clone(),
                }),
            client_certificate: self.client_certificate.clone(),
            ..Default::default()
        }
    }
}
