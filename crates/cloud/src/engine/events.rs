//! `$aws/events`: what an account hears of its jobs.

use serde_json::{Value, json};

use super::Engine;
use super::interface::{Output, Time};
use super::model::{Execution, Job, Status};
use super::names::Named;

impl Engine {
    /// An event of a job: completed, canceled, deleted, or one of the two in progress.
    pub(super) fn job_event(&mut self, now: Time, job_id: &str, operation: &str) {
        if !self.event_types.get("JOB").copied().unwrap_or(false) {
            return;
        }
        let id = self.new_id();
        let Some(job) = self.jobs.get(job_id) else { return };
        let status = if operation == "deleted" { "DELETED" } else { job.status.name() };
        let mut payload = json!({
            "eventType": "JOB",
            "eventId": id,
            "timestamp": now.secs(),
            "operation": operation,
            "jobId": job.id,
            "status": status,
            "targetSelection": job.selection.name(),
            "targets": job.targets,
            "createdAt": job.created_at.millis(),
            "lastUpdatedAt": job.updated_at.millis(),
        });
        if let Some(members) = payload.as_object_mut() {
            let mut put =
                |name: &str, value: Option<Value>| value.map(|value| members.insert(name.to_owned(), value));
            put("description", job.description.clone().map(Value::from));
            put("comment", job.comment.clone().map(Value::from));
            put("completedAt", job.completed_at.map(|time| time.millis().into()));
            put("jobProcessDetails", (operation == "completed").then(|| process_details(job)));
        }
        let topic = format!("$aws/events/job/{job_id}/{operation}");
        self.events.push(Output::Publish { topic, payload });
    }

    /// An execution has ended, or was deleted.
    pub(super) fn execution_event(
        &mut self,
        now: Time,
        job_id: &str,
        thing: &str,
        execution: &Execution,
        deleted: bool,
    ) {
        if !self.event_types.get("JOB_EXECUTION").copied().unwrap_or(false) {
            return;
        }
        let operation = if deleted { "deleted".to_owned() } else { execution.status.name().to_lowercase() };
        let status = if deleted { "DELETED" } else { execution.status.name() };
        let payload = json!({
            "eventType": "JOB_EXECUTION",
            "eventId": self.new_id(),
            "timestamp": now.secs(),
            "operation": operation,
            "jobId": job_id,
            "thingArn": self.arn(&format!("thing/{thing}")),
            "status": status,
            "statusDetails": execution.details,
        });
        let topic = format!("$aws/events/jobExecution/{job_id}/{operation}");
        self.events.push(Output::Publish { topic, payload });
    }
}

fn process_details(job: &Job) -> Value {
    let of = |status| job.live.counts.of(status);
    json!({
        "numberOfCanceledThings": of(Status::Canceled),
        "numberOfRejectedThings": of(Status::Rejected),
        "numberOfFailedThings": of(Status::Failed),
        "numberOfRemovedThings": of(Status::Removed),
        "numberOfSucceededThings": of(Status::Succeeded),
    })
}
