//! Tests of the refresher with scripted sources, on paused time.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;

use super::{schedule::MIN_DELAY_AFTER_REJECTION, *};
use crate::secret::Secret;

const HOUR: Duration = Duration::from_secs(3600);

/// A source that returns the script's entries, one per call; the last one repeats.
struct Script {
    answers: Mutex<Vec<Answer>>,
    calls: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Answer {
    Token(&'static str, Duration),
    /// A different one each time.
    Fresh(Duration),
    Fail,
    Hang,
}

impl Script {
    fn new(answers: &[Answer]) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.to_vec()),
            calls: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl TokenSource for Script {
    fn name(&self) -> &'static str {
        "Script"
    }

    async fn fetch(&self) -> Result<AccessToken, Error> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = {
            let mut answers = self.answers.lock().expect("no panic while locked");
            match answers.len() {
                1 => answers[0],
                _ => answers.remove(0),
            }
        };
        match answer {
            Answer::Token(text, life) => Ok(AccessToken {
                username: "user".to_owned(),
                secret: Secret::new(text),
                expires_at: SystemTime::now() + life,
            }),
            Answer::Fresh(life) => Ok(AccessToken {
                username: "user".to_owned(),
                secret: Secret::new(format!("{:?}", fastrand::u128(..))),
                expires_at: SystemTime::now() + life,
            }),
            Answer::Fail => Err(Error::other(&std::fmt::Error)),
            Answer::Hang => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_source_is_retried_until_it_succeeds_while_the_token_stays_valid() {
    let source = Script::new(&[
        Answer::Token("a", HOUR),
        Answer::Fail,
        Answer::Hang,
        Answer::Fail,
        Answer::Token("b", HOUR),
    ]);
    let (refresher, mut tokens) = Refresher::new(source.clone());
    let task = tokio::spawn(refresher.run());
    tokens.changed().await;
    let first = tokens.newest().expect("it is live");
    assert_eq!(first.version, 1);
    tokens.changed().await;
    let second = tokens.newest().expect("it is live");
    assert!(
        first.is_live(),
        "the second arrived before the first expired"
    );
    assert_eq!((second.version, second.secret.expose()), (2, "b"));
    assert_eq!(source.calls.load(Ordering::SeqCst), 5);
    assert_eq!(tokens.status().failure, None);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn without_a_live_token_attempts_continue_every_few_seconds() {
    let source = Script::new(&[Answer::Fail]);
    let (refresher, tokens) = Refresher::new(source.clone());
    let task = tokio::spawn(refresher.run());
    sleep(HOUR).await;
    let calls = source.calls.load(Ordering::SeqCst);
    assert!(calls >= 1200, "{calls} attempts in an hour");
    assert!(!tokens.status().is_live());
    assert!(tokens.status().failure.is_some());
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_same_token_is_not_published_again() {
    let source = Script::new(&[Answer::Token("a", HOUR)]);
    let (refresher, mut tokens) = Refresher::new(source.clone());
    let task = tokio::spawn(refresher.run());
    tokens.changed().await;
    assert_eq!(tokens.newest().expect("it is live").version, 1);
    let again = timeout(HOUR, tokens.changed()).await;
    assert!(again.is_err(), "nothing new was published");
    assert!(source.calls.load(Ordering::SeqCst) > 3, "it was requested");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_redis_rejected_is_replaced_within_seconds() {
    let source = Script::new(&[Answer::Token("a", HOUR), Answer::Token("b", HOUR)]);
    let (refresher, mut tokens) = Refresher::new(source.clone());
    let task = tokio::spawn(refresher.run());
    tokens.changed().await;
    tokens.newest();
    let rejected = Instant::now();
    tokens.report_rejected();
    tokens.changed().await;
    assert!(
        rejected.elapsed() <= MIN_DELAY_AFTER_REJECTION,
        "{:?}",
        rejected.elapsed()
    );
    assert_eq!(tokens.newest().expect("it is live").secret.expose(), "b");
    task.abort();
}

/// A day of one-hour tokens, and one of one-day tokens: as few requests as needed, and never without a token.
#[tokio::test(start_paused = true)]
async fn one_hour_and_one_day_tokens_follow_without_a_gap() {
    for (life, least, most) in [(HOUR, 31, 40), (24 * HOUR, 1, 3)] {
        let source = Script::new(&[Answer::Fresh(life)]);
        let (refresher, mut tokens) = Refresher::new(source.clone());
        let task = tokio::spawn(refresher.run());
        tokens.changed().await;
        let end = Instant::now() + 24 * HOUR;
        while Instant::now() < end {
            assert!(tokens.newest().is_some(), "there is always a live token");
            sleep(Duration::from_secs(60)).await;
        }
        let requests = source.calls.load(Ordering::SeqCst);
        assert!(
            (least..=most).contains(&requests),
            "{requests} requests in a day of {life:?}"
        );
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_tokens_are_requested_less_and_less_often() {
    let source = Script::new(&[Answer::Fresh(HOUR)]);
    let (refresher, tokens) = Refresher::new(source.clone());
    let task = tokio::spawn(refresher.run());
    for _ in 0..3600 {
        tokens.report_rejected();
        sleep(Duration::from_secs(1)).await;
    }
    let requests = source.calls.load(Ordering::SeqCst);
    assert!(
        (8..20).contains(&requests),
        "{requests} requests in an hour of rejections"
    );
    task.abort();
}

#[tokio::test]
async fn a_token_with_a_life_of_years_is_refreshed_within_days() {
    let (refresher, _tokens) = Refresher::new(Script::new(&[Answer::Fail]));
    let far = AccessToken {
        username: "user".to_owned(),
        secret: Secret::new("far"),
        expires_at: SystemTime::now() + 24 * 3650 * HOUR,
    };
    match refresher.classify(far) {
        Ok(Outcome::New(token)) => assert!(token.remaining() <= MAX_LIFETIME),
        _ => panic!("it is usable"),
    }
}

#[tokio::test]
async fn a_token_received_after_its_expiry_is_an_error() {
    let (refresher, _tokens) = Refresher::new(Script::new(&[Answer::Fail]));
    let late = AccessToken {
        username: "user".to_owned(),
        secret: Secret::new("late"),
        expires_at: SystemTime::now() - Duration::from_secs(90),
    };
    match refresher.classify(late) {
        Err(error @ Error::Expired(_)) => assert!(error.to_string().contains("90.0 s")),
        _ => panic!("it has expired"),
    }
}
