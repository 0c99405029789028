//! The commands of `/sample`, on a key beside the sample's and in its slot.

use std::time::SystemTime;

use redis::Cmd;

use super::examination::{Checked, Failed, Passed};
use crate::config::Config;
use entra_redis::{
    diagnostics::{Error, Fault},
    error_chain::ErrorChain,
    pool::{Error as PoolError, Pool, Refusal},
};

/// A key that may not be deleted expires by itself.
const KEY_TTL_SECONDS: u64 = 60;

/// Runs PING, SET, GET and DEL.
pub(super) async fn check(
    config: &Config,
    pool: &Pool,
    token_expires_at: Option<SystemTime>,
) -> Checked<()> {
    let mut observed = Vec::new();
    let mut not_permitted = Vec::new();
    for (name, command) in commands(config) {
        let Err(error) = pool.query::<redis::Value>(&command).await else {
            continue;
        };
        observed.push(match &error {
            // As Redis writes it, to be searched for.
            PoolError::Command(error) => format!("{name}: {}", Refusal::from(error)),
            error => format!("{name}: {}", ErrorChain(error)),
        });
        let code = match Error::from(error).fault() {
            Fault::CommandRefused { code } => code,
            _ => String::new(),
        };
        if code == "NOPERM" {
            not_permitted.push(name);
            continue;
        }
        let observed = observed.join("\n");
        return Err(
            token_expired(&observed, token_expires_at).unwrap_or_else(|| {
                let (cause, fix) = explain(&code);
                Failed::new(observed, cause, fix)
            }),
        );
    }
    if not_permitted.is_empty() {
        return Ok(Passed::new("PING, SET, GET and DEL succeeded", ()));
    }
    let observed = observed.join("\n");
    let fix = permission(&not_permitted, &config.sample.key);
    // Of the four, /sample sends SET alone.
    if not_permitted.contains(&"SET") {
        let cause =
            "the access policy of this Redis user does not allow this, and /sample needs SET";
        return Err(Failed::new(observed, cause, fix));
    }
    let cause =
        "the access policy of this Redis user does not allow this; /sample does not need it";
    Ok(Passed::warned(observed, cause, fix, ()))
}

fn commands(config: &Config) -> [(&'static str, Cmd); 4] {
    let key = format!("{{{}}}:doctor", config.sample.key);
    let mut set = redis::cmd("SET");
    set.arg(&key)
        .arg("doctor")
        .arg("EX")
        .arg(KEY_TTL_SECONDS)
        .arg("GET");
    [
        ("PING", redis::cmd("PING")),
        ("SET", set),
        ("GET", redis::cmd("GET").arg(&key).clone()),
        ("DEL", redis::cmd("DEL").arg(&key).clone()),
    ]
}

/// Returns the rules that an access policy needs for these commands.
fn permission(commands: &[&str], key: &str) -> String {
    let commands: Vec<_> = commands
        .iter()
        .map(|name| format!("+{}", name.to_lowercase()))
        .collect();
    let commands = commands.join(" ");
    format!("allow {commands} and the keys ~{key}* ~{{{key}}}* in the access policy")
}

/// Returns the failure that an expired token explains: the doctor uses one token and requests no other, unlike the service.
pub(super) fn token_expired(observed: &str, expires_at: Option<SystemTime>) -> Option<Failed> {
    let has_expired = expires_at.is_some_and(|expires_at| expires_at <= SystemTime::now());
    has_expired.then(|| {
        Failed::new(
            observed,
            "the token expired during the examination, and Redis closes a connection when its token expires",
            "run the doctor again; the service re-authenticates long before. If tokens expire this soon, check their issuer",
        )
    })
}

/// Returns cause and fix of a command that Redis refuses with this error code; empty for a command without a reply.
pub(super) fn explain(code: &str) -> (&'static str, &'static str) {
    match code {
        "OOM" => (
            "the cache is full and evicts nothing",
            "use a larger cache or an eviction policy such as VolatileLRU, or set expiry times on keys",
        ),
        "READONLY" => (
            "this is a replica: the cache is failing over, or the endpoint is a replica's",
            "set REDIS_ENDPOINT to the cache's own endpoint",
        ),
        "BUSY" => (
            "a script blocks the cache: every command waits until it finishes",
            "stop it (`SCRIPT KILL`), and shorten the script; the slow log lists long commands",
        ),
        "MISCONF" => (
            "the cache cannot persist and accepts no writes",
            "check the cache's persistence settings and disk",
        ),
        "CLUSTERDOWN" | "LOADING" | "TRYAGAIN" | "MASTERDOWN" => (
            "the cache is starting, scaling or failing over",
            "wait a moment and try again; if it persists, check the cache's state",
        ),
        "MOVED" => (
            "the cache is a cluster, and is used as a single endpoint",
            "unset REDIS_CLUSTERING_POLICY",
        ),
        _ => (
            "the cache does not respond as expected",
            "check the cache's state and server load",
        ),
    }
}
