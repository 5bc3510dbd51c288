//! Every switch changes what it says.

use serde_json::{Value, json};

use super::support::{Cloud, START, arn, job_body};

/// A thing with job `a`, which is QUEUED.
fn queued(assignments: &[&str]) -> Cloud {
    let mut cloud = Cloud::compat(assignments);
    cloud.thing("d");
    cloud.job("a", &["thing/d"], json!({}));
    cloud
}

#[test]
fn of_the_device_plane() {
    let ended = |assignments: &[&str]| {
        let mut cloud = Cloud::compat(assignments);
        cloud.thing("d");
        cloud.job("a", &["thing/d"], json!({}));
        cloud.device("d", "a/update", json!({"status": "SUCCEEDED"}));
        cloud
    };
    let update = json!({"status": "SUCCEEDED"});
    let mut cloud = ended(&["terminal-update-code=TerminalStateReached"]);
    let rejected = cloud.answer("d", "a/update", update.clone());
    assert_eq!(rejected["code"], "TerminalStateReached");
    assert_eq!(rejected.get("executionState"), None);

    let mut cloud = ended(&["describe-terminal=return"]);
    assert_eq!(cloud.answer("d", "a/get", json!({}))["execution"]["status"], "SUCCEEDED");

    let mut cloud = ended(&["version-before-terminal=no"]);
    let stale = json!({"status": "SUCCEEDED", "expectedVersion": 1});
    assert_eq!(cloud.answer("d", "a/update", stale)["code"], "InvalidStateTransition");

    let mut cloud = ended(&["timestamp-unit=milliseconds"]);
    assert_eq!(cloud.answer("d", "get", json!({}))["timestamp"], START * 1000);

    let mut cloud = ended(&["first-version=0", "notify-on-start=yes", "empty-notify-next=empty"]);
    cloud.job("b", &["thing/d"], json!({}));
    assert_eq!(cloud.answer("d", "$next/get", json!({}))["execution"]["versionNumber"], 0);
    assert_eq!(cloud.device("d", "start-next", json!({}))[1].0, "d/jobs/notify");
    let messages = cloud.device("d", "b/update", update);
    assert_eq!(messages[2], ("d/jobs/notify-next".to_owned(), json!({})));

    let mut cloud =
        Cloud::compat(&["status-details-strict=no", "get-lists-in-progress=no", "pending-get-cap=1"]);
    cloud.thing("d");
    cloud.job("a", &["thing/d"], json!({}));
    cloud.job("b", &["thing/d"], json!({}));
    assert_eq!(cloud.answer("d", "get", json!({}))["queuedJobs"].as_array().unwrap().len(), 1);
    let many: serde_json::Map<String, Value> = (0..30).map(|n| (format!("k{n}"), json!("a\nb"))).collect();
    let update = json!({"status": "IN_PROGRESS", "statusDetails": many});
    assert_eq!(cloud.answer("d", "a/update", update).get("code"), None);
    assert_eq!(cloud.answer("d", "get", json!({}))["inProgressJobs"], json!([]));
}

#[test]
fn of_messages() {
    let mut cloud = queued(&["answer-invalid-topic=no", "client-token-max=3", "start-next-step-timeout=yes"]);
    assert!(cloud.device("d", "nonsense", json!({})).is_empty());
    assert_eq!(cloud.answer("d", "get", json!({"clientToken": "four"}))["code"], "InvalidRequest");
    cloud.device("d", "start-next", json!({}));
    let again = cloud.answer("d", "start-next", json!({"stepTimeoutInMinutes": 2}));
    assert_eq!(again["execution"]["approximateSecondsBeforeTimedOut"], 120);

    let mut cloud =
        Cloud::compat(&["status-details-value-max=3", "presign-notify-next=no", "pending-notify-cap=1"]);
    cloud.thing("d");
    let document = r#"{"url":"${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/k}"}"#;
    cloud.job("a", &["thing/d"], json!({"document": document}));
    let next = cloud.drain().into_iter().find(|(topic, _)| topic.ends_with("notify-next")).unwrap().1;
    assert!(next["execution"]["jobDocument"]["url"].as_str().unwrap().starts_with("${aws:iot"));
    cloud.job("b", &["thing/d"], json!({}));
    assert_eq!(cloud.drain()[0].1["jobs"]["QUEUED"].as_array().unwrap().len(), 1);
    let long = json!({"status": "IN_PROGRESS", "statusDetails": {"k": "four"}});
    assert_eq!(cloud.answer("d", "a/update", long)["code"], "InvalidRequest");
}

#[test]
fn of_create_job() {
    let mut cloud =
        Cloud::compat(&["require-json-document=no", "rate-maximum-nested=yes", "rate-maximum-limit=0"]);
    cloud.thing("d");
    let rate = json!({"baseRatePerMinute": 1, "incrementFactor": 2, "maximumPerMinute": 5000,
        "rateIncreaseCriteria": {"numberOfNotifiedThings": 1}});
    let rollout = json!({"exponentialRate": rate});
    cloud.job("a", &["thing/d"], json!({"document": "plain", "jobExecutionsRolloutConfig": rollout}));
    assert_eq!(cloud.answer("d", "a/get", json!({}))["execution"]["jobDocument"], "plain");
    assert_eq!(cloud.describe_job("a")["jobExecutionsRolloutConfig"]["maximumPerMinute"], 5000);

    let mut cloud = queued(&["reject-unknown-placeholders=yes"]);
    let body = json!({"targets": [arn("thing/d")], "document": r#"{"a":"${aws:iot:nonsense}"}"#});
    assert_eq!(cloud.err("CreateJob", json!({"jobId": "b"}), body.clone()), "InvalidRequestException");
    queued(&[]).ok("CreateJob", json!({"jobId": "b"}), body);
}

#[test]
fn of_deletions() {
    let mut cloud = queued(&["delete-queued-execution=no", "deleted-thing=deleted"]);
    let run = json!({"jobId": "a", "thingName": "d", "executionNumber": 1});
    assert_eq!(cloud.err("DeleteJobExecution", run.clone(), Value::Null), "InvalidStateTransitionException");
    cloud.ok("DeleteThing", json!({"thingName": "d"}), Value::Null);
    assert_eq!(cloud.err("DescribeJobExecution", run.clone(), Value::Null), "ResourceNotFoundException");
    assert_eq!(cloud.describe_job("a")["status"], "COMPLETED");

    let mut cloud = queued(&[]);
    cloud.ok("DeleteThing", json!({"thingName": "d"}), Value::Null);
    assert_eq!(cloud.ok("DescribeJobExecution", run, Value::Null)["execution"]["status"], "REMOVED");
}

#[test]
fn of_the_abort_base() {
    for (base, status) in [("finished", "CANCELED"), ("notified", "IN_PROGRESS")] {
        let mut cloud = Cloud::compat(&[&format!("abort-base={base}")]);
        ["d", "e", "f"].iter().for_each(|thing| cloud.thing(thing));
        let criteria = json!([{"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 60,
            "minNumberOfExecutedThings": 1}]);
        let body =
            job_body(&["thing/d", "thing/e", "thing/f"], json!({"abortConfig": {"criteriaList": criteria}}));
        cloud.ok("CreateJob", json!({"jobId": "a"}), body);
        cloud.device("d", "a/update", json!({"status": "FAILED"}));
        assert_eq!(cloud.describe_job("a")["status"], status, "{base}");
    }
}

#[test]
fn of_events() {
    for (switch, expected) in [("yes", 2), ("no", 0)] {
        let mut cloud = queued(&[&format!("events-by-default={switch}")]);
        cloud.ok("CancelJob", json!({"jobId": "a"}), Value::Null);
        assert_eq!(cloud.events().len(), expected);
    }
}

/// A switch that no test here or elsewhere knows would be one that nobody has seen work.
#[test]
fn all_are_tested() {
    let tests =
        [include_str!("switches.rs"), include_str!("control.rs"), include_str!("../../shadow/tests.rs")];
    let tests = tests.concat();
    for switch in crate::engine::SWITCHES {
        let used = tests.contains(&format!("{}=", switch.name));
        assert!(used, "{} is in no test", switch.name);
    }
}
