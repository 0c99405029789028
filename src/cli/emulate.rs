//! The command `emulate`: the emulator alone.

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    block_on,
    emulator_options::{EmulatorOptions, port_in_use},
    output::print,
};
use crate::{
    config::{Environment, Http},
    lifecycle,
};
use entra_redis_emulator as emulator;
use entra_redis_emulator::Emulator;

/// Options of `emulate`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    emulator: EmulatorOptions,
    /// Host name for clients on other machines, such as that of a Kubernetes Service
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    host_name: Option<String>,
    /// Port of the managed identity endpoint (http), which also serves /ca.pem; 0 for a free port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    identity_port: u16,
    /// Port of the token endpoint (https); 0 for a free port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    authority_port: u16,
    /// Port of Redis (TLS); 0 for a free port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    redis_port: u16,
}

/// Runs the emulator until SIGTERM or SIGINT, after printing the variables that its clients need.
pub(super) fn emulate(mut environment: Environment, options: Options) -> anyhow::Result<()> {
    environment.set_default("HOST", "127.0.0.1");
    let host = Http::new(&environment)?.public.ip();
    block_on(async {
        let stop = lifecycle::stop_signal().context("cannot listen for signals")?;
        let ports = options.ports();
        let emulator = Emulator::bind(emulator::Options {
            identity_port: options.identity_port,
            authority_port: options.authority_port,
            redis_port: options.redis_port,
            host_name: options.host_name,
            ..options.emulator.on(host)
        })
        .await
        .map_err(|error| with_another_port(error, &ports))?;
        let lines: Vec<String> = emulator
            .variables()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        print(&lines.join("\n"))?;
        let stop_emulator = CancellationToken::new();
        let mut running = tokio::spawn(emulator.run(stop_emulator.clone()));
        tokio::select! {
            () = stop => stop_emulator.cancel(),
            result = &mut running => return result.context("the emulator failed"),
        }
        running.await.context("the emulator failed")
    })
}

impl Options {
    fn ports(&self) -> [(&'static str, u16); 3] {
        [
            ("--identity-port", self.identity_port),
            ("--authority-port", self.authority_port),
            ("--redis-port", self.redis_port),
        ]
    }
}

/// Adds the option to change, if the error is a port in use.
fn with_another_port(error: emulator::Error, ports: &[(&str, u16)]) -> anyhow::Error {
    let in_use = match &error {
        emulator::Error::Bind { address, source } => port_in_use(*address, source),
        _ => None,
    };
    let option = ports.iter().find(|(_, port)| Some(*port) == in_use);
    anyhow::Error::new(error).context(match option {
        Some((option, port)) => format!(
            "port {port} is in use by another program: set {option} to another port, or to 0 for a free one"
        ),
        None => "cannot start the emulator".to_owned(),
    })
}

fn host_name(text: &str) -> Result<String, String> {
    match rustls::pki_types::DnsName::try_from(text) {
        Ok(name) => Ok(name.to_lowercase_owned().as_ref().to_owned()),
        Err(_) => Err("expected a host name, such as emulator.default.svc".to_owned()),
    }
}
