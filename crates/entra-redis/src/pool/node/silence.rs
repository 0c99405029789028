//! Does a connection that let a command go unanswered still live? Asks it, and takes it out of use when it says nothing.
//!
//! A peer that acknowledges bytes and says nothing, such as a proxy whose other side is gone, is found by this alone: the
//! kernel's probes are answered. Until there is an answer, callers are given other connections where there are any.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;

use super::connection::{CloseReason, ConnectionState};

/// A connection that let a command's whole time-out pass gets this long for one more answer: longer than a slow moment of
/// Redis, and short enough that service resumes within 5 s where another connection would be answered.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);

/// Asks the connection each time that `unresponsive` is notified, until it is taken out of use.
pub(super) async fn watch(
    mut session: MultiplexedConnection,
    state: Weak<ConnectionState>,
    unresponsive: Arc<Notify>,
) {
    session.set_response_timeout(LONGEST_SILENCE);
    let ping = redis::cmd("PING");
    loop {
        unresponsive.notified().await;
        let answer = session.send_packed_command(&ping).await;
        let Some(state) = state.upgrade() else { return };
        match answer {
            Ok(_) => state.mark_responsive(), // a refusal is an answer
            Err(_) if state.is_unresponsive() => return state.close(CloseReason::Silent),
            Err(_) => {} // others were answered meanwhile
        }
    }
}
