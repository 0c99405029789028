//! Routing in a cluster: each command goes to the primary of its slot.
//!
//! `slots` holds the slot map, `slot_refresh` keeps it current, `commands` finds a command's keys, `combine` makes one
//! reply of several, `delivery` sends one request and follows redirections, `waiting` waits for a node. Connections are
//! `node`'s: they are opened, re-authenticated and closed exactly as those of a single endpoint.
//!
//! Not redis-rs' cluster client, although it could use our connections: it sends a command again whose reply was lost, so
//! that an INCR counts twice; it holds all commands back while it refreshes the slots, for seconds if a node does not
//! respond; and it sends ASKING and the command after it in two writes, between which another caller's command may come.
//!
//! # Invariants
//! - A command is sent again only if Redis reported that it did not run it (MOVED, ASK, TRYAGAIN, CLUSTERDOWN, LOADING,
//!   MASTERDOWN, READONLY, NOAUTH), or if it was never sent.
//! - A command whose node is unreachable waits for the cluster to name another, at most the command timeout.
//! - Nothing is read from a replica.

mod combine;
mod commands;
mod delivery;
mod request;
mod slot_refresh;
mod slots;
mod waiting;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::{join_all, select_all};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

pub(super) use self::slots::{Ranges, read as read_slots};
use self::{
    commands::{RoutingTarget, target},
    delivery::{Destination, NotRun, not_run},
    request::{Reply, Request},
    slot_refresh::SLOT_REFRESH_EVERY,
    slots::Map,
};
use super::{
    error::Error,
    node::{Node, NodeFactory, NodeHandle, maintainer::Availability},
};
use crate::env::Endpoint;

/// The nodes of a cluster and its slot map.
pub(super) struct Cluster {
    /// The cache's endpoint: the way to the cluster when no other node is known.
    seed: Arc<Node>,
    factory: NodeFactory,
    map: ArcSwap<Map>,
    /// All nodes that are kept open: those in the slot map, and those that a redirection named.
    members: Mutex<HashMap<Endpoint, Member>>,
    /// Notified when the slot map may be old.
    slots_are_old: Notify,
    /// The result of the latest slot refresh: true if a node answered. Changes with each refresh.
    refreshes: watch::Sender<bool>,
    /// Counts the commands without a key, which take turns on the primaries.
    next: AtomicUsize,
    /// The longest time for which a command waits for its node, and for the cluster to serve its slot.
    acquire_timeout: Duration,
}

struct Member {
    handle: NodeHandle,
    /// The latest time at which a slot map or a redirection named the node.
    named: Instant,
}

impl Cluster {
    /// Returns a cluster of these nodes, whose connections open in the background. [`Cluster::refresh_slots`] must run.
    pub(super) fn new(seed: Arc<Node>, factory: NodeFactory, ranges: &Ranges) -> Self {
        let cluster = Self {
            acquire_timeout: factory.access.command_timeout,
            seed,
            factory,
            map: ArcSwap::default(),
            members: Mutex::default(),
            slots_are_old: Notify::new(),
            refreshes: watch::Sender::new(true),
            next: AtomicUsize::new(0),
        };
        cluster.adopt(ranges);
        cluster
    }

    /// Returns the primaries.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.map.load().nodes.clone()
    }

    /// Returns true if a connection to any primary is open.
    pub(super) fn is_open(&self) -> bool {
        self.map.load().nodes.iter().any(|node| node.is_open())
    }

    /// Waits until a connection to any primary is open.
    pub(super) async fn wait_connected(&self) {
        loop {
            let nodes = self.nodes(); // a map names at least one
            let any = select_all(nodes.iter().map(|node| Box::pin(node.wait_connected())));
            if timeout(SLOT_REFRESH_EVERY, any).await.is_ok() {
                return;
            }
            // By now there may be other nodes.
        }
    }

    /// Returns the number of primaries that answer PING, and the number of primaries.
    pub(super) async fn ping(&self) -> (usize, usize) {
        let primaries = self.nodes().len();
        let unreachable = self.unreachable_primaries().await.len();
        (primaries.saturating_sub(unreachable), primaries)
    }

    /// Returns the primaries that do not answer PING, each with the reason. NOPERM is an answer: an access policy may
    /// leave out PING.
    pub(super) async fn unreachable_primaries(&self) -> Vec<(Endpoint, Error)> {
        let ping = redis::cmd("PING");
        let nodes = self.nodes();
        let answers = join_all(nodes.iter().map(async |node| {
            let error = match node.pick() {
                Some(mut connection) => match connection.send(&ping).await {
                    Ok(Value::ServerError(error)) if error.code() != "NOPERM" => {
                        Error::Command(error.into())
                    }
                    Ok(_) => return None,
                    Err(error) => Error::of(error),
                },
                None => match node.availability.borrow().clone() {
                    Availability::Failing(error) => error,
                    _ => Error::Opening,
                },
            };
            Some((node.address.clone(), error))
        }));
        answers.await.into_iter().flatten().collect()
    }

    /// Runs a command at most once, on the node or nodes that it belongs to. An error reply is an `Ok` value.
    pub(super) async fn query(&self, command: &Cmd) -> Result<Value, Error> {
        match target(command) {
            RoutingTarget::Slot(slot) => self.run(Destination::Slot(slot), command, None).await,
            RoutingTarget::Any => self.run(Destination::Any, command, None).await,
            RoutingTarget::Every(how) => {
                let nodes = self.nodes();
                let nodes = nodes.iter().map(Destination::Node);
                let replies = join_all(nodes.map(|node| self.run(node, command, None)));
                combine::combine(how, replies.await, &[])
            }
            RoutingTarget::Split { step, combine } => {
                let parts = combine::split(command, step);
                let replies = join_all(
                    parts
                        .iter()
                        .map(|part| self.run(Destination::Slot(part.slot), &part.command, None)),
                );
                combine::combine(combine, replies.await, &parts)
            }
            RoutingTarget::Nowhere(why) => Err(refused(ErrorKind::Client, why)),
        }
    }

    /// Runs a pipeline, each of its commands at most once. All keys must share a slot; `offset` and `count` are redis-rs'.
    pub(super) async fn query_all(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Vec<Value>, Error> {
        let slot = slot_of_all(pipeline)?;
        let destination = slot.map_or(Destination::Any, Destination::Slot);
        let request = Request::Pipeline(pipeline, offset, count);
        let mut replies = match self.deliver(destination, request, None).await? {
            Reply::Many(replies) => replies,
            Reply::One(reply) => vec![reply],
        };
        if pipeline.is_transaction() || offset > 0 {
            return Ok(replies);
        }
        // Each command has a reply of its own: those that did not run are sent again, one after the other.
        for (command, reply) in pipeline.cmd_iter().zip(&mut replies) {
            let Value::ServerError(error) = &*reply else {
                continue;
            };
            let Some(reason) = not_run(error, &self.seed.address) else {
                continue;
            };
            let redirection = match reason {
                NotRun::Redirected(redirection) => Some(redirection),
                NotRun::NotReady | NotRun::Unauthenticated => None,
            };
            self.slots_are_old.notify_one();
            *reply = self.run(destination, command, redirection).await?;
        }
        Ok(replies)
    }

    /// Returns the node at this address, which is opened if it is new.
    fn node(&self, address: &Endpoint) -> Arc<Node> {
        let mut members = self.members();
        self.member(&mut members, address)
    }

    fn member(&self, members: &mut HashMap<Endpoint, Member>, address: &Endpoint) -> Arc<Node> {
        let member = members.entry(address.clone()).or_insert_with(|| Member {
            handle: self.factory.start(address.clone(), self.factory.size),
            named: Instant::now(),
        });
        member.named = Instant::now();
        member.handle.node.clone()
    }

    fn members(&self) -> MutexGuard<'_, HashMap<Endpoint, Member>> {
        // A panic while the lock is held cannot leave the map half changed: members are inserted and removed whole.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the slot that the keys of a pipeline share.
fn slot_of_all(pipeline: &Pipeline) -> Result<Option<u16>, Error> {
    let mut common = None;
    for command in pipeline.cmd_iter() {
        match target(command) {
            RoutingTarget::Any => {}
            RoutingTarget::Slot(slot) if common.is_none_or(|common| common == slot) => {
                common = Some(slot);
            }
            RoutingTarget::Slot(_) | RoutingTarget::Split { .. } => {
                return Err(refused(
                    ServerErrorKind::CrossSlot.into(),
                    "Received crossed slots in pipeline",
                ));
            }
            RoutingTarget::Every(_) => {
                let why =
                    "a command that runs on every node of a cluster cannot be part of a pipeline";
                return Err(refused(ErrorKind::Client, why));
            }
            RoutingTarget::Nowhere(why) => return Err(refused(ErrorKind::Client, why)),
        }
    }
    Ok(common)
}

fn refused(kind: ErrorKind, why: &'static str) -> Error {
    Error::Command(RedisError::from((kind, why)))
}
