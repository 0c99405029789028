//! What `dev` tells a person: what to copy and open, each rotation, what the end waits for, and that it has ended.
//!
//! Log lines are not its matter. What always holds: escapes are written where they are understood and nowhere else.

use std::{
    io::IsTerminal,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::super::{complain, print};
use crate::emulator::{Controls, Counts};

/// How often `dev` looks whether a token rotated.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Connections sign in again within 5 % of what is left of a token; with short tokens that is a moment.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// How long a person waits for the end before being told what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the banner waits for the first sign-in, so that what it says to copy works at once.
const SIGN_IN_LIMIT: Duration = Duration::from_secs(3);

/// What is known once the service listens.
pub(super) struct Banner {
    pub(super) service: String,
    pub(super) probes: String,
    pub(super) authority: String,
    pub(super) redis_endpoint: String,
    /// The real Redis, where there is one.
    pub(super) behind: Option<String>,
    pub(super) lifetime: Duration,
    /// Whether the status page is to be opened.
    pub(super) open: bool,
}

impl Banner {
    fn text(&self) -> String {
        let Self {
            service,
            probes,
            authority,
            redis_endpoint,
            ..
        } = self;
        let behind = self.behind.as_deref().unwrap_or("a store in memory");
        let lifetime = self.lifetime.as_secs();
        let looks = match self.open {
            true => "in the browser in a moment",
            false => "--open opens it in a browser",
        };
        let (bold, faint) = (Style::new().bold(), Style::new().dimmed());
        format!(
            "{bold}entra-redis dev{bold:#}: the service, Entra ID and Redis run in this process

  try        {bold}curl {service}/sample{bold:#}
  look       {bold}{service}/{bold:#}  {faint}({looks}){faint:#}
  explore    {service}/swagger
  ready?     {probes}/readyz
  metrics    {probes}/metrics
  Entra ID   {authority}  {faint}(emulated; tokens live {lifetime} s and rotate by themselves){faint:#}
  Redis      {redis_endpoint}  {faint}(emulated front with TLS and sign-in; behind it {behind}){faint:#}

{faint}Ctrl-C stops it. `entra-redis emulate` runs Entra ID and Redis alone, for programs of your own.{faint:#}
"
        )
    }
}

/// What is told until the end. Rotations are for a person; so is what an end that takes long waits for.
pub(super) async fn tell(
    listens: oneshot::Receiver<Banner>,
    controls: Controls,
    is_for_a_person: bool,
    stopping: CancellationToken,
) {
    let Ok(banner) = listens.await else {
        return; // it does not listen, and whoever called says why
    };
    let before = Counts::default();
    let signed_in = async {
        while controls.counts().auth_accepted == before.auth_accepted {
            sleep(LOOK_EVERY / 4).await;
        }
    };
    let _ = timeout(SIGN_IN_LIMIT, signed_in).await;
    if show(&banner.text()).is_err() {
        return;
    }
    if banner.open
        && let Err(error) = open::that_detached(format!("{}/", banner.service))
    {
        complain(&format!("entra-redis: cannot open a browser: {error}"));
    }
    if !is_for_a_person {
        return;
    }
    stopping
        .run_until_cancelled(tell_rotations(controls, before, banner.lifetime))
        .await;
    stopping.cancelled().await;
    sleep(PATIENCE).await;
    let _ = show("still draining: open requests are finished first; Ctrl-C again ends it at once");
}

/// The last line, below the ^C that a terminal wrote.
pub(super) fn tell_end() -> anyhow::Result<()> {
    let below = match std::io::stdout().is_terminal() {
        true => "\n",
        false => "",
    };
    show(&format!("{below}entra-redis dev has stopped"))
}

/// One line for each token: how many connections signed in with it in place, as Redis' front counted.
async fn tell_rotations(controls: Controls, mut told: Counts, lifetime: Duration) {
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
pub(super) fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}
