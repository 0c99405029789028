//! How findings are told: as lines for a person, as JSON for a program.

use std::{fmt, time::Duration};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// The steps, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// The variables of the service.
    Configuration,
    /// The endpoint's addresses.
    Dns,
    /// A connection to one of them.
    Tcp,
    /// The handshake and the certificate.
    Tls,
    /// What the platform gives the process of its identity.
    IdentityEnvironment,
    /// A token from Entra ID.
    Token,
    /// What the token says.
    Claims,
    /// AUTH.
    SignIn,
    /// One endpoint or a cluster, and each of its primaries.
    Clustering,
    /// PING, SET, GET and DEL.
    Commands,
    /// How long PING takes.
    Latency,
    /// The service that runs on this machine with the same variables.
    Service,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Configuration,
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::IdentityEnvironment,
        Self::Token,
        Self::Claims,
        Self::SignIn,
        Self::Clustering,
        Self::Commands,
        Self::Latency,
        Self::Service,
    ];
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
            Self::SignIn => "sign-in",
            Self::Clustering => "clustering policy",
            Self::Commands => "commands",
            Self::Latency => "latency",
            Self::Service => "service here",
        })
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is as it should be.
    Passed,
    /// It works and deserves a look.
    Warned,
    /// It does not work.
    Failed,
    /// Not taken, because an earlier one failed.
    Skipped,
    /// There is nothing to look at with this configuration.
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

/// What one step found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Which.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// What was met; may have several lines.
    pub found: String,
    /// What that means, where it is not as it should be.
    pub meaning: Option<String>,
    /// What to do about it.
    pub mend: Option<String>,
    /// How long it took; `None` for a step that was not taken.
    pub duration_s: Option<f64>,
}

/// How a step ended, in words.
pub(super) struct Verdict {
    outcome: Outcome,
    found: String,
    meaning: Option<String>,
    mend: Option<String>,
}

impl Verdict {
    pub(super) fn passed(found: impl fmt::Display) -> Self {
        Self::plain(Outcome::Passed, found)
    }

    pub(super) fn not_applicable(why: impl fmt::Display) -> Self {
        Self::plain(Outcome::NotApplicable, why)
    }

    pub(super) fn skipped(ground: Step) -> Self {
        Self::plain(Outcome::Skipped, format!("{ground} failed"))
    }

    pub(super) fn warned(
        found: impl fmt::Display,
        meaning: impl fmt::Display,
        mend: impl fmt::Display,
    ) -> Self {
        Self::explained(Outcome::Warned, found, meaning, mend)
    }

    pub(super) fn failed(
        found: impl fmt::Display,
        meaning: impl fmt::Display,
        mend: impl fmt::Display,
    ) -> Self {
        Self::explained(Outcome::Failed, found, meaning, mend)
    }

    pub(super) fn is_failed(&self) -> bool {
        self.outcome == Outcome::Failed
    }

    fn plain(outcome: Outcome, found: impl fmt::Display) -> Self {
        Self {
            outcome,
            found: found.to_string(),
            meaning: None,
            mend: None,
        }
    }

    fn explained(
        outcome: Outcome,
        found: impl fmt::Display,
        meaning: impl fmt::Display,
        mend: impl fmt::Display,
    ) -> Self {
        Self {
            outcome,
            found: found.to_string(),
            meaning: Some(meaning.to_string()),
            mend: Some(mend.to_string()),
        }
    }
}

impl Finding {
    pub(super) fn new(step: Step, verdict: Verdict, took: Option<Duration>) -> Self {
        Self {
            step,
            outcome: verdict.outcome,
            found: verdict.found,
            meaning: verdict.meaning,
            mend: verdict.mend,
            duration_s: took.map(|took| took.as_secs_f64()),
        }
    }
}

impl fmt::Display for Finding {
    /// One line and, where there is something to do, two more; with colours, for who prints it to strip.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, style) = self.outcome.mark();
        let indented = |text: &str| text.replace('\n', "\n                         ");
        write!(f, "{style}{mark} {:<22}{style:#} ", self.step)?;
        if self.outcome == Outcome::Skipped {
            write!(f, "skipped: ")?;
        }
        f.write_str(&indented(&self.found))?;
        let bold = Style::new().bold();
        for (label, text) in [("means", &self.meaning), ("do", &self.mend)] {
            if let Some(text) = text {
                write!(
                    f,
                    "\n  {:17}{bold}{label:>5}{bold:#} {}",
                    "",
                    indented(text)
                )?;
            }
        }
        Ok(())
    }
}

/// What all steps found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// In the order of the steps.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether no step failed or had to be skipped.
    pub fn is_well(&self) -> bool {
        let is_bad = |outcome| matches!(outcome, Outcome::Failed | Outcome::Skipped);
        !self.findings.iter().any(|finding| is_bad(finding.outcome))
    }

    fn count(&self, outcome: Outcome) -> usize {
        let same = |finding: &&Finding| finding.outcome == outcome;
        self.findings.iter().filter(same).count()
    }

    /// The report as a JSON document: `well` and the findings.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "well": self.is_well(), "findings": self.findings })
    }
}

impl fmt::Display for Report {
    /// The last line: how many steps ended how.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (Outcome::Passed, "passed"),
            (Outcome::Warned, "warned"),
            (Outcome::Failed, "failed"),
            (Outcome::Skipped, "skipped"),
        ];
        let counts = words.map(|(outcome, word)| (self.count(outcome), word));
        let told = counts.iter().filter(|(count, _)| *count > 0);
        let told: Vec<_> = told
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        f.write_str(&told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_well_unless_a_step_failed_or_was_skipped() {
        for (verdict, well) in [
            (Verdict::passed(""), true),
            (Verdict::warned("", "", ""), true),
            (Verdict::not_applicable(""), true),
            (Verdict::failed("", "", ""), false),
            (Verdict::skipped(Step::Dns), false),
        ] {
            let findings = vec![
                Finding::new(Step::Dns, Verdict::passed(""), None),
                Finding::new(Step::Latency, verdict, None),
            ];
            let report = Report { findings };
            assert_eq!(report.is_well(), well, "{report}");
        }
    }
}
