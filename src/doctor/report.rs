//! Findings as lines for a person and as JSON for a program.

use std::fmt;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// The steps, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// The variables of the service.
    Configuration,
    /// The addresses of the endpoint.
    Dns,
    /// A connection to one of them.
    Tcp,
    /// The handshake and the certificate.
    Tls,
    /// The identity that the platform gives the process.
    IdentityEnvironment,
    /// A token from Entra ID.
    Token,
    /// The content of the token.
    Claims,
    /// AUTH, and AUTH again on the same connection.
    Authentication,
    /// One endpoint or a cluster, and each of its primaries.
    Clustering,
    /// PING, SET, GET and DEL.
    Commands,
    /// The round-trip time of PING.
    Latency,
    /// The service that runs on this machine with the same variables.
    LocalService,
}

impl Step {
    /// All steps in order.
    pub const ALL: [Self; 12] = [
        Self::Configuration,
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::IdentityEnvironment,
        Self::Token,
        Self::Claims,
        Self::Authentication,
        Self::Clustering,
        Self::Commands,
        Self::Latency,
        Self::LocalService,
    ];

    /// Returns the steps without which this one is skipped.
    fn prerequisites(self) -> &'static [Self] {
        match self {
            Self::Configuration => &[],
            Self::Dns | Self::IdentityEnvironment | Self::LocalService => &[Self::Configuration],
            Self::Tcp => &[Self::Dns],
            Self::Tls => &[Self::Tcp],
            Self::Token => &[Self::IdentityEnvironment],
            Self::Claims => &[Self::Token],
            Self::Authentication => &[Self::Tls, Self::Claims],
            Self::Clustering => &[Self::Authentication],
            Self::Commands => &[Self::Clustering],
            Self::Latency => &[Self::Commands],
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Configuration => "configuration",
            Self::Dns => "DNS",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::IdentityEnvironment => "identity environment",
            Self::Token => "token",
            Self::Claims => "claims",
            Self::Authentication => "authentication",
            Self::Clustering => "clustering policy",
            Self::Commands => "commands",
            Self::Latency => "latency",
            Self::LocalService => "local service",
        })
    }
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Everything is as it should be.
    Passed,
    /// It works, and something needs attention.
    Warned,
    /// It does not work.
    Failed,
    /// Not taken, because an earlier step failed.
    Skipped,
    /// There is nothing to check with this configuration.
    NotApplicable,
}

impl Outcome {
    fn mark(self) -> (&'static str, Style) {
        let colour = |colour: AnsiColor| colour.on_default();
        match self {
            Self::Passed => ("✔", colour(AnsiColor::Green)),
            Self::Warned => ("!", colour(AnsiColor::Yellow).bold()),
            Self::Failed => ("✘", colour(AnsiColor::Red).bold()),
            Self::Skipped => ("-", Style::new().dimmed()),
            Self::NotApplicable => ("·", Style::new().dimmed()),
        }
    }
}

/// The finding of one step.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The step.
    pub step: Step,
    /// Its outcome.
    pub outcome: Outcome,
    /// The observation; may have several lines.
    pub observed: String,
    /// The likely cause, where the outcome is a warning or a failure.
    pub cause: Option<String>,
    /// The action that fixes it.
    pub fix: Option<String>,
    /// Duration in seconds; `None` for a step that was not taken.
    pub duration_s: Option<f64>,
}

impl fmt::Display for Finding {
    /// Writes one line and, where there is something to fix, two more; with styles, which the printer removes where they
    /// cannot be displayed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, style) = self.outcome.mark();
        let indented = |text: &str| text.replace('\n', "\n                         ");
        write!(f, "{style}{mark} {:<22}{style:#} ", self.step)?;
        if self.outcome == Outcome::Skipped {
            write!(f, "skipped: ")?;
        }
        f.write_str(&indented(&self.observed))?;
        let bold = Style::new().bold();
        for (label, text) in [("cause:", &self.cause), ("fix:", &self.fix)] {
            if let Some(text) = text {
                let text = indented(text);
                write!(f, "\n{:18}{bold}{label:>6}{bold:#} {text}", "")?;
            }
        }
        Ok(())
    }
}

/// The findings of all steps.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The findings in the order of the steps.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Returns true if no step failed or was skipped.
    pub fn is_healthy(&self) -> bool {
        let is_bad = |outcome| matches!(outcome, Outcome::Failed | Outcome::Skipped);
        !self.findings.iter().any(|finding| is_bad(finding.outcome))
    }

    /// Returns the report as a JSON document: `healthy` and `findings`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "healthy": self.is_healthy(), "findings": self.findings })
    }

    pub(super) fn finding(&self, step: Step) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.step == step)
    }

    /// Returns the first failed step among those that `step` needs, directly or indirectly.
    pub(super) fn failed_prerequisite(&self, step: Step) -> Option<Step> {
        let mut needed = step.prerequisites().iter();
        needed.find_map(|&needed| match self.finding(needed) {
            Some(finding) if finding.outcome == Outcome::Failed => Some(needed),
            _ => self.failed_prerequisite(needed),
        })
    }

    fn count(&self, outcome: Outcome) -> usize {
        let same = |finding: &&Finding| finding.outcome == outcome;
        self.findings.iter().filter(same).count()
    }
}

impl fmt::Display for Report {
    /// Writes the last line: the number of steps by outcome.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (Outcome::Passed, "passed"),
            (Outcome::Warned, "warned"),
            (Outcome::Failed, "failed"),
            (Outcome::Skipped, "skipped"),
        ];
        let counts = words.map(|(outcome, word)| (self.count(outcome), word));
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        f.write_str(&counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(step: Step, outcome: Outcome) -> Finding {
        Finding {
            step,
            outcome,
            observed: String::new(),
            cause: None,
            fix: None,
            duration_s: None,
        }
    }

    #[test]
    fn a_report_is_healthy_unless_a_step_failed_or_was_skipped() {
        for (outcome, healthy) in [
            (Outcome::Passed, true),
            (Outcome::Warned, true),
            (Outcome::NotApplicable, true),
            (Outcome::Failed, false),
            (Outcome::Skipped, false),
        ] {
            let findings = vec![
                finding(Step::Dns, Outcome::Passed),
                finding(Step::Latency, outcome),
            ];
            let report = Report { findings };
            assert_eq!(report.is_healthy(), healthy, "{report}");
        }
    }

    #[test]
    fn a_step_needs_only_earlier_ones() {
        for (place, step) in Step::ALL.into_iter().enumerate() {
            let earlier = &Step::ALL[..place];
            assert!(step.prerequisites().iter().all(|one| earlier.contains(one)));
        }
    }

    #[test]
    fn a_skipped_step_names_the_one_that_failed() {
        use Outcome::{Failed, Passed, Skipped};
        for (outcomes, step, failed) in [
            (&[(Step::Tcp, Failed)][..], Step::Tls, Some(Step::Tcp)),
            (
                &[(Step::Dns, Failed), (Step::Tcp, Skipped)],
                Step::Latency,
                Some(Step::Dns),
            ),
            (
                &[(Step::Tls, Passed), (Step::Token, Failed)],
                Step::Authentication,
                Some(Step::Token),
            ),
            (
                &[(Step::Tls, Failed), (Step::Token, Failed)],
                Step::Commands,
                Some(Step::Tls),
            ),
            (
                &[(Step::Configuration, Failed)],
                Step::LocalService,
                Some(Step::Configuration),
            ),
            (&[(Step::Token, Failed)], Step::Tls, None),
        ] {
            let findings = outcomes
                .iter()
                .map(|(step, outcome)| finding(*step, *outcome));
            let report = Report {
                findings: findings.collect(),
            };
            assert_eq!(report.failed_prerequisite(step), failed, "{outcomes:?}");
        }
    }
}
