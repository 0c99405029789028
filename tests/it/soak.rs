//! The promise over time: the service under load during random faults, and through thousands of rotations.
//!
//! Both are run by `tests/soak`, which sets how long, and print one table. `disturbances` has the faults, `watch`
//! what is looked at meanwhile. What one fault does to callers is not shown here but in the other modules.

mod disturbances;
mod watch;

use std::{collections::BTreeMap, env, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use self::{
    disturbances::{Disturbance, World},
    watch::{Sample, Table, Watch},
};
use crate::support::{Azure, Failure, Load, Record, Service};

/// Callers, and how long each waits between two requests: the machine is shared with all that is watched.
const CALLERS: usize = 16;
const PAUSE: Duration = Duration::from_millis(5);

/// The number of replicas that share the rotations.
const REPLICAS: u64 = 8;

/// The least remaining life of a token when the next fault is made, so that a brief failure of Entra ID does not outlast it.
const ENOUGH_LEFT: Duration = Duration::from_secs(4);

/// The time after which its connections must be open again, and on the newest token.
const HEALTHY_WITHIN: Duration = Duration::from_secs(15);

/// The time within which service must resume after the end of an outage of Redis or of its tokens.
const RESUMES_WITHIN: Duration = Duration::from_secs(5);

/// Faults drawn at random. Harmless ones cost no request; while Redis or its tokens are out of reach, callers get a named
/// problem in time, and are served again within 5 s.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/soak runs it"]
async fn nothing_is_lost_while_faults_come_at_random() {
    let length = Duration::from_secs(number("SOAK_SECONDS").expect("tests/soak sets it"));
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!(
        "seed {seed}: run it again with `tests/soak {}s --seed {seed}`",
        length.as_secs()
    );
    let mut random = fastrand::Rng::with_seed(seed);

    let mut world = World::new().await;
    let service = Service::start(&[], world.environment()).await;
    service.ready().await;
    let alive = Load::paced(&service.url("/healthz"), 1, Duration::from_millis(20));
    let load = Load::paced(&service.url("/sample"), CALLERS, PAUSE);
    let first = recovered(&service, ENOUGH_LEFT, 1).await.sample;

    let start = Instant::now();
    let mut entries: Vec<Entry> = Vec::new();
    while start.elapsed() < length {
        let disturbance = *random.choice(&Disturbance::ALL).expect("there are some");
        let began = Instant::now();
        world.make(disturbance, &mut random).await;
        let over = Instant::now();
        let Recovered {
            resumed, healthy, ..
        } = recovered(&service, ENOUGH_LEFT, 1).await;
        println!(
            "{:7.1} s  {} for {:.1} s; served {:.1} s later, healthy {:.1} s",
            (began - start).as_secs_f64(),
            disturbance.name(),
            (over - began).as_secs_f64(),
            resumed.as_secs_f64(),
            healthy.as_secs_f64()
        );
        entries.push(Entry {
            disturbance,
            began,
            resumed,
            ended: over + healthy.min(RESUMES_WITHIN),
        });
        sleep(Duration::from_millis(random.u64(200..1500))).await;
    }
    let elapsed = start.elapsed();
    let last = recovered(&service, ENOUGH_LEFT, 1).await.sample;
    let record = load.end().await;
    let pulse = alive.end().await;

    let mut excused = BTreeMap::<String, u64>::new();
    let mut lost = Vec::new();
    for failure in &record.failures {
        let is_excused = entries.iter().any(|entry| entry.excuses(failure));
        match (failure.status, failure.problem()) {
            (status @ (503 | 504), Some(problem)) if is_excused => {
                let cause = format!("answered {status} {problem}");
                *excused.entry(cause).or_default() += 1;
            }
            _ => lost.push(failure),
        }
    }
    let outages = entries.iter().filter(|entry| entry.disturbance.is_outage());
    let slowest = outages.clone().map(|entry| entry.resumed).max();
    let slowest = slowest.unwrap_or_default();
    let mut table = Table::new()
        .row("length", format!("{:.0} s", elapsed.as_secs_f64()))
        .row(
            "faults, outages among them",
            format!("{}, {}", entries.len(), outages.count()),
        )
        .row(
            "served again after an outage within",
            format!("{:.1} s", slowest.as_secs_f64()),
        )
        .row("requests answered 200", record.good)
        .row("requests lost", lost.len());
    for (cause, count) in excused {
        table = table.row(cause, count);
    }
    let table = table
        .row(
            "/healthz answered 200, and not",
            format!("{}, {}", pulse.good, pulse.failures.len()),
        )
        .common(&first, &last, &record, 1);
    println!("\n{table}");

    let some = &lost[..lost.len().min(5)];
    assert!(lost.is_empty(), "{some:#?}, {}", kept(&service));
    assert!(pulse.failures.is_empty(), "{:?}", pulse.failures);
    assert!(!service.log().contains("panicked"), "{}", kept(&service));
    assert!(record.good > 10 * length.as_secs(), "{}", record.good);
    // The tasks and files that a fault caused are released after it.
    assert!(last.tasks <= first.tasks + 4.0, "{first:?} {last:?}");
    assert!(
        last.descriptors <= first.descriptors + 4.0,
        "{first:?} {last:?}"
    );
}

/// One disturbance, from its beginning until the service was back to normal.
struct Entry {
    disturbance: Disturbance,
    began: Instant,
    /// The time from its end until the service answered.
    resumed: Duration,
    ended: Instant,
}

impl Entry {
    /// Returns whether the request was in progress in an outage.
    fn excuses(&self, failure: &Failure) -> bool {
        self.disturbance.is_outage() && failure.began < self.ended && failure.ended > self.began
    }
}

/// Rotations under load: none costs a request, a connection or memory. Several replicas share them, and `tests/soak` has the
/// clock run faster: a token lives for a second, of which the last quarter must do for a machine's own pauses.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/soak runs it"]
async fn rotations_cost_neither_requests_nor_connections_nor_memory() {
    let wanted = number("SOAK_ROTATIONS").expect("tests/soak sets it");
    let speed = number("SOAK_SPEED").expect("tests/soak sets it");
    let speed = u32::try_from(speed).expect("it is some tens");
    let azure = Azure::with_lifetime(10).await;
    let mut environment = azure.environment("WorkloadIdentityCredential");
    // Limits are of the fast clock, too, and this machine is not faster with it.
    for (name, seconds) in [
        ("REQUEST_TIMEOUT", 3),
        ("REDIS_COMMAND_TIMEOUT", 1),
        ("REDIS_CONNECT_TIMEOUT", 5),
    ] {
        environment.push((name.to_owned(), format!("{}s", seconds * speed)));
    }
    environment.push((
        "RUST_LOG".to_owned(),
        "warn,entra_redis_service::app=info".to_owned(),
    ));
    let each = wanted.div_ceil(REPLICAS);
    let replicas = (0..REPLICAS).map(|replica| rotate(replica, environment.clone(), each, speed));
    let replicas = join_all(replicas).await;

    let sum = |of: fn(&Rotated) -> &Sample| replicas.iter().map(of).copied().sum::<Sample>();
    let (first, last) = (sum(|one| &one.first), sum(|one| &one.last));
    let wanted = replicas.iter().map(Rotated::wanted).sum::<f64>();
    let authenticated = last.accepted - first.accepted;
    let mut record = Record::default();
    for one in &replicas {
        record.add(&one.record);
    }
    let mut table = Table::new()
        .row("replicas", REPLICAS)
        .row("requests answered 200", record.good)
        .row("requests failed", record.failures.len())
        .row(
            "re-AUTHs accepted of rotations × connections",
            format!(
                "{authenticated} of {wanted}: {:.2} %",
                100.0 * authenticated / wanted
            ),
        );
    // Of all replicas together: a busy machine takes pages of the program from one and gives them back to another.
    let growth = |what: fn(&Sample) -> f64| {
        let in_tenth = |number| -> f64 {
            let each = replicas.iter();
            each.map(|one| tenth(&one.samples, number, what)).sum()
        };
        in_tenth(10) / in_tenth(2) - 1.0
    };
    let growths = [
        ("resident memory", growth(|sample| sample.resident)),
        ("file descriptors", growth(|sample| sample.descriptors)),
        ("tasks", growth(|sample| sample.tasks)),
    ];
    for (what, growth) in growths {
        let growth = format!("{:+.1} %", 100.0 * growth);
        table = table.row(format!("{what}: last tenth against second"), growth);
    }
    println!("\n{}", table.common(&first, &last, &record, speed));

    // A replica that a busy machine stops for longer than a token's quarter re-authenticates once for two tokens.
    assert!(
        authenticated >= 0.99 * wanted,
        "{authenticated} of {wanted}"
    );
    for one in &replicas {
        let failures = &one.record.failures;
        let some = &failures[..failures.len().min(5)];
        assert!(some.is_empty(), "{some:#?}, {}", kept(&one.service));
        let (authenticated, wanted) = (one.last.accepted - one.first.accepted, one.wanted());
        // Each replica by itself as well, but for one pause of the machine.
        assert!(
            authenticated <= wanted && authenticated >= 0.99 * wanted - 2.0,
            "{authenticated} of {wanted}"
        );
        let last = &one.last;
        assert_eq!((last.opened, last.closed), (2.0, 0.0));
        assert_eq!(
            last.token, last.connections_token,
            "all are on the newest token"
        );
        assert!(one.samples.len() >= 20, "{} are few", one.samples.len());
        let panicked = one.service.log().contains("panicked");
        assert!(!panicked, "{}", kept(&one.service));
    }
    // A run of seconds is still warming up.
    let most = match replicas[0].samples.len() {
        20..400 => 0.15,
        _ => 0.05,
    };
    let is_flat = growths.iter().all(|(_, growth)| *growth <= most);
    assert!(is_flat, "{growths:?}");
}

/// One replica's part of the rotations.
struct Rotated {
    service: Service,
    first: Sample,
    last: Sample,
    samples: Vec<Sample>,
    record: Record,
}

impl Rotated {
    /// The expected number of re-authentications.
    fn wanted(&self) -> f64 {
        2.0 * (self.last.rotations - self.first.rotations)
    }
}

/// Loads one replica until its token has changed so often, or a request has failed.
async fn rotate(
    replica: u64,
    environment: Vec<(String, String)>,
    rotations: u64,
    speed: u32,
) -> Rotated {
    #[expect(clippy::cast_precision_loss, reason = "they are some thousand")]
    let rotations = rotations as f64;
    let service = Service::start(&[], environment).await;
    service.ready().await;
    let load = Load::paced(
        &service.url("/sample"),
        CALLERS / REPLICAS as usize,
        4 * PAUSE * speed,
    );
    let first = recovered(&service, Duration::ZERO, speed).await.sample;
    let watch = Watch::start(service.url("/metrics"), Duration::from_millis(250) * speed);
    let mut printed = 0.0;
    loop {
        sleep(Duration::from_secs(1) * speed).await;
        let Some(now) = watch.latest() else { continue };
        let done = now.rotations - first.rotations;
        if replica == 0 && done >= printed + rotations / 20.0 {
            printed = done;
            println!("{done} of {rotations} rotations of the first replica");
        }
        if done >= rotations || load.has_failed() {
            break;
        }
    }
    let samples = watch.end().await;
    let last = recovered(&service, Duration::ZERO, speed).await.sample;
    let record = load.end().await;
    Rotated {
        service,
        first,
        last,
        samples,
        record,
    }
}

/// The mean in one of ten parts.
fn tenth(samples: &[Sample], number: usize, what: fn(&Sample) -> f64) -> f64 {
    let length = samples.len() / 10;
    let part = &samples[(number - 1) * length..number * length];
    #[expect(clippy::cast_precision_loss, reason = "they are a few thousand")]
    let count = part.len() as f64;
    part.iter().map(what).sum::<f64>() / count
}

/// A service that is back to normal.
struct Recovered {
    /// The time until it answered, and until everything was normal.
    resumed: Duration,
    healthy: Duration,
    sample: Sample,
}

/// Waits until the service answers, and then until all its connections are open and on the newest token, which has this
/// much left, by a clock that runs so much faster.
async fn recovered(service: &Service, left: Duration, speed: u32) -> Recovered {
    let start = Instant::now();
    let mut resumed = None;
    loop {
        let answers = service.get("/sample").await.status() == 200;
        let sample = Sample::of(&service.text("/metrics").await);
        let took = start.elapsed();
        if answers {
            let resumed = *resumed.get_or_insert(took);
            if sample.is_healthy(left) {
                return Recovered {
                    resumed,
                    healthy: took,
                    sample,
                };
            }
        }
        let limit = match resumed {
            None => RESUMES_WITHIN,
            Some(_) => HEALTHY_WITHIN,
        };
        assert!(took < limit * speed, "{sample:?}, {}", kept(service));
        sleep(Duration::from_millis(20)).await;
    }
}

/// Keeps the service's log, which is too long to print, and returns its path.
fn kept(service: &Service) -> String {
    let port = service.public.rsplit(':').next().expect("it has a port");
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("soak-{port}.log"));
    std::fs::write(&path, service.log()).expect("it can be written");
    format!("log: {}", path.display())
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}
