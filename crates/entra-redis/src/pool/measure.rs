//! The measurement of commands: their duration, by command and error, and one span each.

use std::sync::OnceLock;

use metrics::{Histogram, histogram};
use redis::{Arg, Cmd};
use tokio::time::Instant;
use tracing::Span;

use super::{instruments, trace::command as command_span};
use crate::{env::Endpoint, trace};

/// Values of the `db_operation_name` label, a closed set: the usual commands, and one name for the rest.
const OPERATIONS: [&str; 17] = [
    "SET", "GET", "PING", "DEL", "EXISTS", "EXPIRE", "INCR", "MGET", "MSET", "HGET", "HSET",
    "HGETALL", "LPUSH", "RPOP", "XADD", "EVAL", "_OTHER",
];

/// The histograms of successful commands, each looked up once.
pub(super) struct Durations([OnceLock<Histogram>; OPERATIONS.len()]);

impl Default for Durations {
    fn default() -> Self {
        Self([const { OnceLock::new() }; OPERATIONS.len()])
    }
}

/// Records the duration of a command and closes its span, also if its caller drops the future.
pub(super) struct Measure<'a> {
    durations: &'a Durations,
    operation: usize,
    started: Instant,
    pub(super) span: Span,
    error_type: Option<&'static str>,
}

impl<'a> Measure<'a> {
    pub(super) fn start(durations: &'a Durations, endpoint: &Endpoint, command: &Cmd) -> Self {
        Self {
            durations,
            operation: operation(command),
            started: Instant::now(),
            span: command_span(endpoint, command),
            error_type: Some("cancelled"),
        }
    }

    pub(super) fn end(mut self, error_type: Option<&'static str>) {
        self.error_type = error_type;
    }
}

impl Drop for Measure<'_> {
    fn drop(&mut self) {
        let name = OPERATIONS[self.operation];
        match self.error_type {
            None => self.durations.0[self.operation]
                .get_or_init(
                    || histogram!(instruments::OPERATION_DURATION, "db_operation_name" => name),
                )
                .record(self.started.elapsed()),
            Some(error_type) => {
                trace::failed(&self.span, error_type);
                histogram!(
                    instruments::OPERATION_DURATION,
                    "db_operation_name" => name,
                    "error_type" => error_type
                )
                .record(self.started.elapsed());
            }
        }
    }
}

/// Returns the index of a command in [`OPERATIONS`].
fn operation(command: &Cmd) -> usize {
    let other = OPERATIONS.len() - 1;
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => OPERATIONS
            .iter()
            .position(|known| known.as_bytes().eq_ignore_ascii_case(name))
            .unwrap_or(other),
        _ => other,
    }
}
