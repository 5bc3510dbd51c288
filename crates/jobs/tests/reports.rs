//! The session's rules for reports: an outcome arrives, once, whatever the service and the wire do.

mod common;

use common::*;
use jobs::{Action, RejectionCode, Settlement, Status, UpdateStatus};
use serde_json::json;

#[test]
fn an_outcome_from_the_journal_is_reported_without_an_offer() {
    let mut device = Device::new();
    device.session.finish(device.now, &key("job1"), Some(5), update(UpdateStatus::Failed));
    device.quiet();
    device.session.connected(device.now);
    let end = device.sent("job1/update");
    assert_eq!((&end.body["expectedVersion"], &end.body["status"]), (&json!(5), &json!("FAILED")));
    device.quiet(); // $next waits until that is settled
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
}

#[test]
fn how_a_report_ends() {
    let state = |status: &str| json!({"executionState": {"status": status, "versionNumber": 3}});
    for (code, body, expected) in [
        ("InvalidStateTransition", state("SUCCEEDED"), Settlement::Accepted),
        ("VersionMismatch", state("SUCCEEDED"), Settlement::Accepted),
        ("InvalidStateTransition", state("CANCELED"), Settlement::AlreadyEnded(Some(Status::Canceled))),
        ("VersionMismatch", state("TIMED_OUT"), Settlement::AlreadyEnded(Some(Status::TimedOut))),
        ("InvalidStateTransition", json!({}), Settlement::AlreadyEnded(None)),
        ("TerminalStateReached", json!({}), Settlement::AlreadyEnded(None)),
        ("ResourceNotFound", json!({}), Settlement::Gone),
    ] {
        let (mut device, end) = Device::finishing();
        device.reject(&end, code, body);
        assert_eq!(device.event(), Action::Settled(expected), "{code}");
        assert_eq!(device.session.held(), None);
    }
}

#[test]
fn a_version_mismatch_is_resynced_and_in_the_end_the_lock_is_dropped() {
    let (mut device, mut end) = Device::finishing();
    let mut expected = Vec::new();
    for version in 11..15 {
        device.reject(&end, "VersionMismatch", state("IN_PROGRESS", version));
        match device.any_sent() {
            Some(sent) => end = sent,
            None => break,
        }
        expected.push(end.body["expectedVersion"].as_u64());
    }
    assert_eq!(expected, [Some(11), Some(12), None]);
    // A mismatch of a version that was not sent is answered with patience.
    device.quiet();
    device.pass_time(10);
    assert_eq!(device.any_sent(), Some(end.clone()));
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
}

#[test]
fn a_report_that_is_refused_as_such_goes_once_more_in_its_shortest_form() {
    for code in ["InvalidRequest", "InvalidJson", "InvalidTopic"] {
        let (mut device, end) = Device::finishing();
        device.reject(&end, code, json!({}));
        let short = device.sent("job1/update");
        assert_eq!(short.body["statusDetails"], json!({"reason": "because"}));
        assert_ne!(short.token(), end.token());
        device.reject(&short, code, json!({}));
        let code = RejectionCode::from(code.to_owned());
        let expected = Settlement::Unreportable { code, message: "no".to_owned() };
        assert_eq!(device.event(), Action::Settled(expected));
    }
}

#[test]
fn a_rejection_without_a_token_is_known_by_its_topic() {
    let (mut device, _) = Device::finishing();
    device.message("job2/update/rejected", &json!({"code": "InvalidJson", "message": ""}));
    device.quiet();
    device.message("job1/update/rejected", &json!({"code": "InvalidJson", "message": ""}));
    device.sent("job1/update");
}

#[test]
fn a_service_in_trouble_is_asked_ever_more_slowly_with_the_same_token() {
    for code in ["InternalError", "RequestThrottled", "NeverHeardOf"] {
        let (mut device, end) = Device::finishing();
        for cap in [10, 20, 40, 80, 160, 320, 640, 640] {
            device.reject(&end, code, json!({}));
            device.quiet();
            device.pass_time(cap);
            assert_eq!(device.any_sent().as_ref(), Some(&end), "{code} after at most {cap} s");
        }
        device.answer(&end, json!({}));
        assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
    }
}

#[test]
fn an_unanswered_request_is_sent_again_with_the_same_token() {
    let (mut device, end) = Device::finishing();
    for wait in [10, 20, 40, 80, 160, 320, 640, 640] {
        device.pass_time(wait - 1);
        device.quiet();
        device.pass_time(1);
        assert_eq!(device.any_sent().as_ref(), Some(&end), "after {wait} s");
    }
    // Any copy's answer is the answer, and the other copies' answers are nothing.
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
    device.reject(&end, "InvalidStateTransition", json!({}));
    device.answer(&end, json!({}));
    device.quiet();
}

#[test]
fn a_report_overtakes_progress_and_then_does_not_guess_the_version() {
    let mut device = Device::running();
    device.session.progress(device.now, update(UpdateStatus::InProgress));
    let progress = device.sent("job1/update");
    device.finish(UpdateStatus::Failed);
    let end = device.sent("job1/update");
    assert_eq!(end.body["expectedVersion"], json!(null));
    device.answer(&progress, state("IN_PROGRESS", 3));
    device.quiet();
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
}

#[test]
fn a_settled_execution_is_neither_offered_again_nor_left_untold() {
    let (mut device, end) = Device::finishing();
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
    // A late notification is a hint: the service is asked after a while.
    device.notify(Some(queued("job1")));
    device.quiet();
    device.pass_time(5);
    for cap in [10, 20, 40] {
        let ask = device.sent("$next/get");
        device.answer(&ask, json!({"execution": execution("job1", "IN_PROGRESS", 2)}));
        device.quiet();
        device.pass_time(cap);
        let again = device.sent("job1/update");
        assert_eq!((&again.body["status"], &again.body["expectedVersion"]), (&json!("SUCCEEDED"), &json!(2)));
        device.answer(&again, json!({}));
        device.quiet(); // the agent was told once
        device.pass_time(5);
    }
}

#[test]
fn what_was_settled_before_a_restart_is_remembered_and_the_list_is_bounded() {
    let mut device = Device::new();
    let settled = (0..40).map(|n| (key(&format!("job{n}")), update(UpdateStatus::Failed))).collect();
    device.session.restore_settled(settled);
    device.session.connected(device.now);
    let ask = device.sent("$next/get");
    device.answer(&ask, json!({"execution": queued("job39")}));
    device.pass_time(10);
    assert_eq!(device.sent("job39/update").body["status"], "FAILED");

    device.session.disconnected(device.now);
    let mut device = Device::new();
    let settled = (0..40).map(|n| (key(&format!("job{n}")), update(UpdateStatus::Failed))).collect();
    device.session.restore_settled(settled);
    device.session.connected(device.now);
    let ask = device.sent("$next/get");
    device.answer(&ask, json!({"execution": queued("job7")})); // the 33rd last
    assert_eq!(device.offer().key(), key("job7"));
}

#[test]
fn an_update_and_its_answer_are_one_metered_unit_at_most() {
    let thing = "t".repeat(128);
    let mut session = jobs::Session::new(jobs::Settings::new(&thing), u64::MAX);
    let mut offered = execution(&"j".repeat(64), "QUEUED", u64::MAX);
    offered["executionNumber"] = json!(u64::MAX);
    let offered: jobs::JobExecution = serde_json::from_value(offered).unwrap();
    let mut full = update(UpdateStatus::InProgress);
    full.details = (0..10).map(|n| (format!("k{n}"), "é\"".repeat(512))).collect();
    full.step_timeout_minutes = Some(10_080);
    let now = std::time::Instant::now();
    session.connected(now);
    session.begin(now, &offered, full);
    let Some(Action::Publish { topic, payload }) = session.poll_action() else { panic!("a publish") };
    let request: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    let answer = json!({"timestamp": QUEUED_AT, "clientToken": request["clientToken"],
        "executionState": {"status": "IN_PROGRESS", "versionNumber": u64::MAX,
                           "statusDetails": request["statusDetails"]}});
    let sizes = [topic.len() + payload.len(), topic.len() + "/accepted".len() + answer.to_string().len()];
    assert!(sizes.iter().all(|size| (4096..=5120).contains(size)), "{sizes:?}");
}
