//! Detects connections whose peer no longer responds: probes them after a command has timed out, and closes those that do
//! not reply.
//!
//! A peer that acknowledges bytes but sends none, such as a proxy that has lost its backend, is detected by this alone: it
//! answers the kernel's keep-alive probes. Until it replies, callers get other connections if there are any.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;

use super::connection::{CloseReason, ConnectionState};

/// The timeout of the probe: longer than a slow moment of Redis, and short enough that service resumes within 5 s where
/// another connection would get replies.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Probes the connection each time that `unresponsive` is notified, until it is closed.
pub(super) async fn watch(
    mut session: MultiplexedConnection,
    state: Weak<ConnectionState>,
    unresponsive: Arc<Notify>,
) {
    session.set_response_timeout(PROBE_TIMEOUT);
    let ping = redis::cmd("PING");
    loop {
        unresponsive.notified().await;
        let answer = session.send_packed_command(&ping).await;
        let Some(state) = state.upgrade() else { return };
        match answer {
            Ok(_) => state.mark_responsive(), // an error reply is a reply
            Err(_) if state.is_unresponsive() => return state.close(CloseReason::Silent),
            Err(_) => {} // other commands got replies meanwhile
        }
    }
}
