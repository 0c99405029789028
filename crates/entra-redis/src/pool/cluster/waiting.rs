//! Waiting for a connection to a node of the cluster, or for a slot map that names another node.

use std::sync::Arc;

use futures_util::future::OptionFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    super::{
        error::{ConnectError, Error},
        node::{Node, connection::NodeConnection, maintainer::Availability},
    },
    Cluster,
    delivery::Destination,
};

/// The state of a wait.
#[derive(Debug)]
enum Wait {
    /// A connection is open.
    Connected,
    /// Waiting can help; the error is what the caller gets at the deadline.
    Pending(Error),
    /// Waiting cannot help.
    Failed(Error),
}

/// The consequence of a slot refresh for a wait.
#[derive(Debug, PartialEq)]
enum AfterRefresh {
    /// The new map may name another node.
    Route,
    Wait,
    Fail,
}

/// Decides the state of a wait for a node; `None`: no node serves the destination.
fn state(
    availability: Option<Availability>,
    is_stopped: bool,
    no_primary: impl FnOnce() -> Error,
) -> Wait {
    match availability {
        Some(Availability::Open) => Wait::Connected,
        Some(Availability::Opening) => Wait::Pending(Error::Opening),
        Some(Availability::Failing(Error::NoToken)) => Wait::Failed(Error::NoToken),
        Some(Availability::Failing(error)) => Wait::Pending(error),
        Some(Availability::Closed) if is_stopped => Wait::Failed(Error::Closed),
        Some(Availability::Closed) | None => Wait::Pending(no_primary()),
    }
}

fn after_refresh(was_answered: bool, error: &Error) -> AfterRefresh {
    match error {
        _ if was_answered => AfterRefresh::Route,
        // An attempt is in progress; the node reports its end.
        Error::Opening => AfterRefresh::Wait,
        // No node of the cluster answers: waiting cannot help.
        _ => AfterRefresh::Fail,
    }
}

impl Cluster {
    /// Waits for a connection to `node`. `Ok(None)`: there is a new slot map, which may name another node.
    pub(super) async fn wait_for(
        &self,
        destination: Destination<'_>,
        node: Option<&Node>,
        deadline: Instant,
    ) -> Result<Option<NodeConnection>, Error> {
        let mut refreshes = self.refreshes.subscribe();
        let mut availability = node.map(|node| node.availability.subscribe());
        loop {
            let now = availability.as_mut();
            let now = now.map(|availability| availability.borrow_and_update().clone());
            let stopped = self.factory.stop.is_cancelled();
            let error = match state(now, stopped, || self.no_primary(destination)) {
                Wait::Connected => match node.and_then(Node::pick) {
                    Some(connection) => return Ok(Some(connection)),
                    None => Error::Opening, // it has just closed; a change follows
                },
                Wait::Pending(error) => error,
                Wait::Failed(error) => return Err(error),
            };
            if !matches!(error, Error::Opening) {
                self.slots_are_old.notify_one();
            }
            let changed = OptionFuture::from(availability.as_mut().map(watch::Receiver::changed));
            tokio::select! {
                Some(_) = changed => {}
                _ = refreshes.changed() => {
                    match after_refresh(*refreshes.borrow_and_update(), &error) {
                        AfterRefresh::Route => return Ok(None),
                        AfterRefresh::Wait => {}
                        AfterRefresh::Fail => return Err(error),
                    }
                }
                () = sleep_until(deadline) => {
                    // An attempt that takes this long may be to a node that has left the cluster.
                    self.slots_are_old.notify_one();
                    return Err(error);
                }
            }
        }
    }

    fn no_primary(&self, destination: Destination<'_>) -> Error {
        Error::Unavailable(Arc::new(ConnectError::NoPrimary {
            endpoint: self.seed.address.clone(),
            slot: match destination {
                Destination::Slot(slot) => Some(slot),
                Destination::Any | Destination::Node(_) => None,
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_follows_from_the_nodes_availability() {
        let flapping = || {
            let endpoint = crate::env::Endpoint::announced("10.0.0.4", 8501);
            Error::Unavailable(Arc::new(ConnectError::Flapping { endpoint }))
        };
        for (availability, is_stopped, expected) in [
            (Some(Availability::Open), false, "Connected"),
            (Some(Availability::Opening), false, "Pending opening"),
            (
                Some(Availability::Failing(Error::NoToken)),
                false,
                "Failed no_token",
            ),
            (
                Some(Availability::Failing(flapping())),
                false,
                "Pending unavailable",
            ),
            (Some(Availability::Closed), true, "Failed closed"),
            (Some(Availability::Closed), false, "Pending no primary"),
            (None, false, "Pending no primary"),
            (None, true, "Pending no primary"),
            // The pool's end reaches the wait when the node reports that it is closed.
            (Some(Availability::Open), true, "Connected"),
            (Some(Availability::Opening), true, "Pending opening"),
            (
                Some(Availability::Failing(flapping())),
                true,
                "Pending unavailable",
            ),
        ] {
            let row = format!("{availability:?}, stopped {is_stopped}");
            // The pool is closed in no other row, so that its label marks the missing primary.
            let found = match state(availability, is_stopped, || Error::Closed) {
                Wait::Connected => "Connected".to_owned(),
                Wait::Pending(Error::Closed) => "Pending no primary".to_owned(),
                Wait::Pending(error) => format!("Pending {}", error.label()),
                Wait::Failed(error) => format!("Failed {}", error.label()),
            };
            assert_eq!(found, expected, "{row}");
        }
    }

    #[test]
    fn a_refresh_ends_a_wait_unless_a_connection_is_being_opened() {
        let endpoint = crate::env::Endpoint::announced("10.0.0.4", 8501);
        let unavailable = Error::Unavailable(Arc::new(ConnectError::Flapping { endpoint }));
        for (was_answered, error, expected) in [
            (true, Error::Opening, AfterRefresh::Route),
            (true, unavailable.clone(), AfterRefresh::Route),
            (false, Error::Opening, AfterRefresh::Wait),
            (false, unavailable, AfterRefresh::Fail),
        ] {
            assert_eq!(after_refresh(was_answered, &error), expected, "{error}");
        }
    }
}
