//! Redis itself, over the service's own pool: the sign-in, the clustering policy, the commands of `/sample`, the latency.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use redis::Cmd;
use tokio::time::{Instant, sleep, timeout};

use super::{network::seconds, report::Verdict};
use crate::{
    config::{Auth, Config},
    identity::{self, AccessToken, TokenSource},
    redis::{ConnectError, Error, Pool, Refusal},
    report::ErrorChain as Chain,
};

/// Connections close when what was sent on them is answered.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How often the pool is asked how far it is.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// What is left where DEL is not allowed ends by itself.
const KEY_LIFE_SECONDS: u64 = 60;

const ALLOW_NODES: &str = "allow the nodes' ports out of this network, 8500 to 8599 in Azure, beside that of the endpoint; where they are open, look at the cache's state";

/// What a cache that says nothing means, and what to do.
const SILENCE: (&str, &str) = (
    "the cache accepts connections and says nothing: it is starting, scaling or in trouble",
    "look at the cache's state: `az redisenterprise show --cluster-name NAME --resource-group RESOURCE_GROUP --query resourceState`",
);

const PINGS: usize = 20;
/// Then those that were answered must do.
const PINGS_LIMIT: Duration = Duration::from_secs(5);
/// A cache in the same region answers within a millisecond or two.
const FAR: Duration = Duration::from_millis(10);

/// The token that was looked at already: signing in asks for no second one.
struct Held(AccessToken);

#[async_trait]
impl TokenSource for Held {
    fn name(&self) -> &'static str {
        "doctor"
    }

    async fn fetch(&self) -> Result<AccessToken, identity::Error> {
        Ok(self.0.clone())
    }
}

/// A pool with a connection that Redis let in.
pub(super) async fn sign_in(
    config: &Config,
    token: Option<AccessToken>,
) -> (Verdict, Option<Pool>) {
    let username = token.as_ref().map(|token| token.username.clone());
    let mut builder = entra_redis::pool::Builder::from(config.redis.clone());
    if let Some(token) = token {
        builder = builder.token_source(Arc::new(Held(token)));
    }
    let pool = match builder.build() {
        Ok(pool) => pool,
        Err(error) => {
            let meaning = "the pool cannot be put together";
            let mend = "correct the file or the variable that is named";
            return (Verdict::failed(Chain(&error), meaning, mend), None);
        }
    };
    let limit = config.redis.connect_timeout + LOOK_AGAIN_AFTER;
    let answer = settled(limit, async || {
        if pool.status().open > 0 {
            return Some(Ok(()));
        }
        match pool.get().await {
            Ok(_) | Err(Error::Opening | Error::NoToken) => None,
            // Redis let it in and said who it is: the next step's question.
            Err(Error::Unavailable(error)) if is_of_the_policy(&error) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    })
    .await;
    match answer {
        Some(Ok(())) => {
            let verdict = match (&username, &config.redis.auth) {
                (Some(username), _) => again(config, &pool, username).await,
                (None, Auth::Key(_)) => Verdict::passed("Redis takes the access key"),
                (None, _) => Verdict::passed("Redis asks nobody who it is"),
            };
            let usable = (!verdict.is_failed()).then_some(pool);
            (verdict, usable)
        }
        // The pool may notice the silence a moment before this does.
        Some(Err(error)) if is_silence(&error) => {
            let (meaning, mend) = SILENCE;
            (Verdict::failed(Chain(&error), meaning, mend), None)
        }
        Some(Err(error)) => {
            let (meaning, mend) = explain_sign_in(config, &error, username.as_deref());
            (Verdict::failed(Chain(&error), meaning, mend), None)
        }
        None => {
            let found = format!(
                "no answer to the sign-in within {}",
                seconds(config.redis.connect_timeout)
            );
            let (meaning, mend) = SILENCE;
            (Verdict::failed(found, meaning, mend), None)
        }
    }
}

/// Signs in once more on the same connection, as with each new token.
async fn again(config: &Config, pool: &Pool, username: &str) -> Verdict {
    let limit = config.redis.connect_timeout;
    let Err(error) = pool.reauthenticate(limit).await else {
        return Verdict::passed(format!(
            "Redis lets {username} in, and again on the same connection"
        ));
    };
    let answer = match &error {
        Error::TimedOut(_) => format!("no answer to AUTH within {}", seconds(limit)),
        error => Chain(error).to_string(),
    };
    Verdict::failed(
        format!("Redis lets {username} in, and not again on the same connection: {answer}"),
        "each connection would end with the token that it began with",
        "connect to the cache itself: is there a proxy between that keeps AUTH for itself?",
    )
}

fn is_silence(error: &Error) -> bool {
    let Error::Unavailable(error) = error else {
        return false;
    };
    match &**error {
        ConnectError::TimedOut { .. } => true,
        ConnectError::Authenticate { source, .. } => source.is_timeout(),
        _ => false,
    }
}

fn is_of_the_policy(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::NotACluster { .. }
            | ConnectError::Undecided { .. }
            | ConnectError::NoPrimary { .. }
    )
}

fn explain_sign_in(config: &Config, error: &Error, username: Option<&str>) -> (String, String) {
    let refusal = match error {
        Error::Unavailable(error) => match &**error {
            ConnectError::Authenticate { source, .. } => Some(source),
            _ => None,
        },
        _ => None,
    };
    match (refusal.and_then(Refusal::code), username) {
        (Some("WRONGPASS"), Some(username)) if config.identity.username.is_some() => (
            format!("Redis knows no user {username}, which is what REDIS_USERNAME says"),
            "unset REDIS_USERNAME: Redis knows an identity by its object id, which claims above names; not by its client id".to_owned(),
        ),
        (Some("WRONGPASS" | "NOAUTH" | "NOPERM"), Some(object_id)) => (
            format!("the token is good and Redis knows no user {object_id}"),
            format!(
                "add this object id as a Redis user (not the client id): {}",
                assignment(config.redis.endpoint.host(), object_id)
            ),
        ),
        (Some("NOAUTH"), None) if matches!(config.redis.auth, Auth::None) => (
            "the cache wants a sign-in, and REDIS_AUTH=none brings none".to_owned(),
            "unset REDIS_AUTH to sign in with Entra ID, or set REDIS_AUTH=key and REDIS_KEY".to_owned(),
        ),
        (Some("WRONGPASS" | "NOAUTH"), None) => (
            "the cache wants another sign-in than REDIS_AUTH names".to_owned(),
            "check REDIS_KEY, and whether access keys are switched off (then REDIS_AUTH=entra)".to_owned(),
        ),
        // So says a server that has none.
        (Some("ERR"), None) if error_says(error, "without any password") => (
            "this server has no password".to_owned(),
            "set REDIS_AUTH=none, or name the cache that was meant".to_owned(),
        ),
        _ => (
            "the cache ended the sign-in: it has as many connections as it takes, is starting or scaling, or speaks no Redis".to_owned(),
            "see who holds its connections (`CLIENT LIST`, the metric Connected Clients): a client that opens one for each token and closes none? Else look at the cache's state, and check the port in REDIS_ENDPOINT".to_owned(),
        ),
    }
}

/// The command that makes an identity a Redis user: Azure Cache for Redis and Azure Managed Redis have one each.
fn assignment(host: &str, object_id: &str) -> String {
    let name = host.split('.').next().unwrap_or("NAME");
    let assignment: String = object_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    match host.contains(".redis.cache.") {
        true => format!(
            "az redis access-policy-assignment create --resource-group RESOURCE_GROUP --name {name} --policy-assignment-name {assignment} --access-policy-name \"Data Contributor\" --object-id {object_id} --object-id-alias {assignment}"
        ),
        false => format!(
            "az redisenterprise database access-policy-assignment create --resource-group RESOURCE_GROUP --cluster-name {name} --database-name default --access-policy-assignment-name {assignment} --access-policy-name default --object-id {object_id}"
        ),
    }
}

fn error_says(error: &Error, words: &str) -> bool {
    Chain(error).to_string().contains(words)
}

/// One endpoint or a cluster, and whether each master of a cluster answers.
pub(super) async fn clustering(config: &Config, pool: &Pool) -> (Verdict, Option<()>) {
    let limit = config.redis.connect_timeout;
    let mut undecided = None;
    let decided = settled(limit, async || match pool.clustering() {
        Some(clustering) => Some(Ok(clustering)),
        None => match pool.get().await {
            Err(Error::Unavailable(error)) => match &*error {
                ConnectError::Undecided { source, .. } => {
                    undecided = Some(source.clone());
                    None
                }
                _ => Some(Err(Error::Unavailable(error))),
            },
            _ => None,
        },
    })
    .await;
    let clustering = match decided {
        Some(Ok(clustering)) => clustering,
        Some(Err(error)) => {
            let verdict = Verdict::failed(
                Chain(&error),
                "REDIS_CLUSTERING_POLICY and the cache do not fit, or the cache is not whole",
                "unset REDIS_CLUSTERING_POLICY to have the server asked; `az redisenterprise database show --cluster-name NAME --resource-group RESOURCE_GROUP --query clusteringPolicy` prints Azure's",
            );
            return (verdict, None);
        }
        None => {
            if let Some(refusal) = undecided {
                let found = format!("CLUSTER SLOTS, for {}: {refusal}", seconds(limit));
                let (meaning, mend) = explain_code(refusal.code());
                return (Verdict::failed(found, meaning, mend), None);
            }
            let found = format!("no answer to CLUSTER SLOTS within {}", seconds(limit));
            let meaning = "the cache is too busy, or is starting or scaling";
            let mend = "look at the cache's server load, and try again";
            return (Verdict::failed(found, meaning, mend), None);
        }
    };
    if !clustering.is_cluster() {
        let found = clustering.to_string();
        let verdict = match found.ends_with("NOPERM") {
            true => Verdict::warned(
                found,
                "this Redis user may not ask; should the cache be a cluster, most commands will fail",
                "let the access policy allow +cluster|slots",
            ),
            false => Verdict::passed(found),
        };
        return (verdict, Some(()));
    }
    let mut trouble = Vec::new();
    let all_answer = settled(limit, async || {
        trouble = pool.unreachable_primaries().await;
        trouble.is_empty().then_some(())
    })
    .await;
    if all_answer.is_some() {
        return (
            Verdict::passed(format!("{clustering}; all answer")),
            Some(()),
        );
    }
    let mut found = clustering.to_string();
    for (address, error) in &trouble {
        let _ = write!(found, "\n{address}: {}", Chain(error));
    }
    let mends: BTreeSet<_> = trouble
        .iter()
        .map(|(_, error)| explain_node(error))
        .collect();
    let mends: Vec<_> = mends.into_iter().collect();
    let verdict = Verdict::failed(
        found,
        "commands whose keys are on these primaries fail",
        mends.join("; "),
    );
    (verdict, None)
}

/// What to do about a master that does not answer, though the endpoint does.
fn explain_node(error: &Error) -> &'static str {
    match error {
        Error::Command(error) => explain_code(error.code()).1,
        Error::Unavailable(error) => match **error {
            ConnectError::Authenticate { ref source, .. } if source.code().is_some() => {
                "the node refuses what the endpoint takes: is the cache scaling, or the access policy new? Try again in a minute"
            }
            ConnectError::Tls { .. } => {
                "a node's certificate is for the endpoint's name: is there something between that answers in its place?"
            }
            _ => ALLOW_NODES,
        },
        _ => ALLOW_NODES,
    }
}

/// What the service does, on a key beside the sample's and in its slot.
pub(super) async fn commands(
    config: &Config,
    pool: &Pool,
    token_ends: Option<SystemTime>,
) -> (Verdict, Option<()>) {
    let key = format!("{{{}}}:doctor", config.sample.key);
    let mut set = redis::cmd("SET");
    set.arg(&key)
        .arg("doctor")
        .arg("EX")
        .arg(KEY_LIFE_SECONDS)
        .arg("GET");
    let steps: [(&str, Cmd); 4] = [
        ("PING", redis::cmd("PING")),
        ("SET", set),
        ("GET", redis::cmd("GET").arg(&key).clone()),
        ("DEL", redis::cmd("DEL").arg(&key).clone()),
    ];
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for (name, command) in &steps {
        let Err(error) = pool.query::<redis::Value>(command).await else {
            continue;
        };
        found.push(match &error {
            // As Redis writes it, to be searched for.
            Error::Command(error) => format!("{name}: {}", Refusal::from(error)),
            error => format!("{name}: {}", Chain(error)),
        });
        if matches!(&error, Error::Command(error) if error.code() == Some("NOPERM")) {
            refused.push(*name);
            continue;
        }
        let verdict = past_the_end(&found.join("\n"), token_ends).unwrap_or_else(|| {
            let code = match &error {
                Error::Command(error) => error.code(),
                _ => None,
            };
            let (meaning, mend) = explain_code(code);
            Verdict::failed(found.join("\n"), meaning, mend)
        });
        return (verdict, None);
    }
    if refused.is_empty() {
        let verdict = Verdict::passed("PING, SET, GET and DEL are answered");
        return (verdict, Some(()));
    }
    let key = &config.sample.key;
    let commands: Vec<_> = refused
        .iter()
        .map(|name| format!("+{}", name.to_lowercase()))
        .collect();
    let mend = format!(
        "let it allow {} and the keys ~{key}* ~{{{key}}}*",
        commands.join(" ")
    );
    // Of the four, /sample sends SET alone.
    match refused.contains(&"SET") {
        true => {
            let meaning = "the access policy of this Redis user leaves this out, and /sample cannot do without SET";
            (Verdict::failed(found.join("\n"), meaning, mend), None)
        }
        false => {
            let meaning =
                "the access policy of this Redis user leaves this out; /sample does without";
            (Verdict::warned(found.join("\n"), meaning, mend), Some(()))
        }
    }
}

/// The doctor holds one token, and does not ask for another as the service does.
fn past_the_end(found: &str, token_ends: Option<SystemTime>) -> Option<Verdict> {
    let ended = token_ends.is_some_and(|ends| ends <= SystemTime::now());
    ended.then(|| {
        Verdict::failed(
            found,
            "the token ended on the way, and Redis closes a connection with the token that it is signed in with",
            "the service signs in again long before; with tokens that live this short, see who issues them, and look again",
        )
    })
}

/// What Redis' refusal of a command means and what to do.
fn explain_code(code: Option<&str>) -> (&'static str, &'static str) {
    match code {
        Some("OOM") => (
            "the cache is full and evicts nothing",
            "choose a larger cache or an eviction policy such as VolatileLRU, or let keys end",
        ),
        Some("READONLY") => (
            "this is a replica: the cache is failing over, or the endpoint is a replica's",
            "name the cache's own endpoint in REDIS_ENDPOINT",
        ),
        Some("BUSY") => (
            "a script blocks the cache: every command waits for its end",
            "end it (`SCRIPT KILL`), and let scripts do less; Redis' slow log names long commands",
        ),
        Some("MISCONF") => (
            "the cache cannot persist and takes no writes",
            "look at the cache's persistence settings and disk",
        ),
        Some("CLUSTERDOWN" | "LOADING" | "TRYAGAIN" | "MASTERDOWN") => (
            "the cache is starting, scaling or failing over",
            "wait a moment and try again; else look at the cache's state",
        ),
        Some("MOVED") => (
            "this is a cluster, and it is taken for one endpoint",
            "unset REDIS_CLUSTERING_POLICY",
        ),
        _ => (
            "the cache does not answer as it should",
            "look at the cache's state and server load",
        ),
    }
}

/// How long PING takes.
pub(super) async fn latency(pool: &Pool, token_ends: Option<SystemTime>) -> (Verdict, Option<()>) {
    let ping = redis::cmd("PING");
    let mut taken = Vec::with_capacity(PINGS);
    let began = Instant::now();
    while taken.len() < PINGS && began.elapsed() < PINGS_LIMIT {
        let asked = Instant::now();
        match pool.query::<redis::Value>(&ping).await {
            Ok(_) => {}
            Err(Error::Command(_)) => {} // a refusal took its time too
            Err(error) => {
                let verdict = past_the_end(&Chain(&error).to_string(), token_ends);
                let verdict = verdict.unwrap_or_else(|| {
                    Verdict::failed(
                        Chain(&error),
                        "the cache answered a moment ago and does not now",
                        "look at the cache's server load and events",
                    )
                });
                return (verdict, None);
            }
        }
        taken.push(asked.elapsed());
    }
    taken.sort();
    let milliseconds = |at: usize| taken[at].as_secs_f64() * 1000.0;
    let count = taken.len();
    let median = count / 2;
    let found = format!(
        "{count} times PING: {:.2} ms at best, {:.2} ms in the middle, {:.2} ms at worst",
        milliseconds(0),
        milliseconds(median),
        milliseconds(count - 1)
    );
    let verdict = match taken[median] > FAR {
        true => Verdict::warned(
            found,
            "each request waits at least that long",
            "place the service in the cache's region, and look at the cache's server load",
        ),
        false => Verdict::passed(found),
    };
    (verdict, Some(()))
}

/// What `look` finds, asked again until it finds something; `None` after `limit`.
async fn settled<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let asked = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(LOOK_AGAIN_AFTER).await;
        }
    };
    timeout(limit, asked).await.ok()
}
