//! How an operation goes and how it ended, in our terms. The agent turns both into AWS's.

use serde::{Deserialize, Serialize};

/// Where an operation is. Latest wins: nobody needs every value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: &'static str,
    pub done: u64,
    /// Absent while nobody knows how much there is to do.
    pub total: Option<u64>,
}

impl Progress {
    pub fn phase(phase: &'static str) -> Self {
        Self { phase, done: 0, total: None }
    }

    /// Whole percent, once the total is known.
    pub fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((u128::from(self.done) * 100 / u128::from(total)).min(100) as u64)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Succeeded,
    Failed,
    /// The order itself is wrong: trying again on this device cannot help, and AWS never retries it.
    Rejected,
}

/// How an operation ended. Written to the journal before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub verdict: Verdict,
    /// A code from `docs/reasons.md`: public, added to, never renamed.
    pub reason: String,
    pub message: String,
}

impl Outcome {
    pub fn succeeded(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Verdict::Succeeded, reason, message)
    }

    pub fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Verdict::Failed, reason, message)
    }

    pub fn rejected(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Verdict::Rejected, reason, message)
    }

    fn new(verdict: Verdict, reason: &str, message: impl Into<String>) -> Self {
        Self { verdict, reason: reason.to_owned(), message: message.into() }
    }
}

impl From<&crate::DocumentError> for Outcome {
    /// What this device does not have FAILED, a document that breaks its schema REJECTED: see `docs/decisions/`.
    fn from(error: &crate::DocumentError) -> Self {
        match error {
            crate::DocumentError::UnknownOperation(_) | crate::DocumentError::UnknownFile { .. } => {
                Self::failed(error.reason(), error.to_string())
            }
            crate::DocumentError::Invalid { .. } => Self::rejected(error.reason(), error.to_string()),
        }
    }
}
