//! The phase of the process (starting, serving or draining), and the signals that change it.
//!
//! `app` advances it; `http` reads it to answer `/readyz` and to ask clients of HTTP/1 to reconnect.
//!
//! # Invariants
//! - The phase only advances.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not listening yet.
    Starting,
    /// Serving requests.
    Serving,
    /// Shutting down: open requests are finished.
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
    /// Returns the phase now.
    pub(crate) fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Advances to a later phase; an earlier one changes nothing.
    pub(crate) fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let advances = phase > *now;
            *now = phase.max(*now);
            advances
        });
    }
}

/// Waits for SIGTERM or SIGINT. From then on a second one exits immediately, with code 1.
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
        tracing::info!(signal = name, "received shutdown signal");
        tokio::spawn(async move {
            let name = either().await;
            tracing::warn!(signal = name, "received second signal, exiting immediately");
            std::process::exit(1);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_only_advances() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.enter(Phase::Draining);
        lifecycle.clone().enter(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }
}
