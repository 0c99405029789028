//! The output of `dev` for people: the banner, a line for each token, and the end. Log lines are not part of it.

use std::{io::IsTerminal, net::SocketAddr, time::Duration};

use anstyle::{AnsiColor, Style};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::super::output::{print_error, print_styled};
use crate::doctor::local;
use entra_redis_emulator::{Controls, Counts};

/// Interval between two looks at the emulator's counters.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Re-authentications of one token are spread over 5 % of its lifetime; with short tokens that is less than this.
const QUIET_PERIOD: Duration = Duration::from_millis(500);
/// Time after which a shutdown in progress is explained.
const SLOW_SHUTDOWN: Duration = Duration::from_secs(1);
/// Time that the banner waits for the first authentication, so that the command it shows works at once.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(3);

/// The content of the banner, known once the service listens.
pub(super) struct Banner {
    pub(super) service: String,
    pub(super) probes: String,
    pub(super) authority: String,
    pub(super) redis_endpoint: String,
    /// The real Redis, where there is one.
    pub(super) store: Option<String>,
    pub(super) token_lifetime: Duration,
    /// True if the status page is to be opened in a browser.
    pub(super) opens_browser: bool,
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
        let store = self.store.as_deref().unwrap_or("an in-memory store");
        let lifetime = self.token_lifetime.as_secs();
        let browser = if self.opens_browser {
            "opens in a browser"
        } else {
            "--open opens it in a browser"
        };
        let (bold, faint) = (Style::new().bold(), Style::new().dimmed());
        format!(
            "{bold}entra-redis dev{bold:#}: the service, Entra ID and Redis run in this process

  try        {bold}curl {service}/sample{bold:#}
  status     {bold}{service}/{bold:#}  {faint}({browser}){faint:#}
  API        {service}/swagger
  readiness  {probes}/readyz
  metrics    {probes}/metrics
  Entra ID   {authority}  {faint}(emulated; tokens expire after {lifetime} s and are rotated){faint:#}
  Redis      {redis_endpoint}  {faint}(emulated proxy with TLS and authentication in front of {store}){faint:#}

{faint}Ctrl-C stops it. `entra-redis emulate` runs Entra ID and Redis alone, for programs of your own.{faint:#}

"
        )
    }
}

/// Prints the banner once the service listens. For people it also prints a line for each token, and explains a shutdown
/// that takes long.
pub(super) async fn report(
    banner: oneshot::Receiver<Banner>,
    controls: Controls,
    for_people: bool,
    stopping: CancellationToken,
) {
    let Ok(banner) = banner.await else {
        return; // the service does not listen; the caller reports why
    };
    let before = Counts::default();
    let authenticated = async {
        while controls.counts().auth_accepted == before.auth_accepted {
            sleep(POLL_INTERVAL / 4).await;
        }
    };
    let _ = timeout(AUTHENTICATION_TIMEOUT, authenticated).await;
    if print_styled(&banner.text()).is_err() {
        return;
    }
    if banner.opens_browser
        && let Err(error) = open::that_detached(format!("{}/", banner.service))
    {
        print_error(&format!("entra-redis: cannot open a browser: {error}"));
    }
    if !for_people {
        return;
    }
    stopping
        .run_until_cancelled(report_tokens(controls, before, banner.token_lifetime))
        .await;
    stopping.cancelled().await;
    sleep(SLOW_SHUTDOWN).await;
    let _ = print_styled(
        "still draining: waiting for open requests to finish; press Ctrl-C again to exit immediately\n",
    );
}

/// Prints the last line, below the ^C that a terminal wrote.
pub(super) fn print_stopped() -> anyhow::Result<()> {
    let below = if std::io::stdout().is_terminal() {
        "\n"
    } else {
        ""
    };
    Ok(print_styled(&format!(
        "{below}entra-redis dev has stopped\n"
    ))?)
}

/// Prints a line for each token, with the authentications and new connections that the emulator counted.
async fn report_tokens(controls: Controls, mut last_reported: Counts, lifetime: Duration) {
    loop {
        sleep(POLL_INTERVAL).await;
        if controls.counts().auth_accepted == last_reported.auth_accepted {
            continue;
        }
        let counts = wait_stable(&controls).await;
        let authenticated = counts.auth_accepted - last_reported.auth_accepted;
        let opened = counts.connections_opened - last_reported.connections_opened;
        let style = AnsiColor::Cyan.on_default();
        let line = format!(
            "{style}token {}{style:#} valid for {} s: {authenticated} authentications, {opened} connections opened\n",
            counts.tokens_issued,
            lifetime.as_secs()
        );
        if print_styled(&line).is_err() {
            return;
        }
        last_reported = counts;
    }
}

/// Waits until no connection has authenticated for [`QUIET_PERIOD`]: re-authentications are staggered.
async fn wait_stable(controls: &Controls) -> Counts {
    let mut latest = controls.counts();
    loop {
        sleep(QUIET_PERIOD).await;
        let counts = controls.counts();
        if counts.auth_accepted == latest.auth_accepted {
            return latest;
        }
        latest = counts;
    }
}

/// Returns the URL by which a program on this machine reaches a listener.
pub(super) fn url(address: SocketAddr) -> String {
    format!("http://{}", local::loopback_if_unspecified(address))
}
