//! What the service may say, and what it may not.

use jobs::wire::{DescribeAccepted, NextNotification, Rejection, UpdateAccepted};
use jobs::{ExecutionKey, JobExecution, JobId, RejectionCode, Status};
use serde_json::json;

fn execution() -> serde_json::Value {
    json!({"jobId": "job1", "queuedAt": 1_700_000_000, "lastUpdatedAt": 1_700_000_001, "executionNumber": 7,
           "versionNumber": 2, "status": "QUEUED", "jobDocument": {"operation": "reboot"}})
}

#[test]
fn an_execution_is_read_with_all_its_variants() {
    let plain: JobExecution = serde_json::from_value(execution()).unwrap();
    assert_eq!(
        (plain.queued_at, plain.started_at, plain.last_updated_at),
        (1_700_000_000, None, Some(1_700_000_001))
    );
    assert_eq!(plain.key().to_string(), "job1#7@1700000000");
    for (member, value) in [
        ("queuedAt", json!(1_700_000_000_000u64)),
        ("queuedAt", json!(1_700_000_000.25)),
        ("thingName", json!("edge-01")),
        ("statusDetails", json!({})),
        ("statusDetails", json!(null)),
        ("startedAt", json!(null)),
        ("approximateSecondsBeforeTimedOut", json!(null)),
        ("somethingNew", json!([[]])),
    ] {
        let mut other = execution();
        other[member] = value;
        assert_eq!(serde_json::from_value::<JobExecution>(other).unwrap(), plain, "{member}");
    }
    let mut full = execution();
    full["startedAt"] = json!(1_700_000_002_500u64);
    full["status"] = json!("IN_PROGRESS");
    full["statusDetails"] = json!({"step": "1"});
    full["approximateSecondsBeforeTimedOut"] = json!(59);
    let full: JobExecution = serde_json::from_value(full).unwrap();
    assert_eq!((full.started_at, full.status), (Some(1_700_000_002), Status::InProgress));
    assert_eq!(full.status_details["step"], "1");
    assert_eq!(full.approximate_seconds_before_timed_out, Some(59));
    let again: JobExecution = serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
    assert_eq!(again, full);
}

#[test]
fn an_envelope_that_is_not_well_formed_is_refused() {
    for (member, value) in [
        ("jobId", json!("a/b")),
        ("jobId", json!("$next")),
        ("jobId", json!("")),
        ("jobId", json!("x".repeat(65))),
        ("jobId", json!(null)),
        ("executionNumber", json!(-1)),
        ("versionNumber", json!("2")),
        ("status", json!(3)),
        ("queuedAt", json!("yesterday")),
        ("statusDetails", json!({"a": 1})),
    ] {
        let mut other = execution();
        other[member] = value.clone();
        assert!(serde_json::from_value::<JobExecution>(other).is_err(), "{member} = {value}");
    }
}

#[test]
fn a_status_of_the_future_is_neither_pending_nor_terminal() {
    let status: Status = serde_json::from_value(json!("PAUSED")).unwrap();
    assert_eq!((status, status.is_pending(), status.is_terminal()), (Status::Unknown, false, false));
    let terminal = ["SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "REMOVED", "CANCELED"];
    for name in terminal {
        assert!(serde_json::from_value::<Status>(json!(name)).unwrap().is_terminal(), "{name}");
    }
}

#[test]
fn answers_may_leave_out_what_they_like() {
    for empty in [json!({}), json!({"timestamp": 1}), json!({"timestamp": 1, "execution": null})] {
        let next: NextNotification = serde_json::from_value(empty.clone()).unwrap();
        assert_eq!(next.execution, None);
        assert_eq!(serde_json::from_value::<DescribeAccepted>(empty.clone()).unwrap().execution, None);
        assert_eq!(serde_json::from_value::<UpdateAccepted>(empty).unwrap().execution_state, None);
    }
}

#[test]
fn rejections_are_classified() {
    for (code, transient, invalid) in [
        ("InvalidTopic", false, true),
        ("InvalidJson", false, true),
        ("InvalidRequest", false, true),
        ("InvalidStateTransition", false, false),
        ("ResourceNotFound", false, false),
        ("VersionMismatch", false, false),
        ("TerminalStateReached", false, false),
        ("InternalError", true, false),
        ("RequestThrottled", true, false),
        ("SomethingNew", true, false),
    ] {
        let rejection: Rejection = serde_json::from_value(json!({"code": code, "clientToken": "t"})).unwrap();
        assert_eq!(
            (rejection.code.is_transient(), rejection.code.is_invalid_request()),
            (transient, invalid)
        );
        assert_eq!(rejection.code.to_string(), code);
    }
    assert_eq!(RejectionCode::from("x".repeat(10_000)).to_string().len(), 64);
}

#[test]
fn a_key_survives_the_journal_and_refuses_what_is_no_job_id() {
    let key =
        ExecutionKey { job_id: JobId::new("job-1").unwrap(), execution_number: 1, queued_at: 1_700_000_000 };
    let text = serde_json::to_string(&key).unwrap();
    assert_eq!(serde_json::from_str::<ExecutionKey>(&text).unwrap(), key);
    assert!(serde_json::from_str::<ExecutionKey>(&text.replace("job-1", "../job")).is_err());
    let error = JobId::new("../etc/passwd").unwrap_err().to_string();
    assert!(error.contains("1 to 64") && !error.contains("passwd"), "{error}");
}
