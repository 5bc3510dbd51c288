//! What the engine remembers of jobs: a job, what it means to each of its things, and the executions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::JobConfig;
use super::interface::Time;
use super::names::{Named, named};
use super::schedule::SchedulingConfig;

named!(
    /// State of an execution.
    Status {
        Queued = "QUEUED",
        InProgress = "IN_PROGRESS",
        Succeeded = "SUCCEEDED",
        Failed = "FAILED",
        TimedOut = "TIMED_OUT",
        Rejected = "REJECTED",
        Removed = "REMOVED",
        Canceled = "CANCELED",
    }
);

impl Status {
    pub fn is_pending(self) -> bool {
        matches!(self, Status::Queued | Status::InProgress)
    }
}

named!(
    /// State of a job.
    JobStatus {
        InProgress = "IN_PROGRESS",
        Canceled = "CANCELED",
        Completed = "COMPLETED",
        DeletionInProgress = "DELETION_IN_PROGRESS",
        Scheduled = "SCHEDULED",
    }
);

impl JobStatus {
    /// Not ended yet: it counts against the account's limit, and may still make executions.
    pub fn is_active(self) -> bool {
        matches!(self, JobStatus::InProgress | JobStatus::Scheduled)
    }
}

named!(TargetSelection { Snapshot = "SNAPSHOT", Continuous = "CONTINUOUS" });

/// One run of a job on a thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    pub number: i64,
    pub status: Status,
    pub version: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
    pub queued_at: Time,
    /// Executions in the order in which they were queued, also within one moment.
    #[serde(default)]
    pub turn: u64,
    pub started_at: Option<Time>,
    pub updated_at: Time,
    pub forced: bool,
    pub retry_attempt: u32,
    pub in_progress_deadline: Option<Time>,
    pub step_deadline: Option<Time>,
}

impl Execution {
    /// The earlier of the two timers; none of them runs unless the execution is IN_PROGRESS.
    pub fn deadline(&self) -> Option<Time> {
        if self.status != Status::InProgress {
            return None;
        }
        [self.in_progress_deadline, self.step_deadline].into_iter().flatten().min()
    }

    /// Writes a new state: every write is a new version.
    pub fn write(&mut self, now: Time, status: Status) {
        self.status = status;
        self.version += 1;
        self.updated_at = now;
    }

    /// QUEUED becomes IN_PROGRESS: the clock of the job's timeout starts.
    pub fn start(&mut self, now: Time, timeout_minutes: Option<i64>) {
        if self.status == Status::Queued {
            self.started_at = Some(now);
            self.in_progress_deadline = timeout_minutes.map(|minutes| now.plus_minutes(minutes));
        }
    }

    /// A new step timer replaces the running one; −1 discards it; none leaves it.
    pub fn set_step(&mut self, now: Time, minutes: Option<i64>) {
        match minutes {
            None => {}
            Some(-1) => self.step_deadline = None,
            Some(minutes) => self.step_deadline = Some(now.plus_minutes(minutes)),
        }
    }
}

/// What a job means to one thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its turn in the rollout.
    pub order: u64,
    /// The rollout has not come to it yet.
    pub waiting: bool,
    /// Oldest first. Only the last one can be pending.
    pub executions: Vec<Execution>,
    pub retries_failed: u32,
    pub retries_timed_out: u32,
}

impl Target {
    pub fn latest(&self) -> Option<&Execution> {
        self.executions.last()
    }

    pub fn latest_mut(&mut self) -> Option<&mut Execution> {
        self.executions.last_mut()
    }

    pub fn execution(&self, number: Option<i64>) -> Option<&Execution> {
        match number {
            None => self.latest(),
            Some(number) => self.executions.iter().find(|execution| execution.number == number),
        }
    }

    pub fn pending(&self) -> Option<&Execution> {
        self.latest().filter(|execution| execution.status.is_pending())
    }

    pub fn is_empty(&self) -> bool {
        !self.waiting && self.executions.is_empty()
    }
}

/// Things by the state of their latest execution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts([u64; Status::ALL.len()]);

impl Counts {
    pub fn of(&self, status: Status) -> u64 {
        self.0.get(status as usize).copied().unwrap_or(0)
    }

    pub fn add(&mut self, status: Status) {
        if let Some(count) = self.0.get_mut(status as usize) {
            *count += 1;
        }
    }

    pub fn remove(&mut self, status: Status) {
        if let Some(count) = self.0.get_mut(status as usize) {
            *count = count.saturating_sub(1);
        }
    }

    pub fn pending(&self) -> u64 {
        self.of(Status::Queued) + self.of(Status::InProgress)
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Things whose execution ended by itself.
    pub fn finished(&self) -> u64 {
        self.of(Status::Succeeded)
            + self.of(Status::Failed)
            + self.of(Status::Rejected)
            + self.of(Status::TimedOut)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub id: String,
    /// Jobs in the order of their creation; also the identity of a job, should its id be used again.
    pub seq: u64,
    pub targets: Vec<String>,
    pub selection: TargetSelection,
    pub status: JobStatus,
    /// As delivered, but for what is signed anew each time.
    pub document: String,
    /// Before parameters were filled in, where there were any.
    pub raw_document: Option<String>,
    pub document_source: Option<String>,
    pub description: Option<String>,
    pub config: JobConfig,
    pub scheduling: Option<SchedulingConfig>,
    pub parameters: BTreeMap<String, String>,
    pub template_arn: Option<String>,
    pub namespace: Option<String>,
    pub packages: Vec<String>,
    pub created_at: Time,
    pub updated_at: Time,
    pub completed_at: Option<Time>,
    pub forced: bool,
    pub reason_code: Option<String>,
    pub comment: Option<String>,
    /// Its first execution could have been made: the start time and the first window have come.
    pub started: bool,
    /// Its end time has passed: no new executions.
    pub ended: bool,
    /// The next minute boundary of its rollout.
    pub next_rollout: Option<Time>,
    /// The next moment at which its schedule starts, opens, closes or ends it.
    pub next_phase: Option<Time>,
    /// When its deletion is done.
    pub deleted_at: Option<Time>,
    #[serde(skip)]
    pub live: Live,
}

/// What follows from the job's rows, kept at hand.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub things: BTreeMap<String, Target>,
    /// Things in the order in which the rollout will come to them.
    pub waiting: BTreeMap<u64, String>,
    pub counts: Counts,
    pub parsed: Arc<Value>,
    /// The document has placeholders.
    pub signs: bool,
}

impl Job {
    /// Executions of a job that waits for its time are kept from the device.
    pub fn is_visible(&self) -> bool {
        self.status != JobStatus::Scheduled
    }

    pub fn is_rolling_out(&self) -> bool {
        self.status == JobStatus::InProgress && !self.live.waiting.is_empty()
    }
}
