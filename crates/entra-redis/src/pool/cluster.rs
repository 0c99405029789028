//! Which node does a command belong to? Sends each to the master of its slot and follows where the cluster points.
//!
//! `slots` holds who serves what, `survey` keeps that fresh, `commands` knows where a command's keys are, `combine` makes
//! one answer of several. Connections are `node`'s: every one is opened, signed in again and given up exactly as the
//! one endpoint's are without a cluster.
//!
//! Not redis-rs' cluster client, whose connections could be ours: it sends a command again whose answer was lost, so
//! that an INCR counts twice; it holds all commands back while it asks for the slots, for seconds where a node says
//! nothing; and it sends ASKING and the command after it apart, between which another caller's command may come.
//!
//! What always holds: a command is sent again only where Redis said that it did not run it (MOVED, ASK, TRYAGAIN,
//! CLUSTERDOWN, LOADING, MASTERDOWN, READONLY, NOAUTH), or where it was never sent; a command whose node is away waits
//! for the cluster to name another, at most the command time-out; a replica is never read from.

mod combine;
mod commands;
mod slots;
mod survey;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::{join_all, select_all};
use metrics::counter;
use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerError, ServerErrorKind, Value,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

pub(super) use self::slots::{Ranges, read as read_slots};
use self::{
    commands::{Target, target},
    slots::Map,
    survey::SURVEY_EVERY,
};
use super::{
    error::{ConnectError, Error},
    instruments,
    node::{Node, NodeFactory, NodeHandle, connection::NodeConnection, maintainer::Availability},
    trace::waiting,
};
use crate::config::Endpoint;

/// Waits before a command is sent again that Redis could not run just now.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Redirections in a row that are followed at once: one and another for a slot on its way are usual.
const REDIRECTIONS_AT_ONCE: u32 = 4;

/// The nodes of a cluster and who serves what.
pub(super) struct Cluster {
    /// The cache's endpoint: the way to the cluster where no node is known any more.
    seed: Arc<Node>,
    starter: NodeFactory,
    map: ArcSwap<Map>,
    /// All nodes that are kept open: those in the map, and those a redirection named.
    members: Mutex<HashMap<Endpoint, Member>>,
    /// Rung by whoever saw that the map may be old.
    doubt: Notify,
    /// Whether the latest survey was answered; changes with each.
    news: watch::Sender<bool>,
    /// Whose turn it is among commands without a key.
    next: AtomicUsize,
    /// How long a command waits for its node, and for the cluster to be of one mind.
    patience: Duration,
}

struct Member {
    running: NodeHandle,
    /// When a map or a redirection named it last.
    named: Instant,
}

/// To whom.
#[derive(Clone, Copy)]
enum To<'a> {
    /// The master of this slot.
    Slot(u16),
    /// Some master.
    Any,
    /// This one and no other.
    Node(&'a Arc<Node>),
}

/// What is sent.
#[derive(Clone, Copy)]
enum Work<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline, usize, usize),
}

enum Reply {
    One(Value),
    Many(Vec<Value>),
}

/// Where a node says that a command must go instead.
struct Redirection {
    address: Endpoint,
    /// The slot is on its way there: only a command behind ASKING is served.
    asking: bool,
}

/// What an error of Redis' says about a command that it did not run.
enum NotRun {
    Elsewhere(Redirection),
    /// The map is old, or the node not ready.
    Later,
    /// The connection is not signed in, and has taken itself out of use.
    NotSignedIn,
}

impl Cluster {
    /// A cluster of these nodes. Their connections open in the background; somebody must run [`Cluster::survey`].
    pub(super) fn new(seed: Arc<Node>, starter: NodeFactory, ranges: &Ranges) -> Self {
        let cluster = Self {
            patience: starter.access.command_timeout,
            seed,
            starter,
            map: ArcSwap::default(),
            members: Mutex::default(),
            doubt: Notify::new(),
            news: watch::Sender::new(true),
            next: AtomicUsize::new(0),
        };
        cluster.adopt(ranges);
        cluster
    }

    /// The masters.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.map.load().nodes.clone()
    }

    /// Whether a connection to any master is open.
    pub(super) fn is_open(&self) -> bool {
        self.map.load().nodes.iter().any(|node| node.is_open())
    }

    /// Waits until a connection to any master is open.
    pub(super) async fn opened(&self) {
        loop {
            let nodes = self.nodes(); // a map names at least one
            let any = select_all(nodes.iter().map(|node| Box::pin(node.wait_connected())));
            if timeout(SURVEY_EVERY, any).await.is_ok() {
                return;
            }
            // By now there may be other nodes.
        }
    }

    /// How many masters answer PING, and how many there are.
    pub(super) async fn ping(&self) -> (usize, usize) {
        let masters = self.nodes().len();
        let silent = self.in_trouble().await.len();
        (masters.saturating_sub(silent), masters)
    }

    /// The masters that do not answer PING, and why. NOPERM is an answer: a user's rules may leave out PING.
    pub(super) async fn in_trouble(&self) -> Vec<(Endpoint, Error)> {
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

    /// Runs a command at most once, on the node or nodes that it belongs to. A server's error is a value here.
    pub(super) async fn query(&self, command: &Cmd) -> Result<Value, Error> {
        match target(command) {
            Target::Slot(slot) => self.one(To::Slot(slot), command, None).await,
            Target::Any => self.one(To::Any, command, None).await,
            Target::Every(how) => {
                let nodes = self.nodes();
                let answers = join_all(
                    nodes
                        .iter()
                        .map(|node| self.one(To::Node(node), command, None)),
                );
                combine::combine(how, answers.await, &[])
            }
            Target::Split { step, combine } => {
                let parts = combine::split(command, step);
                let answers = join_all(
                    parts
                        .iter()
                        .map(|part| self.one(To::Slot(part.slot), &part.command, None)),
                );
                combine::combine(combine, answers.await, &parts)
            }
            Target::Nowhere(why) => Err(refused(ErrorKind::Client, why)),
        }
    }

    /// Runs a pipeline, each of its commands at most once. All keys must share a slot; `offset` and `count` are redis-rs'.
    pub(super) async fn query_all(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Vec<Value>, Error> {
        let to = slot_of_all(pipeline)?.map_or(To::Any, To::Slot);
        let work = Work::Pipeline(pipeline, offset, count);
        let mut replies = match self.deliver(to, work, None).await? {
            Reply::Many(replies) => replies,
            Reply::One(reply) => vec![reply],
        };
        if !pipeline.is_transaction() && offset == 0 {
            // Each command has an answer of its own: those that were not run go again, one after the other.
            for (command, reply) in pipeline.cmd_iter().zip(&mut replies) {
                let Value::ServerError(error) = &*reply else {
                    continue;
                };
                if let Some(not_run) = not_run(error, &self.seed.address) {
                    let first = match not_run {
                        NotRun::Elsewhere(redirection) => Some(redirection),
                        NotRun::Later | NotRun::NotSignedIn => None,
                    };
                    self.doubt.notify_one();
                    *reply = self.one(to, command, first).await?;
                }
            }
        }
        Ok(replies)
    }

    async fn one(
        &self,
        to: To<'_>,
        command: &Cmd,
        first: Option<Redirection>,
    ) -> Result<Value, Error> {
        match self.deliver(to, Work::Command(command), first).await? {
            Reply::One(value) => Ok(value),
            Reply::Many(values) => Ok(Value::Array(values)),
        }
    }

    /// Sends `work` to whom it belongs, or at first where `redirection` says, until it is run.
    async fn deliver(
        &self,
        to: To<'_>,
        work: Work<'_>,
        mut redirection: Option<Redirection>,
    ) -> Result<Reply, Error> {
        let mut deadline = None; // read no clock for a command that is served at once
        let mut pause = FIRST_PAUSE;
        let mut redirections = 0;
        loop {
            let (node, asking) = match redirection.take() {
                Some(Redirection { address, asking }) => (Some(self.node(&address)), asking),
                None => (self.owner(to), false),
            };
            let connection = match node.as_ref().and_then(|node| node.pick()) {
                Some(connection) => Some(connection),
                None => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.patience);
                    let opened = self.wait_for(to, node.as_deref(), deadline);
                    waiting(&self.seed.address, opened).await?
                }
            };
            let (Some(mut connection), Some(node)) = (connection, node) else {
                continue; // the map is a new one
            };
            let result = work.send(&mut connection, asking).await;
            let not_run = match &result {
                Ok(reply) => work
                    .error(reply)
                    .and_then(|error| not_run(error, &node.address)),
                Err(error) => {
                    // A transaction that one of its commands made Redis give up, before any of them ran.
                    let errors = error.clone().into_server_errors();
                    let mut errors = errors.iter().flat_map(|errors| errors.iter());
                    errors.find_map(|(_, error)| not_run(error, &node.address))
                }
            };
            let Some(not_run) = not_run else {
                return result.map_err(|error| {
                    let error = Error::of(error);
                    if error.may_have_run() {
                        self.doubt.notify_one(); // its node may be gone
                    }
                    error
                });
            };
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.patience);
            if Instant::now() >= deadline {
                return result.map_err(Error::of);
            }
            counter!(instruments::RETRIES).increment(1);
            match not_run {
                NotRun::NotSignedIn => continue,
                NotRun::Elsewhere(to) => {
                    if !to.asking {
                        self.doubt.notify_one();
                    }
                    redirection = Some(to);
                    redirections += 1;
                    if redirections <= REDIRECTIONS_AT_ONCE {
                        continue;
                    }
                }
                NotRun::Later => self.doubt.notify_one(),
            }
            sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn owner(&self, to: To<'_>) -> Option<Arc<Node>> {
        match to {
            To::Slot(slot) => self.map.load().owner(slot).cloned(),
            To::Node(node) => Some(node.clone()),
            To::Any => {
                let nodes = &self.map.load().nodes;
                let turn = self.next.fetch_add(1, Ordering::Relaxed);
                let mut nodes =
                    (0..nodes.len()).map(|offset| &nodes[turn.wrapping_add(offset) % nodes.len()]);
                let first = nodes.clone().next();
                nodes.find(|node| node.is_open()).or(first).cloned()
            }
        }
    }

    /// Waits for a connection to `node`; `Ok(None)` when the cluster was asked anew and it may be another node's turn.
    async fn wait_for(
        &self,
        to: To<'_>,
        node: Option<&Node>,
        deadline: Instant,
    ) -> Result<Option<NodeConnection>, Error> {
        let mut news = self.news.subscribe();
        let nobody = watch::Sender::new(Availability::Opening);
        let availability = node.map_or(&nobody, |node| &node.availability);
        let mut availability = availability.subscribe();
        loop {
            let now = availability.borrow_and_update().clone();
            let error = match now {
                Availability::Failing(Error::NoToken) => return Err(Error::NoToken),
                Availability::Failing(error) => error,
                Availability::Open => match node.and_then(Node::pick) {
                    Some(connection) => return Ok(Some(connection)),
                    None => Error::Opening,
                },
                Availability::Opening if node.is_some() => Error::Opening,
                Availability::Closed if self.starter.stop.is_cancelled() => {
                    return Err(Error::Closed);
                }
                Availability::Opening | Availability::Closed => {
                    Error::Unavailable(Arc::new(ConnectError::NoMaster {
                        endpoint: self.seed.address.clone(),
                        slot: match to {
                            To::Slot(slot) => Some(slot),
                            To::Any | To::Node(_) => None,
                        },
                    }))
                }
            };
            if !matches!(error, Error::Opening) {
                self.doubt.notify_one();
            }
            tokio::select! {
                _ = availability.changed() => {}
                _ = news.changed() => match *news.borrow_and_update() {
                    true => return Ok(None),
                    // An attempt is in progress; how it ends is told by the node.
                    false if matches!(error, Error::Opening) => {}
                    // Nobody answers: there is no use in waiting.
                    false => return Err(error),
                },
                () = sleep_until(deadline) => {
                    // An attempt that takes this long is to a node that may be none any more.
                    self.doubt.notify_one();
                    return Err(error);
                }
            }
        }
    }

    /// The node at this address, which is opened if it is new.
    fn node(&self, address: &Endpoint) -> Arc<Node> {
        let mut members = self.members();
        self.member(&mut members, address)
    }

    fn member(&self, members: &mut HashMap<Endpoint, Member>, address: &Endpoint) -> Arc<Node> {
        let member = members.entry(address.clone()).or_insert_with(|| Member {
            running: self.starter.start(address.clone(), self.starter.size),
            named: Instant::now(),
        });
        member.named = Instant::now();
        member.running.node.clone()
    }

    fn members(&self) -> MutexGuard<'_, HashMap<Endpoint, Member>> {
        // A panic while it is held cannot leave it half changed: members are put in and taken out whole.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work<'_> {
    async fn send(self, connection: &mut NodeConnection, asking: bool) -> RedisResult<Reply> {
        match self {
            Self::Command(command) if asking => {
                let mut pipeline = Pipeline::with_capacity(2);
                pipeline.cmd("ASKING").add_command(command.clone());
                let mut replies = connection.send_all(&pipeline, 0, 2).await?;
                Ok(Reply::One(replies.pop().unwrap_or(Value::Nil)))
            }
            Self::Command(command) => Ok(Reply::One(connection.send(command).await?)),
            Self::Pipeline(pipeline, offset, count) if asking => {
                // Only transactions come here, and ASKING holds until their EXEC.
                let mut behind = Pipeline::with_capacity(pipeline.len() + 3);
                behind.cmd("ASKING").cmd("MULTI");
                for command in pipeline.cmd_iter() {
                    behind.add_command(command.clone());
                }
                behind.cmd("EXEC");
                let mut replies = connection.send_all(&behind, 0, behind.len()).await?;
                let asked_for = replies.split_off(offset + 1);
                // Redis gives the transaction up for the first of these, and EXEC says no more than that.
                for reply in replies {
                    reply.extract_error()?;
                }
                Ok(Reply::Many(asked_for.into_iter().take(count).collect()))
            }
            Self::Pipeline(pipeline, offset, count) => Ok(Reply::Many(
                connection.send_all(pipeline, offset, count).await?,
            )),
        }
    }

    /// The error that the whole was answered with; the commands of a pipeline that is no transaction have one each.
    fn error(self, reply: &Reply) -> Option<&ServerError> {
        match (self, reply) {
            (_, Reply::One(Value::ServerError(error))) => Some(error),
            (Self::Pipeline(pipeline, ..), Reply::Many(values)) if pipeline.is_transaction() => {
                match &values[..] {
                    [Value::ServerError(error)] => Some(error),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// What `error` says, if it says that the command was not run; `asked` gave it.
fn not_run(error: &ServerError, asked: &Endpoint) -> Option<NotRun> {
    let redirection = |asking| {
        let address = slots::redirected(error.details()?, asked)?;
        Some(NotRun::Elsewhere(Redirection { address, asking }))
    };
    match error.kind() {
        Some(ServerErrorKind::Moved) => redirection(false),
        Some(ServerErrorKind::Ask) => redirection(true),
        Some(
            ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly,
        ) => Some(NotRun::Later),
        _ if error.code() == "NOAUTH" => Some(NotRun::NotSignedIn),
        _ => None,
    }
}

/// The slot that the keys of a pipeline share.
fn slot_of_all(pipeline: &Pipeline) -> Result<Option<u16>, Error> {
    let mut common = None;
    for command in pipeline.cmd_iter() {
        match target(command) {
            Target::Any => {}
            Target::Slot(slot) if common.is_none_or(|common| common == slot) => common = Some(slot),
            Target::Slot(_) | Target::Split { .. } => {
                return Err(refused(
                    ServerErrorKind::CrossSlot.into(),
                    "Received crossed slots in pipeline",
                ));
            }
            Target::Every(_) => {
                let why =
                    "a command that runs on every node of a cluster cannot be part of a pipeline";
                return Err(refused(ErrorKind::Client, why));
            }
            Target::Nowhere(why) => return Err(refused(ErrorKind::Client, why)),
        }
    }
    Ok(common)
}

fn refused(kind: ErrorKind, why: &'static str) -> Error {
    Error::Command(RedisError::from((kind, why)))
}
