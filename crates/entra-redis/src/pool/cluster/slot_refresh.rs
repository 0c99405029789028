//! Slot refresh: reads the slot map from the cluster when it may be old, and periodically.

use std::{collections::HashSet, time::Duration};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Cluster, Ranges,
    slots::{self, Map},
};
use crate::{
    env::Endpoint,
    pool::node::{connection::NodeConnection, maintainer::Availability},
};

/// Time between two slot refreshes without a reason: a node that left is closed, a new one is opened before a command
/// needs it.
pub(super) const SLOT_REFRESH_EVERY: Duration = Duration::from_secs(30);

/// The least time between two slot refreshes: while slots move, each causes a redirection.
const SLOT_REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// Nodes that are asked at the same time; the first answer counts.
const NODES_ASKED: usize = 3;

/// A node that is not in the slot map is closed when it is unreachable, or when nothing has named it for this long: while
/// slots move to a new node, it serves none at first and only redirections name it.
const FORGET_AFTER: Duration = Duration::from_secs(60);

impl Cluster {
    /// Refreshes the slot map until dropped.
    pub(in crate::pool) async fn refresh_slots(&self) -> std::convert::Infallible {
        let mut was_answered = true;
        loop {
            tokio::select! {
                () = self.slots_are_old.notified() => {}
                () = sleep(SLOT_REFRESH_EVERY) => {}
            }
            let ranges = self.ask().await;
            match (&ranges, was_answered) {
                (None, true) => warn!("slot map refresh failed: no node answered CLUSTER SLOTS"),
                (Some(_), false) => info!("slot map refreshed"),
                _ => {}
            }
            was_answered = ranges.is_some();
            if let Some(ranges) = &ranges {
                self.adopt(ranges);
            }
            self.refreshes.send_replace(was_answered);
            sleep(SLOT_REFRESH_PAUSE).await;
        }
    }

    /// Returns the first answer of a few nodes to CLUSTER SLOTS; `None` if none of them answers in time.
    async fn ask(&self) -> Option<Ranges> {
        let mut nodes = self.nodes();
        fastrand::shuffle(&mut nodes);
        nodes.push(self.seed.clone());
        let open = nodes
            .iter()
            .filter_map(|node| Some((node.pick()?, node.address.clone())));
        let mut asked = JoinSet::new();
        for (connection, address) in open.take(NODES_ASKED) {
            asked.spawn(timeout(self.acquire_timeout, slots_of(connection, address)));
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(Some(ranges))) = answer {
                return Some(ranges);
            }
        }
        None
    }

    /// Adopts a slot map: opens new nodes and closes those that nothing names any more.
    pub(super) fn adopt(&self, ranges: &Ranges) {
        let mut members = self.members();
        let before: HashSet<Endpoint> = self.addresses();
        let map = Map::new(ranges, |address| self.member(&mut members, address));
        self.map.store(map.into());
        let now = self.addresses();
        if before != now {
            let primaries: Vec<_> = now.iter().map(ToString::to_string).collect();
            info!(redis.primaries = ?primaries, "primaries of the cluster changed");
        }
        members.retain(|address, member| {
            let is_failing = matches!(
                *member.handle.node.availability.borrow(),
                Availability::Failing(_)
            );
            let stays =
                now.contains(address) || (member.named.elapsed() < FORGET_AFTER && !is_failing);
            if !stays {
                debug!(server.address = %address, "node left the cluster");
            }
            stays
        });
    }

    fn addresses(&self) -> HashSet<Endpoint> {
        let map = self.map.load();
        map.nodes.iter().map(|node| node.address.clone()).collect()
    }
}

async fn slots_of(mut connection: NodeConnection, address: Endpoint) -> Option<Ranges> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let answer = connection.send(&command).await.ok()?;
    slots::read(&answer, &address).filter(|ranges| !ranges.is_empty())
}
