//! The plan an agent hands in: limited here, shown by [`super::note`].

use crate::text::{self, one_line};
use serde::{Deserialize, Serialize};

/// What an agent found out and would do. An untrusted agent writes it: every
/// field is cut by [`Plan::bounded`] and escaped where it is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plan {
    /// What is being asked, in one or two sentences.
    pub asked: String,
    /// Facts found.
    pub findings: Vec<String>,
    pub likely_cause: String,
    /// What the agent would do, in order.
    pub steps: Vec<String>,
    /// What to ask the requester.
    pub questions: Vec<String>,
    pub confidence: Confidence,
    /// What was checked.
    pub looked_at: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confidence {
    #[default]
    Low,
    Medium,
    High,
}

impl Confidence {
    pub fn as_str(self) -> &'static str {
        match self {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        }
    }
}

/// Lines per list.
pub(super) const MAX_LINES: usize = 20;
/// Characters per line.
pub(super) const MAX_LINE: usize = 600;

impl Plan {
    /// The plan, cut to what a technician reads and HaloPSA stores.
    pub fn bounded(self) -> Self {
        let line = |s: String| one_line(text::cut(&s, 4 * MAX_LINE), MAX_LINE);
        let lines = |v: Vec<String>| {
            v.into_iter()
                .take(MAX_LINES)
                .map(line)
                .filter(|l| !l.is_empty())
                .collect()
        };
        Self {
            asked: line(self.asked),
            findings: lines(self.findings),
            likely_cause: line(self.likely_cause),
            steps: lines(self.steps),
            questions: lines(self.questions),
            confidence: self.confidence,
            looked_at: lines(self.looked_at),
        }
    }

    /// Whether it says nothing: a plan needs `asked`, and findings, steps or questions.
    pub fn is_empty(&self) -> bool {
        self.asked.trim().is_empty()
            || (self.steps.is_empty() && self.questions.is_empty() && self.findings.is_empty())
    }
}
