//! What is wrong with this deployment? The path of a request from its configuration to Redis, walked step by step.
//!
//! Each step has a limit and ends in one [`Outcome`]; what failed says what was met, what that means and what to do.
//! `report` shows the findings, `network`, `identity` and `redis` hold the steps, `service` asks the process that runs
//! beside this one. What always holds: a step calls the service's own functions, so that what passes here works there; a
//! step whose ground failed is skipped, so that one fault is told once; no token, key or assertion is in a finding;
//! Redis is left as it was found.
//!
//! What does not belong here: mending anything, and a way to reach Azure or Redis that the service does not take.

mod identity;
pub(crate) mod local;
mod network;
mod redis;
mod report;
mod service;

use std::time::Instant;

use tokio::time::timeout;

use self::report::Verdict;
pub use self::report::{Finding, Outcome, Report, Step};
use crate::config::{Auth, Config, Environment, Fault};

/// What [`examine`] is doing.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A step has begun.
    Begun(Step),
    /// A step has ended.
    Ended(&'a Finding),
}

/// Walks the path that the service takes with `environment`, and tells `progress` of each step.
///
/// Each step has a limit, made of `REDIS_CONNECT_TIMEOUT`, `REDIS_COMMAND_TIMEOUT` and the credential's; as they are by
/// default, all of them together are a minute, and half a minute more where the Azure CLI is asked. Writes one key beside
/// the sample's and removes it. Dropping the future stops where it is; the key then ends by itself within a minute.
pub async fn examine(
    environment: &Environment,
    progress: impl FnMut(Progress<'_>) + Send,
) -> Report {
    let mut notes = Notes {
        report: Report::default(),
        progress,
    };
    if let Some(config) = notes
        .step(Step::Configuration, async { configuration(environment) })
        .await
    {
        walk(environment, &config, &mut notes).await;
        let mended = notes.report.is_well();
        let running = service::running(&config, mended);
        notes.step(Step::Service, running).await;
    } else {
        notes.skip_from(Step::Dns, Step::Configuration);
        notes.skip(Step::Service, Step::Configuration);
    }
    notes.report
}

/// From the endpoint's name to the latency of a command.
async fn walk(
    environment: &Environment,
    config: &Config,
    notes: &mut Notes<impl FnMut(Progress<'_>) + Send>,
) {
    let reached = network(config, notes).await;
    let token = match config.redis.auth {
        Auth::Entra => identity(environment, config, notes).await,
        Auth::Key(_) | Auth::None => {
            for step in [Step::IdentityEnvironment, Step::Token, Step::Claims] {
                let why = "REDIS_AUTH is not entra: the service signs in without a token";
                notes.note(step, Verdict::not_applicable(why));
            }
            Ok(None)
        }
    };
    let ends = token
        .as_ref()
        .ok()
        .and_then(|token| Some(token.as_ref()?.expires_at));
    let token = match (reached, token) {
        (Err(ground), _) | (Ok(()), Err(ground)) => return notes.skip_from(Step::SignIn, ground),
        (Ok(()), Ok(token)) => token,
    };

    let signed_in = notes
        .step(Step::SignIn, redis::sign_in(config, token))
        .await;
    let Some(pool) = signed_in else {
        return notes.skip_from(Step::Clustering, Step::SignIn);
    };
    match notes
        .step(Step::Clustering, redis::clustering(config, &pool))
        .await
    {
        None => notes.skip_from(Step::Commands, Step::Clustering),
        Some(()) => match notes
            .step(Step::Commands, redis::commands(config, &pool, ends))
            .await
        {
            None => notes.skip_from(Step::Latency, Step::Commands),
            Some(()) => _ = notes.step(Step::Latency, redis::latency(&pool, ends)).await,
        },
    }
    // The process ends soon; what is still open then ends with it.
    let _ = timeout(redis::CLOSE_LIMIT, pool.close()).await;
}

fn configuration(environment: &Environment) -> (Verdict, Option<Config>) {
    match Config::new(environment) {
        Err(faults) => {
            let meaning = "the service does not start with these variables";
            let missed = |fault: &Fault| {
                fault.variable == "AZURE_FEDERATED_TOKEN_FILE" && fault.met.is_none()
            };
            let mend = match faults.faults().iter().any(missed) {
                true => identity::LABEL_THE_POD,
                false => "set them as expected; `entra-redis config` lists all variables",
            };
            (Verdict::failed(faults, meaning, mend), None)
        }
        Ok(config) => {
            let sign_in = match config.redis.auth {
                Auth::Entra => "signed in with Entra ID",
                Auth::Key(_) => "signed in with an access key",
                Auth::None => "without a sign-in",
            };
            let found = format!("{}, {sign_in}", config.redis.endpoint);
            let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
            let verdict = match warnings.is_empty() {
                true => Verdict::passed(found),
                false => Verdict::warned(
                    warnings.join("\n"),
                    "probably a slip: the service starts all the same",
                    "correct or remove it; `entra-redis config` lists all variables",
                ),
            };
            (verdict, Some(config))
        }
    }
}

/// From the name to TLS; the step that failed, if one did.
async fn network(
    config: &Config,
    notes: &mut Notes<impl FnMut(Progress<'_>) + Send>,
) -> Result<(), Step> {
    let Some(addresses) = notes.step(Step::Dns, network::dns(config)).await else {
        notes.skip(Step::Tcp, Step::Dns);
        notes.skip(Step::Tls, Step::Dns);
        return Err(Step::Dns);
    };
    let Some(stream) = notes
        .step(Step::Tcp, network::tcp(config, &addresses))
        .await
    else {
        notes.skip(Step::Tls, Step::Tcp);
        return Err(Step::Tcp);
    };
    if !config.redis.tls {
        notes.note(Step::Tls, Verdict::not_applicable("REDIS_TLS is false"));
        return Ok(());
    }
    let trusted = notes.step(Step::Tls, network::tls(config, stream)).await;
    trusted.ok_or(Step::Tls)
}

/// From the identity's variables to the token; the step that failed, if one did.
async fn identity(
    environment: &Environment,
    config: &Config,
    notes: &mut Notes<impl FnMut(Progress<'_>) + Send>,
) -> Result<Option<crate::identity::AccessToken>, Step> {
    let announced = notes
        .step(Step::IdentityEnvironment, async {
            identity::environment(environment, config)
        })
        .await;
    let Some(credential) = announced else {
        notes.skip(Step::Token, Step::IdentityEnvironment);
        notes.skip(Step::Claims, Step::IdentityEnvironment);
        return Err(Step::IdentityEnvironment);
    };
    let Some(token) = notes
        .step(Step::Token, identity::token(config, &credential))
        .await
    else {
        notes.skip(Step::Claims, Step::Token);
        return Err(Step::Token);
    };
    let judged = notes
        .step(Step::Claims, async { identity::claims(config, &token) })
        .await;
    judged.map(|()| Some(token)).ok_or(Step::Claims)
}

/// What was found so far, and who is told.
struct Notes<P> {
    report: Report,
    progress: P,
}

impl<P: FnMut(Progress<'_>) + Send> Notes<P> {
    /// Takes a step; what it leads to is there where the next may be taken.
    async fn step<T>(
        &mut self,
        step: Step,
        work: impl Future<Output = (Verdict, Option<T>)>,
    ) -> Option<T> {
        (self.progress)(Progress::Begun(step));
        let began = Instant::now();
        let (verdict, result) = work.await;
        self.add(Finding::new(step, verdict, Some(began.elapsed())));
        result
    }

    fn note(&mut self, step: Step, verdict: Verdict) {
        self.add(Finding::new(step, verdict, None));
    }

    fn skip(&mut self, step: Step, ground: Step) {
        self.note(step, Verdict::skipped(ground));
    }

    /// Skips this step and all that follow it on the way to Redis.
    fn skip_from(&mut self, first: Step, ground: Step) {
        for step in Step::ALL {
            if (first..=Step::Latency).contains(&step) {
                self.skip(step, ground);
            }
        }
    }

    fn add(&mut self, finding: Finding) {
        (self.progress)(Progress::Ended(&finding));
        self.report.findings.push(finding);
    }
}
