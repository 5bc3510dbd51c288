//! What happens on the device, in AWS's terms.

use dispatcher::{ExecutionId, Operation, Outcome, Progress, Verdict};
use jobs::{ExecutionKey, JobId, StatusDetails, StatusUpdate, UpdateStatus};

/// Names the boot that a reboot was ordered in. It stays in the cloud when the state directory is lost.
pub const BOOT_ID: &str = "bootId";

/// The first IN_PROGRESS of an execution.
pub fn starting(operation: &Operation, boot_id: &str) -> StatusUpdate {
    let details = StatusDetails::new().with("phase", "starting").with("operation", operation.name());
    let details = match operation {
        Operation::Reboot(_) => details.with(BOOT_ID, boot_id),
        _ => details,
    };
    StatusUpdate::new(UpdateStatus::InProgress, details)
}

/// The whole map each time: the service replaces what it had.
pub fn progress(operation: &Operation, boot_id: &str, progress: &Progress) -> StatusUpdate {
    let StatusUpdate { details: starting, .. } = starting(operation, boot_id);
    let mut details = StatusDetails::new().with("phase", progress.phase);
    if let Some(percent) = progress.percent() {
        details = details.with("progress", format!("{percent}%"));
    }
    for (key, value) in starting.iter().filter(|(key, _)| *key != "phase") {
        details = details.with(key, value);
    }
    StatusUpdate::new(UpdateStatus::InProgress, details)
}

pub fn terminal(outcome: &Outcome) -> StatusUpdate {
    let status = match outcome.verdict {
        Verdict::Succeeded => UpdateStatus::Succeeded,
        Verdict::Failed => UpdateStatus::Failed,
        Verdict::Rejected => UpdateStatus::Rejected,
    };
    let details = StatusDetails::new().with("reason", &outcome.reason).with("message", &outcome.message);
    StatusUpdate::new(status, details)
}

/// The journal's name for an execution, which knows nothing of AWS.
pub fn id(key: &ExecutionKey) -> ExecutionId {
    ExecutionId {
        job_id: key.job_id.as_str().to_owned(),
        execution_number: key.execution_number,
        queued_at: key.queued_at,
    }
}

/// `None` for a journal that names no legal job: somebody else wrote it.
pub fn key(id: &ExecutionId) -> Option<ExecutionKey> {
    let job_id = JobId::new(id.job_id.clone()).ok()?;
    Some(ExecutionKey { job_id, execution_number: id.execution_number, queued_at: id.queued_at })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reboot() -> Operation {
        Operation::parse(&json!({"operation": "reboot"}), &Default::default()).unwrap().operation
    }

    fn pairs(update: &StatusUpdate) -> Vec<(&str, &str)> {
        update.details.iter().collect()
    }

    #[test]
    fn a_reboot_names_its_boot_in_every_update() {
        let expected = [("bootId", "b"), ("operation", "reboot"), ("phase", "starting")];
        assert_eq!(pairs(&starting(&reboot(), "b")), expected);
        let progress = progress(&reboot(), "b", &Progress::phase("waiting"));
        assert_eq!(pairs(&progress), [("bootId", "b"), ("operation", "reboot"), ("phase", "waiting")]);
    }

    #[test]
    fn progress_is_a_percentage_once_the_total_is_known() {
        let of = |done, total| {
            let update = progress(&reboot(), "b", &Progress { phase: "downloading", done, total });
            update.details.get("progress").map(str::to_owned)
        };
        assert_eq!(of(5, None), None);
        assert_eq!(of(0, Some(0)), None);
        assert_eq!(of(1, Some(3)).as_deref(), Some("33%"));
        assert_eq!(of(u64::MAX, Some(u64::MAX)).as_deref(), Some("100%"));
        assert_eq!(of(7, Some(5)).as_deref(), Some("100%"));
    }

    #[test]
    fn every_outcome_has_its_status_and_reason() {
        let cases = [
            (Outcome::succeeded("installed", "m"), UpdateStatus::Succeeded),
            (Outcome::failed("installed", "m"), UpdateStatus::Failed),
            (Outcome::rejected("installed", "m"), UpdateStatus::Rejected),
        ];
        for (outcome, status) in cases {
            let update = terminal(&outcome);
            assert_eq!(update.status, status);
            assert_eq!(pairs(&update), [("message", "m"), ("reason", "installed")]);
        }
    }
}
