//! What happens on the device, in AWS's terms.

use std::time::Duration;

use dispatcher::{ExecutionId, Operation, Outcome, Progress, Verdict};
use jobs::{ExecutionKey, JobId, StatusDetails, StatusUpdate, UpdateStatus};

/// AWS's limit: a week.
const MAX_STEP_MINUTES: i32 = 10_080;

/// Names the boot that a reboot was ordered in. It stays in the cloud when the state directory is lost.
pub const BOOT_ID: &str = "bootId";

/// How much longer than usual the cloud waits for an operation that waits for it is not known how long. Each report
/// wakes a modem; that a device died meanwhile is seen so much later.
const OPEN_END: Duration = Duration::from_secs(6 * 60 * 60);

/// The first IN_PROGRESS of an execution.
pub fn starting(operation: &Operation, boot_id: &str, step: Option<Duration>) -> StatusUpdate {
    progress(operation, boot_id, step, &Progress::phase("starting"))
}

/// The whole map each time: the service replaces what it had. It arms the cloud's step timer, which sees a device that
/// dies: for as long as the operation waits on purpose, and `step` more.
pub fn progress(
    operation: &Operation,
    boot_id: &str,
    step: Option<Duration>,
    progress: &Progress,
) -> StatusUpdate {
    let mut details = StatusDetails::new().with("phase", progress.phase).with("operation", operation.name());
    if let Some(percent) = progress.percent() {
        details = details.with("progress", format!("{percent}%"));
    }
    if let Some(wait) = &progress.wait {
        details = details.with("until", wait.until.to_string());
    }
    if let Operation::Reboot(_) = operation {
        details = details.with(BOOT_ID, boot_id);
    }
    let waits = progress.wait.map_or(Duration::ZERO, |wait| wait.lasts.unwrap_or(OPEN_END));
    let mut update = StatusUpdate::new(UpdateStatus::InProgress, details);
    update.step_timeout_minutes = step.map(|step| {
        let minutes = step.saturating_add(waits).as_secs().div_ceil(60);
        i32::try_from(minutes).unwrap_or(i32::MAX).min(MAX_STEP_MINUTES)
    });
    update
}

/// For how long this update arms the step timer.
pub fn armed(update: &StatusUpdate) -> Option<Duration> {
    let minutes = update.step_timeout_minutes.and_then(|minutes| u64::try_from(minutes).ok())?;
    Some(Duration::from_secs(minutes * 60))
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
    use dispatcher::{Until, Wait};
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

    fn waiting(until: Until, lasts: Option<Duration>) -> Progress {
        Progress::waiting(Wait { until, lasts })
    }

    #[test]
    fn the_step_timer_outlasts_a_wait_and_stays_within_a_week() {
        let minutes = |seconds: Option<u64>, step| {
            let wait = waiting(Until::Unknown, seconds.map(Duration::from_secs));
            progress(&reboot(), "b", step, &wait).step_timeout_minutes
        };
        let (half_an_hour, week) = (Some(Duration::from_secs(1800)), 7 * 24 * 3600);
        assert_eq!(starting(&reboot(), "b", None).step_timeout_minutes, None);
        assert_eq!(starting(&reboot(), "b", half_an_hour).step_timeout_minutes, Some(30));
        assert_eq!(minutes(Some(90), None), None);
        assert_eq!(minutes(Some(90), half_an_hour), Some(32));
        assert_eq!(minutes(None, half_an_hour), Some(390));
        assert_eq!(minutes(Some(week), half_an_hour), Some(10_080));
        assert_eq!(minutes(Some(u64::MAX / 4), half_an_hour), Some(10_080));
        assert_eq!(armed(&progress(&reboot(), "b", half_an_hour, &Progress::phase("x"))), half_an_hour);
    }

    #[test]
    fn a_wait_says_until_when() {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_792_889_105);
        let cases = [
            (Until::Time(time), "2026-10-25T00:45:05Z"),
            (Until::ClockSet, "clock-set"),
            (Until::Unknown, "unknown"),
        ];
        for (until, expected) in cases {
            let update = progress(&reboot(), "b", None, &waiting(until, None));
            assert_eq!(update.details.get("until"), Some(expected));
            assert_eq!(update.details.get("phase"), Some("waiting"));
        }
    }

    #[test]
    fn progress_is_a_percentage_once_the_total_is_known() {
        let of = |done, total| {
            let update =
                progress(&reboot(), "b", None, &Progress { done, total, ..Progress::phase("downloading") });
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
