//! Keeps the map of a cluster fresh: asks for the slots when somebody doubts it, and now and then.

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
    config::Endpoint,
    pool::node::{connection::NodeConnection, maintainer::Availability},
};

/// How often the cluster is asked though nobody doubts the map: a node that left is forgotten, a new one is opened
/// before a command needs it.
pub(super) const SURVEY_EVERY: Duration = Duration::from_secs(30);

/// The least time between two surveys: slots on their way bring a redirection each.
const SURVEY_PAUSE: Duration = Duration::from_millis(50);

/// Nodes asked at the same time; the first answer counts.
const NODES_ASKED: usize = 3;

/// A node that is not in the map is closed when it cannot be reached, or when nothing named it for this long: slots may
/// be on their way to a new one, which serves none at first and is named by redirections alone.
const FORGET_AFTER: Duration = Duration::from_secs(60);

impl Cluster {
    /// Surveys until dropped.
    pub(in crate::pool) async fn survey(&self) -> std::convert::Infallible {
        let mut was_answered = true;
        loop {
            tokio::select! {
                () = self.doubt.notified() => {}
                () = sleep(SURVEY_EVERY) => {}
            }
            let ranges = self.ask().await;
            match (&ranges, was_answered) {
                (None, true) => warn!("no node of the cluster says who serves which slot"),
                (Some(_), false) => info!("the cluster says again who serves which slot"),
                _ => {}
            }
            was_answered = ranges.is_some();
            if let Some(ranges) = &ranges {
                self.adopt(ranges);
            }
            self.news.send_replace(was_answered);
            sleep(SURVEY_PAUSE).await;
        }
    }

    /// Who serves what, as the first of a few nodes says; `None` if none of them does in time.
    async fn ask(&self) -> Option<Ranges> {
        let mut nodes = self.nodes();
        fastrand::shuffle(&mut nodes);
        nodes.push(self.seed.clone());
        let open = nodes
            .iter()
            .filter_map(|node| Some((node.pick()?, node.address.clone())));
        let mut asked = JoinSet::new();
        for (connection, address) in open.take(NODES_ASKED) {
            asked.spawn(timeout(self.patience, slots_of(connection, address)));
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(Some(ranges))) = answer {
                return Some(ranges);
            }
        }
        None
    }

    /// Takes over who serves what: opens the nodes that are new and closes those that nothing names any more.
    pub(super) fn adopt(&self, ranges: &Ranges) {
        let mut members = self.members();
        let before: HashSet<Endpoint> = self.addresses();
        let map = Map::new(ranges, |address| self.member(&mut members, address));
        self.map.store(map.into());
        let now = self.addresses();
        if before != now {
            info!(redis.nodes = ?now.iter().map(ToString::to_string).collect::<Vec<_>>(), "the cluster's masters");
        }
        members.retain(|address, member| {
            let is_failing = matches!(
                *member.running.node.availability.borrow(),
                Availability::Failing(_)
            );
            let stays =
                now.contains(address) || (member.named.elapsed() < FORGET_AFTER && !is_failing);
            if !stays {
                debug!(redis.node = %address, "a node is no part of the cluster any more");
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
