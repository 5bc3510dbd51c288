//! What happens on the device, in AWS's terms.

use std::time::Duration;

use dispatcher::{ExecutionId, Operation, Outcome, Progress, Verdict};
use jobs::{ExecutionKey, JobId, StatusDetails, StatusUpdate, UpdateStatus};

/// AWS's limit: a week.
const MAX_STEP_MINUTES: i32 = 10_080;

/// Names the boot that a reboot was ordered in. It stays in the cloud when the state directory is lost.
pub const BOOT_ID: &str = "bootId";

/// The first IN_PROGRESS of an execution. It arms the cloud's step timer, which sees a device that dies: for as long
/// as the operation waits on purpose, and `step` more.
pub fn starting(operation: &Operation, boot_id: &str, step: Option<Duration>) -> StatusUpdate {
    let details = StatusDetails::new().with("phase", "starting").with("operation", operation.name());
    let details = match operation {
        Operation::Reboot(_) => details.with(BOOT_ID, boot_id),
        _ => details,
    };
    let mut update = StatusUpdate::new(UpdateStatus::InProgress, details);
    update.step_timeout_minutes = step.map(|step| {
        let minutes = (step + operation.delay()).as_secs().div_ceil(60);
        i32::try_from(minutes).unwrap_or(i32::MAX).min(MAX_STEP_MINUTES)
    });
    update
}

/// The whole map each time: the service replaces what it had.
pub fn progress(
    operation: &Operation,
    boot_id: &str,
    step: Option<Duration>,
    progress: &Progress,
) -> StatusUpdate {
    let mut update = starting(operation, boot_id, step);
    let mut details = StatusDetails::new().with("phase", progress.phase);
    if let Some(percent) = progress.percent() {
        details = details.with("progress", format!("{percent}%"));
    }
    for (key, value) in update.details.iter().filter(|(key, _)| *key != "phase") {
        details = details.with(key, value);
    }
    update.details = details;
    update
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
        assert_eq!(pairs(&starting(&reboot(), "b", None)), expected);
        let progress = progress(&reboot(), "b", None, &Progress::phase("waiting"));
        assert_eq!(pairs(&progress), [("bootId", "b"), ("operation", "reboot"), ("phase", "waiting")]);
    }

    #[test]
    fn the_step_timer_outlasts_a_delay_and_stays_within_a_week() {
        let delayed = Operation::parse(&json!({"operation": "reboot", "delay": 90}), &Default::default());
        let delayed = delayed.unwrap().operation;
        let minutes = |operation: &Operation, step| starting(operation, "b", step).step_timeout_minutes;
        assert_eq!(minutes(&reboot(), None), None);
        assert_eq!(minutes(&reboot(), Some(Duration::from_secs(1800))), Some(30));
        assert_eq!(minutes(&delayed, Some(Duration::from_secs(1800))), Some(32));
        assert_eq!(minutes(&delayed, Some(Duration::from_secs(10_080 * 60))), Some(10_080));
    }

    #[test]
    fn progress_is_a_percentage_once_the_total_is_known() {
        let of = |done, total| {
            let update = progress(&reboot(), "b", None, &Progress { phase: "downloading", done, total });
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
