//! The execution that is ours at the moment.

use std::time::{Duration, Instant};

use dispatcher::{Operation, Outcome, Parsed, Progress, Rules, Verdict};
use jobs::{ExecutionKey, JobExecution, StatusUpdate};
use serde_json::Value;

use crate::deadline::Deadline;
use crate::view::{Doing, Stage};

pub struct Held {
    /// Absent for what was ordered on the device itself: nobody is owed a report.
    pub key: Option<ExecutionKey>,
    /// Absent for what a restart finishes from the journal alone.
    pub operation: Option<Operation>,
    /// How long its document lets it take, with all its waiting.
    pub timeout: Option<Duration>,
    /// While it runs: until when.
    pub deadline: Option<Deadline>,
    /// How it ended, once it has.
    pub update: Option<StatusUpdate>,
    /// What the log was told last.
    phase: &'static str,
}

impl Held {
    pub fn new(key: Option<ExecutionKey>) -> Self {
        Self { key, operation: None, timeout: None, deadline: None, update: None, phase: "starting" }
    }

    pub fn understood(&mut self, parsed: Parsed) {
        self.timeout = parsed.timeout;
        self.operation = Some(parsed.operation);
    }

    pub fn doing(&self, progress: Progress) -> Doing {
        let ended = self.update.as_ref().map(|update| Stage::Ended(update.status.name()));
        Doing {
            job_id: self.key.as_ref().map(|key| key.job_id.as_str().to_owned()),
            execution_number: self.key.as_ref().map(|key| key.execution_number),
            operation: self.operation.as_ref().map(Operation::name),
            stage: ended.unwrap_or(Stage::Runs(progress)),
        }
    }

    /// Around everything that is logged while it runs.
    pub fn span(&self) -> tracing::Span {
        let (job_id, execution) = names(self.key.as_ref());
        tracing::error_span!("job", job_id, execution, version = self.version())
    }

    /// What it waits for at a known time is not its own doing. What its document says counts all the same.
    pub fn progressed(&mut self, now: Instant, progress: &Progress) {
        let before = std::mem::replace(&mut self.phase, progress.phase);
        // A wait says for itself until when it is.
        if before != progress.phase && progress.wait.is_none() {
            self.span().in_scope(|| tracing::info!(phase = progress.phase, "goes on"));
        }
        if let Self { timeout: None, deadline: Some(deadline), .. } = self {
            deadline.pause(now, progress.wait.is_some_and(|wait| wait.lasts.is_some()));
        }
    }

    /// An update has armed the cloud's step timer.
    pub fn armed(&mut self, now: Instant, step: Duration) {
        if let Some(deadline) = &mut self.deadline {
            deadline.armed(now, step);
        }
    }

    pub fn cloud_waits(&mut self, execution: &JobExecution) {
        let left = execution.approximate_seconds_before_timed_out.map(Duration::from_secs);
        if let (Some(deadline), Some(left)) = (&mut self.deadline, left) {
            deadline.cloud_waits(Instant::now(), left);
        }
    }

    /// Of the firmware that it installs.
    fn version(&self) -> Option<&str> {
        match &self.operation {
            Some(Operation::UpdateFirmware(update)) => Some(&update.version),
            _ => None,
        }
    }

    pub fn log_end(&self, outcome: &Outcome) {
        let (job_id, execution) = names(self.key.as_ref());
        let version = self.version();
        let Outcome { verdict, reason, message: detail } = outcome;
        match verdict {
            Verdict::Succeeded => {
                tracing::info!(name: "job-succeeded", job_id, execution, version, ?verdict, reason, detail, "ended");
            }
            Verdict::Failed => {
                tracing::warn!(name: "job-failed", job_id, execution, version, ?verdict, reason, detail, "ended");
            }
            Verdict::Rejected => {
                tracing::warn!(name: "job-rejected", job_id, execution, version, ?verdict, reason, detail, "ended");
            }
        }
    }
}

fn names(key: Option<&ExecutionKey>) -> (Option<&str>, Option<u64>) {
    (key.map(|key| key.job_id.as_str()), key.map(|key| key.execution_number))
}

/// A document is understood here, or ends here. Nothing on the device has changed.
pub fn understand(execution: &JobExecution, rules: &Rules) -> Result<Parsed, Outcome> {
    let parsed = Operation::parse(execution.document.as_ref().unwrap_or(&Value::Null), rules);
    let parsed = parsed.map_err(|error| Outcome::from(&error))?;
    for warning in &parsed.warnings {
        tracing::warn!(job_id = %execution.job_id, "{warning}");
    }
    Ok(parsed)
}
