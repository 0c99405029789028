//! The commands of the workbench: `dev` and `emulate`.
//!
//! Both run the emulator; `dev` runs the service against it in the same process, configured as any service would be, by
//! variables. Nothing here is in a production build. What `dev` says meanwhile is `output`'s.

mod output;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::output::{Banner, tell, tell_end, url};
use super::{block_on, print, serve_until};
use crate::{
    app::{self, App},
    config::{Config, Endpoint, Environment, Http},
    emulator::{self, Emulator, FederatedCredential, KeySource},
    lifecycle,
};

/// Options of both commands.
#[derive(Args)]
pub(crate) struct Options {
    /// How long tokens live, such as 5s or 2m; at least 1s
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
    match crate::config::duration(text) {
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
        let ports = [
            ("--identity-port", options.identity_port),
            ("--authority-port", options.authority_port),
            ("--redis-port", options.redis_port),
        ];
        let emulator = Emulator::bind(emulator::Options {
            identity_port: options.identity_port,
            authority_port: options.authority_port,
            redis_port: options.redis_port,
            host_name: options.host_name,
            ..options.both.emulator(host)
        })
        .await
        .map_err(|error| {
            let taken = match &error {
                emulator::Error::Bind { address, source } => taken(*address, source),
                _ => None,
            };
            let option = ports.iter().find(|(_, port)| Some(*port) == taken);
            anyhow::Error::new(error).context(match option {
                Some((option, port)) => format!(
                    "port {port} is taken by another program: give {option} another one, or 0 for a free one"
                ),
                None => "cannot start the emulator".to_owned(),
            })
        })?;
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
        let (bound, listens) = oneshot::channel();
        let announce = |app: &App| {
            let service = url(app.public_address());
            let _ = bound.send(Banner {
                probes: app.admin_address().map_or(service.clone(), url),
                service,
                authority,
                redis_endpoint,
                behind: options.redis,
                lifetime: options.token_lifetime,
                open,
            });
            Ok(())
        };
        let stopping = CancellationToken::new();
        let telling = tokio::spawn(tell(
            listens,
            emulator.controls(),
            is_for_a_person,
            stopping.clone(),
        ));
        let stop = async {
            stop.await;
            stopping.cancel();
        };
        let end = CancellationToken::new();
        let running = tokio::spawn(emulator.run(end.clone()));
        let result = serve_until(config, announce, stop).await;
        telling.abort();
        end.cancel();
        running.await.context("the emulator failed")?;
        result.map_err(with_another_port)?;
        if is_for_a_person {
            tell_end()?;
        }
        Ok(())
    })
}

/// The port, where another program has it.
fn taken(address: SocketAddr, error: &io::Error) -> Option<u16> {
    (error.kind() == io::ErrorKind::AddrInUse).then_some(address.port())
}

/// Says what to do where the service's port is taken: so it is for whoever runs `dev` a second time.
fn with_another_port(error: anyhow::Error) -> anyhow::Error {
    let taken = match error.downcast_ref::<app::Error>() {
        Some(app::Error::Bind {
            variable,
            address,
            source,
        }) => taken(*address, source).map(|port| (*variable, port)),
        _ => None,
    };
    let Some((variable, port)) = taken else {
        return error;
    };
    let next = port.checked_add(1).unwrap_or(port - 1);
    error.context(format!(
        "port {port} is taken by another program: `{variable}={next} entra-redis dev` takes another, {variable}=0 a free one"
    ))
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
