//! Start times, end times and maintenance windows. The clock begins on 2023-11-14 at 22:13:20.

use serde_json::{Value, json};

use super::support::{Cloud, job_body};

/// Seconds from the clock's beginning to a time on that evening, or later.
const fn clock(day: i64, hour: i64, minute: i64) -> i64 {
    ((day - 14) * 24 + hour - 22) * 3600 + (minute - 13) * 60 - 20
}

fn scheduled(more: Value) -> Cloud {
    let mut cloud = Cloud::new();
    ["d", "e"].iter().for_each(|thing| cloud.thing(thing));
    let more = json!({"schedulingConfig": more, "jobExecutionsRolloutConfig": {"maximumPerMinute": 1}});
    cloud.job("a", &["thing/d", "thing/e"], more);
    cloud
}

fn status(cloud: &mut Cloud) -> String {
    cloud.describe_job("a")["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_start_time() {
    let mut cloud = scheduled(json!({"startTime": "2023-11-15 00:00"}));
    assert_eq!(status(&mut cloud), "SCHEDULED");
    cloud.at(clock(15, 0, 0) - 1);
    assert!(cloud.topics().is_empty());
    cloud.at(clock(15, 0, 0));
    assert_eq!(cloud.topics(), ["d/jobs/notify", "d/jobs/notify-next"]);
    assert_eq!(status(&mut cloud), "IN_PROGRESS");
    cloud.at(clock(15, 0, 1));
    assert_eq!(cloud.topics(), ["e/jobs/notify", "e/jobs/notify-next"]);
    for thing in ["d", "e"] {
        cloud.device(thing, "a/update", json!({"status": "SUCCEEDED"}));
    }
    assert_eq!(status(&mut cloud), "COMPLETED");
    assert_eq!(cloud.engine.next_timer(), None);
}

#[test]
fn end_behaviors() {
    for (behavior, job, started, waiting) in [
        ("STOP_ROLLOUT", "IN_PROGRESS", "IN_PROGRESS", "QUEUED"),
        ("CANCEL", "CANCELED", "IN_PROGRESS", "CANCELED"),
        ("FORCE_CANCEL", "CANCELED", "CANCELED", "CANCELED"),
    ] {
        let mut cloud = scheduled(json!({"endTime": "2023-11-14T23:00:00Z", "endBehavior": behavior}));
        assert_eq!(status(&mut cloud), "IN_PROGRESS", "{behavior}");
        cloud.device("d", "start-next", json!({}));
        cloud.at(60);
        cloud.at(clock(14, 23, 0));
        assert_eq!(status(&mut cloud), job, "{behavior}");
        assert_eq!(cloud.execution("a", "d")["status"], started, "{behavior}");
        assert_eq!(cloud.execution("a", "e")["status"], waiting, "{behavior}");
        for thing in ["d", "e"] {
            cloud.device(thing, "a/update", json!({"status": "SUCCEEDED"}));
        }
        let ended = if behavior == "STOP_ROLLOUT" { "COMPLETED" } else { "CANCELED" };
        assert_eq!(status(&mut cloud), ended, "{behavior}");
    }
}

#[test]
fn a_stopped_rollout_makes_no_more_executions() {
    let mut cloud = Cloud::new();
    let things: Vec<String> = (0..60).map(|n| format!("t{n:02}")).collect();
    things.iter().for_each(|thing| cloud.thing(thing));
    let targets: Vec<String> = things.iter().map(|thing| format!("thing/{thing}")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let more = json!({"schedulingConfig": {"endTime": "2023-11-14 23:00"},
        "jobExecutionsRolloutConfig": {"maximumPerMinute": 1}});
    cloud.job("a", &targets, more);
    cloud.at(100_000);
    assert_eq!(cloud.describe_job("a")["jobProcessDetails"]["numberOfQueuedThings"], 47);
}

#[test]
fn a_continuous_job_completes_after_its_end_time() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    let more = json!({"targetSelection": "CONTINUOUS", "schedulingConfig": {"endTime": "2023-11-14 23:00"}});
    cloud.job("a", &["thing/d"], more);
    cloud.device("d", "a/update", json!({"status": "SUCCEEDED"}));
    assert_eq!(status(&mut cloud), "IN_PROGRESS");
    cloud.at(clock(14, 23, 0));
    assert_eq!(status(&mut cloud), "COMPLETED");
}

#[test]
fn a_daily_window() {
    let window = json!([{"startTime": "cron(0 1 * * ? *)", "durationInMinutes": 60}]);
    let mut cloud = scheduled(json!({"maintenanceWindows": window}));
    assert_eq!(status(&mut cloud), "SCHEDULED");
    let starts = cloud.describe_job("a")["scheduledJobRollouts"].as_array().unwrap().clone();
    assert_eq!((starts.len(), &starts[0]["startTime"]), (7, &json!("2023-11-15 01:00")));

    cloud.at(clock(15, 1, 0));
    assert_eq!(cloud.topics(), ["d/jobs/notify", "d/jobs/notify-next"]);
    cloud.at(clock(15, 1, 1));
    cloud.drain();
    assert_eq!(cloud.answer("d", "$next/get", json!({}))["execution"]["jobId"], "a");

    // It closes: the queue is empty for the device, which is told so.
    cloud.at(clock(15, 2, 0) - 1);
    assert!(cloud.topics().is_empty());
    cloud.at(clock(15, 2, 0));
    assert_eq!(cloud.topics().len(), 4);
    assert_eq!(status(&mut cloud), "SCHEDULED");
    assert_eq!(cloud.answer("d", "$next/get", json!({})).get("execution"), None);
    assert_eq!(cloud.answer("d", "get", json!({}))["queuedJobs"], json!([]));

    // It opens again: the same execution is back.
    cloud.at(clock(16, 1, 0));
    assert_eq!(cloud.answer("d", "$next/get", json!({}))["execution"]["executionNumber"], 1);
    cloud.device("d", "a/update", json!({"status": "SUCCEEDED"}));
    cloud.device("e", "a/update", json!({"status": "SUCCEEDED"}));
    assert_eq!(status(&mut cloud), "COMPLETED");
    assert_eq!(cloud.engine.next_timer(), None);
}

#[test]
fn a_job_that_is_made_inside_its_window_begins() {
    let window = json!([{"startTime": "cron(0 22 * * ? *)", "durationInMinutes": 14}]);
    let mut cloud = scheduled(json!({"maintenanceWindows": window}));
    assert_eq!(status(&mut cloud), "IN_PROGRESS");
    cloud.at(clock(14, 22, 14));
    assert_eq!(status(&mut cloud), "SCHEDULED");
    // The rollout waits for the next window, and then goes on.
    assert_eq!(cloud.describe_job("a")["jobProcessDetails"]["numberOfQueuedThings"], 1);
    cloud.at(clock(15, 22, 0));
    assert_eq!(cloud.describe_job("a")["jobProcessDetails"]["numberOfQueuedThings"], 2);
}

#[test]
fn a_joiner_waits_for_the_window() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    cloud.ok("CreateThingGroup", json!({"thingGroupName": "fleet"}), Value::Null);
    let window = json!({"maintenanceWindows": [{"startTime": "cron(0 1 * * ? *)", "durationInMinutes": 60}]});
    let more = json!({"targetSelection": "CONTINUOUS", "schedulingConfig": window});
    cloud.job("a", &["thinggroup/fleet"], more);
    cloud.ok("AddThingToThingGroup", Value::Null, json!({"thingGroupName": "fleet", "thingName": "d"}));
    assert!(cloud.topics().is_empty());
    cloud.at(clock(15, 1, 0));
    assert_eq!(cloud.topics(), ["d/jobs/notify", "d/jobs/notify-next"]);
}

#[test]
fn a_full_account_cancels_what_would_start() {
    let mut cloud = Cloud::compat(&["active-jobs-limit=1"]);
    cloud.thing("d");
    cloud.job("a", &["thing/d"], json!({"schedulingConfig": {"startTime": "2023-11-15 00:00"}}));
    cloud.job("b", &["thing/d"], json!({}));
    cloud.at(clock(15, 0, 0));
    assert_eq!(status(&mut cloud), "CANCELED");
}

#[test]
fn a_scheduled_job_can_be_canceled() {
    let mut cloud = scheduled(json!({"startTime": "2023-11-15 00:00"}));
    cloud.ok("CancelJob", json!({"jobId": "a"}), Value::Null);
    assert_eq!(cloud.engine.next_timer(), None);
    let body = job_body(&["thing/d"], json!({}));
    assert_eq!(cloud.err("CreateJob", json!({"jobId": "a"}), body), "ResourceAlreadyExistsException");
    cloud.ok("DeleteJob", json!({"jobId": "a"}), Value::Null);
}
