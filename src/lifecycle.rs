//! Starting, serving or draining? The one place that knows, and the signals that change it.
//!
//! `app` moves it on; `http` reads it to answer `/readyz` and to tell clients of HTTP/1 to come back on another
//! connection. What always holds: it only moves forward.

use std::sync::Arc;

use tokio::sync::watch;

/// Where the process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not listening yet.
    Starting,
    /// Taking requests.
    Serving,
    /// Told to stop: finishing what is open.
    Draining,
}

/// A handle to the phase; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle(Arc<watch::Sender<Phase>>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Starting)))
    }
}

impl Lifecycle {
    /// The phase now.
    pub(crate) fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Moves on to a later phase; an earlier one changes nothing.
    pub(crate) fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let moves = phase > *now;
            *now = phase.max(*now);
            moves
        });
    }
}

/// Waits for SIGTERM or SIGINT. From then on the next one ends the process at once with exit code 1: somebody insists.
///
/// # Errors
/// The handlers cannot be installed.
#[cfg(unix)]
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let mut either = async move || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = either().await;
        tracing::info!(signal = name, "told to stop");
        tokio::spawn(async move {
            let name = either().await;
            tracing::warn!(signal = name, "told to stop again, ending at once");
            std::process::exit(1);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_only_moves_forward() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.enter(Phase::Draining);
        lifecycle.clone().enter(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }
}
