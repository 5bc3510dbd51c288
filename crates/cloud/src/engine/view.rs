//! How the device plane shows executions.

use serde_json::{Map, Value, json};

use super::Engine;
use super::compat::Unit;
use super::interface::Time;
use super::model::{Execution, Job};
use super::names::Named;

impl Engine {
    /// A time on the device plane.
    pub(super) fn stamp(&self, time: Time) -> Value {
        match self.settings.compat.timestamp_unit {
            Unit::Seconds => time.secs().into(),
            Unit::Milliseconds => time.millis().into(),
        }
    }

    /// JobExecutionSummary.
    pub(super) fn summary(&self, job: &Job, execution: &Execution) -> Value {
        Value::Object(self.summary_members(job, execution))
    }

    fn summary_members(&self, job: &Job, execution: &Execution) -> Map<String, Value> {
        let mut shown = Map::new();
        shown.insert("jobId".to_owned(), job.id.as_str().into());
        shown.insert("queuedAt".to_owned(), self.stamp(execution.queued_at));
        if let Some(started) = execution.started_at {
            shown.insert("startedAt".to_owned(), self.stamp(started));
        }
        shown.insert("lastUpdatedAt".to_owned(), self.stamp(execution.updated_at));
        shown.insert("versionNumber".to_owned(), execution.version.into());
        shown.insert("executionNumber".to_owned(), execution.number.into());
        shown
    }

    /// JobExecution without `thingName` and `jobDocument`, which not every message has.
    pub(super) fn execution_members(
        &self,
        now: Time,
        job: &Job,
        execution: &Execution,
    ) -> Map<String, Value> {
        let mut shown = self.summary_members(job, execution);
        shown.insert("status".to_owned(), execution.status.name().into());
        if !execution.details.is_empty() {
            shown.insert("statusDetails".to_owned(), json!(execution.details));
        }
        if let Some(left) = seconds_left(now, execution) {
            shown.insert("approximateSecondsBeforeTimedOut".to_owned(), left.into());
        }
        shown
    }
}

/// JobExecutionState.
pub(super) fn state(execution: &Execution) -> Value {
    let mut shown = json!({"status": execution.status.name(), "versionNumber": execution.version});
    if !execution.details.is_empty()
        && let Some(members) = shown.as_object_mut()
    {
        members.insert("statusDetails".to_owned(), json!(execution.details));
    }
    shown
}

pub(super) fn seconds_left(now: Time, execution: &Execution) -> Option<i64> {
    execution.deadline().map(|deadline| (deadline.millis() - now.millis()).max(0) / 1000)
}
