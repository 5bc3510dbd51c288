//! The session's rules from the offer to the work, a test for each.

mod common;

use common::*;
use jobs::{Action, Settlement, Status, UpdateStatus, Withdrawal};
use serde_json::json;

#[test]
fn a_job_without_progress_takes_two_publishes() {
    let mut device = Device::idle();
    device.notify(Some(queued("job1")));
    let offer = device.offer();
    assert_eq!(offer.document, Some(json!({"operation": "reboot"})));
    device.quiet(); // offered at once, without describing
    device.session.begin(device.now, &offer, update(UpdateStatus::InProgress));
    let begin = device.sent("job1/update");
    assert_eq!(
        begin.body,
        json!({"status": "IN_PROGRESS", "statusDetails": {"phase": "x", "reason": "because"},
               "expectedVersion": 1, "executionNumber": 1, "includeJobExecutionState": true,
               "clientToken": begin.token()})
    );
    device.quiet(); // not begun before it is accepted
    device.answer(&begin, state("IN_PROGRESS", 2));
    assert_eq!(device.event(), Action::Begun { version_number: 2, seconds_left: None });
    device.finish(UpdateStatus::Succeeded);
    let end = device.sent("job1/update");
    assert_eq!(end.body["expectedVersion"], 2);
    assert_eq!(
        (&end.body["status"], &end.body["includeJobExecutionState"]),
        (&json!("SUCCEEDED"), &json!(null))
    );
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
    // So does the next one, whose notification comes a little later.
    device.pass_time(1);
    device.notify(Some(queued("job2")));
    let offer = device.offer();
    device.session.begin(device.now, &offer, update(UpdateStatus::InProgress));
    let second = device.sent("job2/update");
    device.answer(&second, state("IN_PROGRESS", 2));
    assert!(matches!(device.event(), Action::Begun { .. }));
    device.pass_time(600);
    device.quiet();
    device.finish(UpdateStatus::Succeeded);
    let second = device.sent("job2/update");
    device.answer(&second, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
    device.pass_time(1);
    device.notify(None);
    assert_eq!(device.event(), Action::Idle);
    device.pass_time(600);
    device.quiet();
    assert_eq!(device.published, 4);
    assert!(begin.token() != end.token() && begin.token().len() <= 64);
}

#[test]
fn the_next_job_is_offered_from_the_notification_that_came_before_the_answer() {
    let (mut device, end) = Device::finishing();
    device.notify(Some(queued("job2")));
    device.quiet(); // still held
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
    assert_eq!(device.offer().key(), key("job2"));
    device.quiet();
}

#[test]
fn without_a_notification_the_service_is_asked_five_seconds_after_the_end() {
    let (mut device, end) = Device::finishing();
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
    device.pass_time(4);
    device.quiet();
    device.pass_time(1);
    device.sent("$next/get");
}

#[test]
fn every_connect_asks_for_next_or_sends_what_is_owed() {
    // Idle.
    let mut device = Device::idle();
    for _ in 0..2 {
        device.session.disconnected(device.now);
        device.quiet();
        assert_eq!(device.session.deadline(), None);
        device.session.connected(device.now);
        assert_eq!(device.sent("$next/get").body.as_object().unwrap().len(), 1); // the token alone
        device.quiet();
    }
    // Running: the answer names ours, so that is all.
    let mut device = Device::running();
    device.session.disconnected(device.now);
    device.session.connected(device.now);
    let ask = device.sent("$next/get");
    device.answer(&ask, json!({"execution": execution("job1", "IN_PROGRESS", 2)}));
    device.quiet();
    // Running: it names another, so ours is described by its number.
    device.session.disconnected(device.now);
    device.session.connected(device.now);
    let ask = device.sent("$next/get");
    device.answer(&ask, json!({"execution": queued("job2")}));
    let ask = device.sent("job1/get");
    assert_eq!(ask.body["executionNumber"], 1);
    device.reject(&ask, "TerminalStateReached", json!({}));
    assert_eq!(device.event(), Action::Withdrawn(Withdrawal::Ended(None)));
    // Finishing: the same token, at once.
    let (mut device, end) = Device::finishing();
    device.session.disconnected(device.now);
    device.pass_time(100);
    device.quiet();
    device.session.connected(device.now);
    assert_eq!(device.any_sent(), Some(end));
    device.quiet();
}

#[test]
fn how_a_begin_is_refused() {
    let state = |status: &str| json!({"executionState": {"status": status, "versionNumber": 2}});
    for (code, body, expected) in [
        ("InvalidStateTransition", state("CANCELED"), Withdrawal::Ended(Some(Status::Canceled))),
        ("VersionMismatch", state("CANCELED"), Withdrawal::Ended(Some(Status::Canceled))),
        ("InvalidStateTransition", json!({}), Withdrawal::Ended(None)),
        ("TerminalStateReached", json!({}), Withdrawal::Ended(None)),
        ("ResourceNotFound", json!({}), Withdrawal::Deleted),
    ] {
        let (mut device, begin) = beginning();
        device.reject(&begin, code, body);
        assert_eq!(device.event(), Action::Withdrawn(expected), "{code}");
        device.pass_time(5);
        device.sent("$next/get");
    }
}

fn beginning() -> (Device, Sent) {
    let mut device = Device::idle();
    device.notify(Some(queued("job1")));
    let offer = device.offer();
    device.session.begin(device.now, &offer, update(UpdateStatus::InProgress));
    let begin = device.sent("job1/update");
    (device, begin)
}

#[test]
fn a_stale_offer_is_described_and_offered_anew_or_forgotten() {
    for (answer, pending) in [
        (execution("job1", "QUEUED", 5), true),
        (execution("job1", "IN_PROGRESS", 5), true),
        (execution("job1", "CANCELED", 5), false),
        (json!(null), false),
    ] {
        let (mut device, begin) = beginning();
        device.reject(&begin, "VersionMismatch", state("QUEUED", 5));
        let ask = device.sent("job1/get");
        device.answer(&ask, json!({"execution": answer}));
        if pending {
            assert_eq!(device.offer().version_number, 5);
        } else {
            assert!(matches!(device.event(), Action::Withdrawn(_)), "{answer}");
        }
    }
}

#[test]
fn a_begin_whose_first_copy_was_accepted_has_begun() {
    let (mut device, begin) = beginning();
    let details = begin.body["statusDetails"].clone();
    let ours = json!({"status": "IN_PROGRESS", "versionNumber": 2, "statusDetails": details});
    device.reject(&begin, "VersionMismatch", json!({"executionState": ours}));
    assert_eq!(device.event(), Action::Begun { version_number: 2, seconds_left: None });
    // Another's IN_PROGRESS is not ours: other details, or a later version.
    for other in
        [state("IN_PROGRESS", 2), json!({"executionState": {"status": "IN_PROGRESS", "versionNumber": 3}})]
    {
        let (mut device, begin) = beginning();
        device.reject(&begin, "VersionMismatch", other);
        device.sent("job1/get");
    }
}

#[test]
fn an_offer_that_never_fits_is_given_up_until_the_next_poll() {
    let (mut device, mut begin) = beginning();
    for _ in 0..3 {
        device.reject(&begin, "VersionMismatch", state("QUEUED", 9));
        let ask = device.sent("job1/get");
        device.answer(&ask, json!({"execution": queued("job1")}));
        let offer = device.offer();
        device.session.begin(device.now, &offer, update(UpdateStatus::InProgress));
        begin = device.sent("job1/update");
    }
    device.reject(&begin, "VersionMismatch", state("QUEUED", 9));
    assert!(matches!(device.event(), Action::Withdrawn(Withdrawal::Refused { .. })));
    device.pass_time(3000);
    device.quiet();
}

#[test]
fn progress_is_one_in_flight_and_the_latest_wins() {
    let mut device = Device::running();
    let say = |device: &mut Device, percent: &str| {
        let mut progress = update(UpdateStatus::InProgress);
        progress.details = progress.details.with("progress", percent);
        device.session.progress(device.now, progress);
    };
    say(&mut device, "10");
    let first = device.sent("job1/update");
    assert_eq!(first.body["expectedVersion"], json!(null));
    for percent in ["20", "30", "40"] {
        say(&mut device, percent);
        device.quiet();
    }
    device.answer(&first, state("IN_PROGRESS", 3));
    let second = device.sent("job1/update");
    assert_eq!(second.body["statusDetails"]["progress"], "40");
    device.answer(&second, state("IN_PROGRESS", 4));
    device.finish(UpdateStatus::Succeeded);
    assert_eq!(device.sent("job1/update").body["expectedVersion"], 4);
}

#[test]
fn progress_of_an_ended_execution_withdraws_it() {
    for (code, body, expected) in [
        ("InvalidStateTransition", state("CANCELED", 3), Withdrawal::Ended(Some(Status::Canceled))),
        ("ResourceNotFound", json!({}), Withdrawal::Deleted),
        ("TerminalStateReached", json!({}), Withdrawal::Ended(None)),
    ] {
        let mut device = Device::running();
        device.session.progress(device.now, update(UpdateStatus::InProgress));
        let progress = device.sent("job1/update");
        device.reject(&progress, code, body);
        assert_eq!(device.event(), Action::Withdrawn(expected));
    }
    // A bad update of progress costs that update and nothing else.
    let mut device = Device::running();
    device.session.progress(device.now, update(UpdateStatus::InProgress));
    let progress = device.sent("job1/update");
    device.reject(&progress, "InvalidRequest", json!({}));
    device.quiet();
    assert!(device.session.held().is_some());
}

#[test]
fn a_cancel_is_noticed_from_the_notification_alone() {
    for next in [None, Some(queued("job2"))] {
        let another = next.is_some();
        let mut device = Device::running();
        device.notify(next);
        let ask = device.sent("job1/get"); // in the same instant
        device.reject(&ask, "TerminalStateReached", json!({}));
        assert_eq!(device.event(), Action::Withdrawn(Withdrawal::Ended(None)));
        if another {
            assert_eq!(device.offer().key(), key("job2"));
        } else {
            assert_eq!(device.event(), Action::Idle);
        }
        device.quiet();
    }
}

#[test]
fn a_notification_during_a_describe_asks_anew() {
    let mut device = Device::running();
    device.session.refresh(device.now);
    let before = device.sent("job1/get");
    device.notify(None);
    let after = device.sent("job1/get");
    // The first answer may be from before the cancel.
    device.answer(&before, json!({"execution": execution("job1", "IN_PROGRESS", 2)}));
    device.quiet();
    device.answer(&after, json!({"execution": execution("job1", "CANCELED", 3)}));
    assert_eq!(device.event(), Action::Withdrawn(Withdrawal::Ended(Some(Status::Canceled))));
}

#[test]
fn a_cancel_that_is_heard_of_before_the_begin_is_answered_is_looked_into() {
    let (mut device, begin) = beginning();
    device.notify(None);
    device.quiet();
    device.answer(&begin, state("IN_PROGRESS", 2));
    assert!(matches!(device.event(), Action::Begun { .. }));
    device.sent("job1/get");
}

#[test]
fn a_job_that_was_deleted_and_created_anew_is_another() {
    let mut device = Device::running();
    device.notify(None);
    let ask = device.sent("job1/get");
    let mut reborn = queued("job1");
    reborn["queuedAt"] = json!(QUEUED_AT + 60);
    device.answer(&ask, json!({"execution": reborn}));
    assert_eq!(device.event(), Action::Withdrawn(Withdrawal::Deleted));
}

#[test]
fn a_refresh_gives_the_execution_as_it_is_now() {
    let mut device = Device::running();
    device.session.refresh(device.now);
    let ask = device.sent("job1/get");
    let mut fresh = execution("job1", "IN_PROGRESS", 2);
    fresh["jobDocument"] = json!({"url": "https://fresh"});
    device.answer(&ask, json!({"execution": fresh}));
    match device.event() {
        Action::Refreshed(execution) => assert_eq!(execution.document, Some(json!({"url": "https://fresh"}))),
        other => panic!("{other:?}"),
    }
    // It is asked for again on the next connection when the answer was lost with this one.
    device.session.refresh(device.now);
    device.sent("job1/get");
    device.session.disconnected(device.now);
    device.session.connected(device.now);
    let ask = device.sent("job1/get");
    device.reject(&ask, "ResourceNotFound", json!({}));
    assert_eq!(device.event(), Action::Withdrawn(Withdrawal::Deleted));
}

#[test]
fn polls_are_hourly_give_or_take_a_tenth_idle_and_running() {
    for mut device in [Device::idle(), Device::running()] {
        let first = device.session.deadline().unwrap() - device.now;
        assert!((3240..=3960).contains(&first.as_secs()), "{first:?}");
        device.pass_time(3960);
        device.sent("$next/get");
    }
}

#[test]
fn a_hint_that_cannot_be_taken_at_its_word_is_asked_about() {
    let mut no_document = queued("job1");
    no_document.as_object_mut().unwrap().remove("jobDocument");
    for hint in [no_document, execution("job1", "IN_PROGRESS", 2), execution("job1", "CANCELED", 2)] {
        let mut device = Device::idle();
        device.notify(Some(hint));
        let ask = device.sent("$next/get");
        let mut in_progress = execution("job1", "IN_PROGRESS", 2);
        in_progress["approximateSecondsBeforeTimedOut"] = json!(90);
        device.answer(&ask, json!({"execution": in_progress}));
        let offer = device.offer();
        assert_eq!(offer.status, Status::InProgress);
        device.session.begin(device.now, &offer, update(UpdateStatus::InProgress));
        let begin = device.sent("job1/update");
        device.answer(&begin, json!({}));
        assert_eq!(device.event(), Action::Begun { version_number: 3, seconds_left: Some(90) });
    }
}

#[test]
fn what_was_begun_before_a_restart_is_resumed_without_a_word() {
    let mut device = Device::new();
    device.session.connected(device.now);
    let ask = device.sent("$next/get");
    device.answer(&ask, json!({"execution": execution("job1", "IN_PROGRESS", 4)}));
    let offer = device.offer();
    device.session.resume(device.now, &offer);
    device.quiet();
    device.finish(UpdateStatus::Succeeded);
    assert_eq!(device.sent("job1/update").body["expectedVersion"], 4);
}

#[test]
fn one_execution_at_a_time() {
    let mut device = Device::idle();
    device.notify(Some(queued("job1")));
    let offer = device.offer();
    device.notify(Some(queued("job2")));
    device.quiet();
    device.session.pass(device.now, &offer.key());
    // Passed; what was heard meanwhile is offered now.
    assert_eq!(device.offer().key(), key("job2"));
    device.session.pass(device.now, &key("job2"));
    device.quiet();
    device.pass_time(3960);
    let ask = device.sent("$next/get");
    device.answer(&ask, json!({"execution": queued("job1")}));
    assert_eq!(device.offer().key(), key("job1"));
    // Calls that do not fit the state change nothing.
    let (mut device, _) = Device::finishing();
    device.session.begin(device.now, &offer, update(UpdateStatus::InProgress));
    device.session.resume(device.now, &offer);
    device.session.pass(device.now, &offer.key());
    device.session.progress(device.now, update(UpdateStatus::InProgress));
    device.session.refresh(device.now);
    device.session.finish(device.now, &key("job1"), None, update(UpdateStatus::InProgress));
    device.session.finish(device.now, &key("job1"), None, update(UpdateStatus::Succeeded)); // the same again
    device.quiet();
}

#[test]
fn late_foreign_and_garbled_messages_are_ordinary() {
    let mut device = Device::running();
    let end_of_ours = json!({"code": "InvalidStateTransition", "message": "", "clientToken": "foreign",
        "executionState": {"status": "CANCELED", "versionNumber": 3}});
    device.message("job2/update/rejected", &end_of_ours);
    device.message("job1/update/accepted", &json!({"clientToken": "foreign"}));
    device.message("job1/get/accepted", &json!({"clientToken": "foreign"}));
    device.message("job1/get/rejected", &json!({"clientToken": "foreign", "code": "ResourceNotFound"}));
    device.message("notify", &json!({"jobs": {}}));
    device.message("job1/update/accepted", &json!([1, 2]));
    let deep = "[".repeat(100_000);
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(200_000));
    for payload in ["", "{", "null", "\u{0}", &deep, &long] {
        for tail in ["notify-next", "job1/update/rejected", "$next/get/accepted", "job1/get/accepted"] {
            let topic = format!("$aws/things/{THING}/jobs/{tail}");
            device.session.message(device.now, &topic, payload.as_bytes());
        }
    }
    device.session.message(device.now, "$aws/things/other/jobs/notify-next", b"{}");
    device.quiet();
    // A late answer about ours that shows it ended is worth a question.
    device.message("job1/update/rejected", &end_of_ours);
    device.sent("job1/get");
}

#[test]
fn the_later_of_two_hints_counts_whichever_came_last() {
    let (mut device, end) = Device::finishing();
    device.message("notify-next", &json!({"timestamp": QUEUED_AT + 9, "execution": queued("job2")}));
    device.message("notify-next", &json!({"timestamp": QUEUED_AT + 8}));
    device.answer(&end, json!({}));
    assert_eq!(device.event(), Action::Settled(Settlement::Accepted));
    assert_eq!(device.offer().key(), key("job2"));
}

#[test]
fn step_timeouts_stay_within_what_the_service_takes() {
    for (asked, sent) in
        [(None, None), (Some(0), Some(1)), (Some(-1), Some(-1)), (Some(i32::MAX), Some(10_080))]
    {
        let mut device = Device::running();
        let mut progress = update(UpdateStatus::InProgress);
        progress.step_timeout_minutes = asked;
        device.session.progress(device.now, progress);
        assert_eq!(device.sent("job1/update").body["stepTimeoutInMinutes"], json!(sent));
    }
}
