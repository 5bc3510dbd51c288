//! When devices hear of their queue: every line of the contract's table, by the topics that follow.

use serde_json::{Value, json};

use super::support::Cloud;

const BOTH: [&str; 2] = ["d/jobs/notify", "d/jobs/notify-next"];
const NOTIFY: [&str; 1] = ["d/jobs/notify"];
const NEXT: [&str; 1] = ["d/jobs/notify-next"];
const NONE: [&str; 0] = [];

/// A thing with jobs `a`, `b`, … queued one second apart.
fn queue(jobs: &[&str]) -> Cloud {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    for (second, job) in (0..).zip(jobs) {
        cloud.at(second);
        cloud.job(job, &["thing/d"], json!({}));
    }
    cloud.at(100);
    cloud.drain();
    cloud
}

/// What follows from an update, without the answer.
fn after_update(cloud: &mut Cloud, job: &str, status: &str) -> Vec<String> {
    let messages = cloud.device("d", &format!("{job}/update"), json!({"status": status}));
    assert_eq!(messages[0].0, format!("d/jobs/{job}/update/accepted"));
    let topics = messages.into_iter().skip(1).map(|(topic, _)| topic);
    topics.filter(|topic| !topic.starts_with("$aws/events")).collect()
}

#[test]
fn first_job_and_the_one_behind() {
    let mut cloud = queue(&[]);
    cloud.job("a", &["thing/d"], json!({}));
    assert_eq!(cloud.topics(), BOTH);
    cloud.job("b", &["thing/d"], json!({}));
    assert_eq!(cloud.topics(), NOTIFY);
}

#[test]
fn starting_and_progress_are_silent() {
    let mut cloud = queue(&["a", "b"]);
    assert_eq!(cloud.device("d", "start-next", json!({})).len(), 1);
    assert_eq!(after_update(&mut cloud, "a", "IN_PROGRESS"), NONE);
    let step = json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": 5, "statusDetails": {"p": "1"}});
    assert_eq!(cloud.device("d", "a/update", step).len(), 1);
    assert_eq!(cloud.device("d", "a/get", json!({})).len(), 1);
}

#[test]
fn a_start_behind_the_head_makes_a_new_head() {
    let mut cloud = queue(&["a", "b"]);
    assert_eq!(after_update(&mut cloud, "b", "IN_PROGRESS"), NEXT);
    assert_eq!(after_update(&mut cloud, "b", "IN_PROGRESS"), NONE);
    // Queued earlier, and now IN_PROGRESS too: the head again.
    assert_eq!(after_update(&mut cloud, "a", "IN_PROGRESS"), NEXT);
}

#[test]
fn a_later_start_behind_an_earlier_one_changes_no_head() {
    let mut cloud = queue(&["a", "b"]);
    cloud.device("d", "start-next", json!({}));
    assert_eq!(after_update(&mut cloud, "b", "IN_PROGRESS"), NONE);
}

#[test]
fn the_head_ends() {
    let mut cloud = queue(&["a", "b"]);
    assert_eq!(after_update(&mut cloud, "a", "SUCCEEDED"), BOTH);
    assert_eq!(after_update(&mut cloud, "b", "FAILED"), BOTH);
    let empty = cloud.answer("d", "$next/get", json!({}));
    assert_eq!(empty.get("execution"), None);
}

#[test]
fn another_one_ends() {
    let mut cloud = queue(&["a", "b", "c", "e"]);
    assert_eq!(after_update(&mut cloud, "b", "REJECTED"), NOTIFY);
    cloud.drain();
    cloud.ok("CancelJob", json!({"jobId": "c"}), Value::Null);
    assert_eq!(cloud.topics(), NOTIFY);
    cloud.ok("CancelJobExecution", json!({"jobId": "e", "thingName": "d"}), Value::Null);
    assert_eq!(cloud.topics(), NOTIFY);
}

#[test]
fn the_head_is_canceled_or_deleted() {
    for (op, more) in [
        ("CancelJob", json!({"force": true})),
        ("DeleteJob", json!({"force": true})),
        ("CancelJobExecution", json!({"force": true, "thingName": "d"})),
        ("DeleteJobExecution", json!({"force": true, "thingName": "d", "executionNumber": 1})),
    ] {
        let mut cloud = queue(&["a", "b"]);
        cloud.device("d", "start-next", json!({}));
        let mut params = more;
        params["jobId"] = json!("a");
        cloud.ok(op, params, Value::Null);
        assert_eq!(cloud.topics(), BOTH, "{op}");
        assert_eq!(cloud.answer("d", "$next/get", json!({}))["execution"]["jobId"], "b", "{op}");
    }
}

#[test]
fn a_timeout_and_its_retry() {
    let mut cloud = queue(&[]);
    let retry = json!({"criteriaList": [{"failureType": "ALL", "numberOfRetries": 1}]});
    cloud.job("a", &["thing/d"], json!({"jobExecutionsRetryConfig": retry}));
    cloud.at(101);
    cloud.job("b", &["thing/d"], json!({}));
    cloud.device("d", "start-next", json!({"stepTimeoutInMinutes": 1}));
    cloud.at(161);
    let messages = cloud.drain();
    let topics: Vec<&str> = messages.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["d/jobs/notify", "d/jobs/notify-next", "$aws/events/jobExecution/a/timed_out"]);
    // The retry is queued behind what waited already.
    assert_eq!(messages[1].1["execution"]["jobId"], "b");
    let queued = messages[0].1["jobs"]["QUEUED"].as_array().unwrap();
    assert_eq!((&queued[1]["jobId"], &queued[1]["executionNumber"]), (&json!("a"), &json!(2)));
}

#[test]
fn one_call_for_many_changes_tells_each_device_once() {
    let mut cloud = Cloud::new();
    ["d1", "d2", "d3"].iter().for_each(|thing| cloud.thing(thing));
    cloud.job("a", &["thing/d1", "thing/d2", "thing/d3"], json!({}));
    cloud.job("b", &["thing/d1"], json!({}));
    cloud.drain();
    cloud.ok("DeleteJob", json!({"jobId": "a", "force": true}), Value::Null);
    let topics = cloud.topics();
    assert_eq!(topics.len(), 6);
    assert_eq!(topics.iter().filter(|topic| topic.ends_with("notify-next")).count(), 3);
}

#[test]
fn a_thing_that_is_gone_is_told_too() {
    let mut cloud = queue(&["a"]);
    cloud.ok("DeleteThing", json!({"thingName": "d"}), Value::Null);
    assert_eq!(cloud.topics(), BOTH);
    assert_eq!(cloud.answer("d", "a/update", json!({"status": "SUCCEEDED"}))["code"], "ResourceNotFound");
    assert_eq!(cloud.describe_job("a")["status"], "COMPLETED");
}

#[test]
fn answers_go_to_who_asked() {
    use crate::engine::Output;
    let mut cloud = queue(&["a"]);
    cloud.engine.device(cloud.now, "d", Some(7), "$aws/things/d/jobs/get", b"");
    let outputs = cloud.engine.take_outputs();
    assert!(matches!(&outputs[..], [Output::Answer { to: Some(7), thing, .. }] if thing == "d"));
}
