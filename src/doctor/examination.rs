//! One examination: runs the steps in their order, records a finding for each and reports progress.

use std::{fmt, time::Instant};

use super::{
    Progress,
    report::{Finding, Outcome, Report, Step},
};

/// The result of a step.
pub(super) type Checked<T> = Result<Passed<T>, Failed>;

/// A step that succeeded, if with a warning, and what the next step needs of it.
pub(super) struct Passed<T> {
    pub(super) value: T,
    outcome: Outcome,
    observed: String,
    advice: Option<Advice>,
}

/// A step that failed.
pub(super) struct Failed {
    observed: String,
    advice: Advice,
}

struct Advice {
    cause: String,
    fix: String,
}

impl<T> Passed<T> {
    pub(super) fn new(observed: impl fmt::Display, value: T) -> Self {
        Self {
            value,
            outcome: Outcome::Passed,
            observed: observed.to_string(),
            advice: None,
        }
    }

    pub(super) fn not_applicable(reason: impl fmt::Display, value: T) -> Self {
        Self {
            outcome: Outcome::NotApplicable,
            ..Self::new(reason, value)
        }
    }

    pub(super) fn warned(
        observed: impl fmt::Display,
        cause: impl fmt::Display,
        fix: impl fmt::Display,
        value: T,
    ) -> Self {
        Self {
            outcome: Outcome::Warned,
            advice: Some(Advice::new(cause, fix)),
            ..Self::new(observed, value)
        }
    }
}

impl Failed {
    pub(super) fn new(
        observed: impl fmt::Display,
        cause: impl fmt::Display,
        fix: impl fmt::Display,
    ) -> Self {
        Self {
            observed: observed.to_string(),
            advice: Advice::new(cause, fix),
        }
    }
}

impl Advice {
    fn new(cause: impl fmt::Display, fix: impl fmt::Display) -> Self {
        Self {
            cause: cause.to_string(),
            fix: fix.to_string(),
        }
    }
}

/// The findings so far, and the listener of progress.
pub(super) struct Examination<P> {
    report: Report,
    progress: P,
}

impl<P: FnMut(Progress<'_>) + Send> Examination<P> {
    pub(super) fn new(progress: P) -> Self {
        Self {
            report: Report::default(),
            progress,
        }
    }

    /// Runs a step and records its finding. Returns `None` if it failed: the steps that need it are then skipped by
    /// [`Examination::skip_to`].
    pub(super) async fn step<T>(
        &mut self,
        step: Step,
        work: impl Future<Output = Checked<T>>,
    ) -> Option<T> {
        (self.progress)(Progress::Started(step));
        let started = Instant::now();
        let result = work.await;
        let (finding, value) = finding(step, result);
        let was_taken = finding.outcome != Outcome::NotApplicable;
        self.add(Finding {
            duration_s: was_taken.then(|| started.elapsed().as_secs_f64()),
            ..finding
        });
        value
    }

    /// Records a step without running it.
    pub(super) fn not_applicable(&mut self, step: Step, reason: &str) {
        let (finding, _) = finding(step, Ok(Passed::not_applicable(reason, ())));
        self.add(finding);
    }

    /// Records every step up to and including `last` that has no finding yet as skipped.
    pub(super) fn skip_to(&mut self, last: Step) {
        for step in Step::ALL {
            if step <= last && self.report.finding(step).is_none() {
                let observed = match self.report.failed_prerequisite(step) {
                    Some(failed) => format!("{failed} failed"),
                    None => "an earlier step failed".to_owned(),
                };
                self.add(Finding {
                    step,
                    outcome: Outcome::Skipped,
                    observed,
                    cause: None,
                    fix: None,
                    duration_s: None,
                });
            }
        }
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    pub(super) fn into_report(self) -> Report {
        self.report
    }

    fn add(&mut self, finding: Finding) {
        (self.progress)(Progress::Finished(&finding));
        self.report.findings.push(finding);
    }
}

/// Returns the finding of a step, without its duration, and the value of one that succeeded.
pub(super) fn finding<T>(step: Step, result: Checked<T>) -> (Finding, Option<T>) {
    let (outcome, observed, advice, value) = match result {
        Ok(passed) => (
            passed.outcome,
            passed.observed,
            passed.advice,
            Some(passed.value),
        ),
        Err(failed) => (Outcome::Failed, failed.observed, Some(failed.advice), None),
    };
    let (cause, fix) = advice.map(|advice| (advice.cause, advice.fix)).unzip();
    let finding = Finding {
        step,
        outcome,
        observed,
        cause,
        fix,
        duration_s: None,
    };
    (finding, value)
}
