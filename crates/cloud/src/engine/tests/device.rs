//! The device plane, where the vectors leave gaps; and HTTPS.

use serde_json::{Value, json};

use super::support::{Cloud, START, request};

fn one_job() -> Cloud {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    cloud.job("a", &["thing/d"], json!({}));
    cloud.drain();
    cloud
}

#[test]
fn topics_that_are_no_operation() {
    let mut cloud = one_job();
    for topic in ["notify", "nonsense", "a/b/c", "get/accepted", "a/update/accepted"] {
        let messages = cloud.device("d", topic, json!({"clientToken": "t"}));
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].0, format!("d/jobs/{topic}/rejected"));
        assert_eq!(messages[0].1["code"], "InvalidTopic");
        assert_eq!(messages[0].1["clientToken"], "t");
    }
    assert_eq!(cloud.answer("d", "$next/update", json!({"status": "FAILED"}))["code"], "InvalidRequest");
    assert_eq!(cloud.answer("d", "a.b/get", json!({}))["code"], "InvalidRequest");
    assert_eq!(cloud.answer("nobody", "get", json!({}))["code"], "ResourceNotFound");
}

#[test]
fn order_of_the_checks() {
    let mut cloud = one_job();
    let code = |cloud: &mut Cloud, job: &str, payload: Value| {
        cloud.answer("d", &format!("{job}/update"), payload)["code"].as_str().unwrap_or("accepted").to_owned()
    };
    // Field, existence, version, state.
    assert_eq!(code(&mut cloud, "nope", json!({"status": "DONE"})), "InvalidRequest");
    assert_eq!(code(&mut cloud, "nope", json!({"status": "QUEUED"})), "ResourceNotFound");
    assert_eq!(code(&mut cloud, "a", json!({"status": "QUEUED", "expectedVersion": 5})), "VersionMismatch");
    assert_eq!(code(&mut cloud, "a", json!({"status": "QUEUED"})), "InvalidStateTransition");
    assert_eq!(code(&mut cloud, "a", json!({"status": "FAILED", "executionNumber": 2})), "ResourceNotFound");
    assert_eq!(code(&mut cloud, "a", json!({"status": "FAILED", "executionNumber": 1})), "accepted");
    assert_eq!(code(&mut cloud, "a", json!({"status": "FAILED", "expectedVersion": 1})), "VersionMismatch");
    assert_eq!(
        code(&mut cloud, "a", json!({"status": "FAILED", "expectedVersion": 2})),
        "InvalidStateTransition"
    );
}

#[test]
fn a_rejection_changes_nothing() {
    let mut cloud = one_job();
    let before = cloud.execution("a", "d");
    for payload in [
        json!({"status": "DONE"}),
        json!({"status": "FAILED", "expectedVersion": 9}),
        json!({"status": "QUEUED"}),
        json!({"status": "IN_PROGRESS", "statusDetails": {"k": ""}}),
    ] {
        assert_eq!(cloud.device("d", "a/update", payload).len(), 1);
    }
    assert_eq!(cloud.execution("a", "d"), before);
}

#[test]
fn status_details_are_replaced_as_a_whole_or_kept() {
    let mut cloud = one_job();
    let mut details = |payload: Value| {
        let mut payload = payload;
        payload["includeJobExecutionState"] = json!(true);
        cloud.answer("d", "a/update", payload)["executionState"]["statusDetails"].clone()
    };
    let go = "IN_PROGRESS";
    assert_eq!(
        details(json!({"status": go, "statusDetails": {"a": "1", "b": "2"}})),
        json!({"a": "1", "b": "2"})
    );
    assert_eq!(details(json!({"status": go})), json!({"a": "1", "b": "2"}));
    assert_eq!(details(json!({"status": go, "statusDetails": {"c": "3"}})), json!({"c": "3"}));
    assert_eq!(details(json!({"status": go, "statusDetails": {}})), Value::Null);
}

#[test]
fn a_retry_is_another_execution() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    let retry = json!({"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]});
    cloud.job("a", &["thing/d"], json!({"jobExecutionsRetryConfig": retry}));
    for number in 1..=3 {
        let described = cloud.answer("d", "a/get", json!({}));
        assert_eq!(described["execution"]["executionNumber"], number);
        assert_eq!(described["execution"]["versionNumber"], 1);
        let accepted = cloud.answer("d", "a/update", json!({"status": "FAILED", "executionNumber": number}));
        assert_eq!(accepted.get("code"), None);
    }
    assert_eq!(cloud.describe_job("a")["status"], "COMPLETED");
    // Earlier executions stay, ended.
    let old = cloud.answer("d", "a/update", json!({"status": "SUCCEEDED", "executionNumber": 1}));
    assert_eq!(
        (&old["code"], &old["executionState"]["status"]),
        (&json!("InvalidStateTransition"), &json!("FAILED"))
    );
    let listed = cloud.ok("ListJobExecutionsForThing", json!({"thingName": "d"}), Value::Null);
    let attempts: Vec<_> = listed["executionSummaries"].as_array().unwrap().iter().collect();
    assert_eq!(attempts.len(), 3);
    assert_eq!(attempts[2]["jobExecutionSummary"]["retryAttempt"], 2);
}

#[test]
fn a_canceled_job_is_not_retried() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    let retry = json!({"criteriaList": [{"failureType": "ALL", "numberOfRetries": 5}]});
    cloud.job("a", &["thing/d"], json!({"jobExecutionsRetryConfig": retry}));
    cloud.device("d", "start-next", json!({}));
    cloud.ok("CancelJob", json!({"jobId": "a"}), Value::Null);
    cloud.device("d", "a/update", json!({"status": "FAILED"}));
    assert_eq!(cloud.answer("d", "$next/get", json!({})).get("execution"), None);
    assert_eq!(cloud.describe_job("a")["status"], "CANCELED");
}

#[test]
fn timers() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    cloud.job("a", &["thing/d"], json!({"timeoutConfig": {"inProgressTimeoutInMinutes": 20}}));
    cloud.device("d", "start-next", json!({}));
    let mut left = |at: i64, step: Option<i64>| {
        cloud.at(at);
        let mut payload = json!({"status": "IN_PROGRESS"});
        if let Some(step) = step {
            payload["stepTimeoutInMinutes"] = json!(step);
        }
        cloud.device("d", "a/update", payload);
        cloud.answer("d", "a/get", json!({}))["execution"]["approximateSecondsBeforeTimedOut"].clone()
    };
    // The guide's figure, in minutes.
    assert_eq!(left(0, None), 20 * 60);
    assert_eq!(left(5 * 60, Some(7)), 7 * 60);
    assert_eq!(left(10 * 60, Some(5)), 5 * 60);
    assert_eq!(left(13 * 60, Some(9)), 7 * 60);
    assert_eq!(left(13 * 60, Some(-1)), 7 * 60);
    assert_eq!(left(13 * 60, Some(1)), 60);
    cloud.at(14 * 60 - 1);
    assert_eq!(cloud.execution("a", "d")["status"], "IN_PROGRESS");
    assert_eq!(cloud.engine.next_timer().map(|at| at.secs()), Some(START + 14 * 60));
    cloud.at(14 * 60);
    let execution = cloud.execution("a", "d");
    assert_eq!(
        (&execution["status"], &execution["lastUpdatedAt"]),
        (&json!("TIMED_OUT"), &json!(START + 14 * 60))
    );
    assert_eq!(execution.get("approximateSecondsBeforeTimedOut"), None);
    assert_eq!(cloud.engine.next_timer(), None);
}

#[test]
fn a_jump_of_the_clock_fires_each_timer_at_its_own_time() {
    let mut cloud = Cloud::new();
    for (thing, minutes) in [("x", 3), ("y", 1), ("z", 2)] {
        cloud.thing(thing);
        cloud.job(thing, &[&format!("thing/{thing}")], json!({}));
        cloud.device(thing, "start-next", json!({"stepTimeoutInMinutes": minutes}));
    }
    cloud.at(100_000);
    let notified: Vec<_> = cloud.drain().into_iter().filter(|(topic, _)| topic.ends_with("notify")).collect();
    let seen: Vec<_> = notified
        .iter()
        .map(|(topic, payload)| (&topic[..1], payload["timestamp"].as_i64().unwrap() - START))
        .collect();
    assert_eq!(seen, [("y", 60), ("z", 120), ("x", 180)]);
}

#[test]
fn an_update_after_its_deadline_is_too_late() {
    let mut cloud = one_job();
    cloud.device("d", "start-next", json!({"stepTimeoutInMinutes": 1}));
    // Nobody fired the timers: the engine does it itself before it looks.
    cloud.now = cloud.now.plus_secs(61);
    let topic = "$aws/things/d/jobs/a/update";
    cloud.engine.device(cloud.now, "d", None, topic, br#"{"status":"SUCCEEDED"}"#);
    let last = cloud.drain().pop().unwrap();
    assert_eq!(
        (&last.1["code"], &last.1["executionState"]["status"]),
        (&json!("InvalidStateTransition"), &json!("TIMED_OUT"))
    );
}

#[test]
fn placeholders_are_signed_at_every_delivery() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    let document = json!({
        "get": "${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/b/k} and text",
        "v1": ["${aws:iot:s3-presigned-url-v1:https://b.s3.us-east-1.amazonaws.com/dir/k}"],
        "v2": {"x": "${aws:iot:s3-presigned-url-v2:https://s3.us-east-1.amazonaws.com/b/k%3FversionId%3Dv1}"},
        "put": "${aws:iot:s3-presigned-url-upload:https://s3.us-east-1.amazonaws.com/b/${thingName}/${jobId}/${executionNumber}.log}",
        "own": "${aws:iot:s3-presigned-url-upload}",
    });
    let more = json!({"document": document.to_string(), "presignedUrlConfig": {"expiresInSec": 60}});
    cloud.job("fw", &["thing/d"], more);
    let told = cloud.drain().into_iter().find(|(topic, _)| topic.ends_with("notify-next")).unwrap().1;
    let first = &told["execution"]["jobDocument"];
    assert_eq!(first["get"], format!("https://s3/b/k?X-Amz-Date={START}&X-Amz-Expires=60 and text"));
    assert!(first["v1"][0].as_str().unwrap().starts_with("https://s3/b/dir/k?"));
    assert!(first["v2"]["x"].as_str().unwrap().ends_with("&versionId=v1"));
    assert!(first["put"].as_str().unwrap().starts_with("https://s3/b/d/fw/1.log?put&"));
    assert!(first["own"].as_str().unwrap().contains("/d/fw/1?put&"));
    cloud.at(5);
    let again = cloud.answer("d", "start-next", json!({}));
    assert_ne!(again["execution"]["jobDocument"]["get"], first["get"]);
    let update = cloud.answer("d", "fw/update", json!({"status": "SUCCEEDED", "includeJobDocument": true}));
    assert!(update["jobDocument"]["get"].as_str().unwrap().starts_with("https://s3/b/k?"));
    let raw = cloud.ok("GetJobDocument", json!({"jobId": "fw"}), Value::Null);
    assert_eq!(raw["document"], document.to_string());
}

#[test]
fn over_https() {
    let mut cloud = one_job();
    let mut call = |op: &str, params: Value, body: Value| {
        let mut params = params;
        params["thingName"] = json!("d");
        cloud
            .engine
            .device_https(cloud.now, &request(op, &params, body))
            .map_err(|error| (error.http, error.kind))
    };
    let pending = call("GetPendingJobExecutions", json!({}), Value::Null).unwrap();
    assert_eq!(pending["queuedJobs"][0]["jobId"], "a");
    assert_eq!(pending.get("timestamp"), None);
    let started =
        call("StartNextPendingJobExecution", json!({}), json!({"statusDetails": {"k": "v"}})).unwrap();
    assert_eq!(started["execution"]["jobDocument"], super::support::DOCUMENT);
    let described =
        call("DescribeJobExecution", json!({"jobId": "$next", "includeJobDocument": false}), Value::Null);
    assert_eq!(described.unwrap()["execution"].get("jobDocument"), None);
    let update = |expected: i64| json!({"status": "SUCCEEDED", "expectedVersion": expected, "includeJobDocument": true});
    let refused = call("UpdateJobExecution", json!({"jobId": "a"}), update(7));
    assert_eq!(refused, Err((409, "InvalidStateTransitionException")));
    let accepted = call("UpdateJobExecution", json!({"jobId": "a"}), update(2)).unwrap();
    assert!(accepted["jobDocument"].is_string());
    let ended = call("DescribeJobExecution", json!({"jobId": "a"}), Value::Null);
    assert_eq!(ended, Err((410, "TerminalStateException")));
    assert_eq!(
        call("UpdateJobExecution", json!({"jobId": "a"}), update(3)),
        Err((409, "InvalidStateTransitionException"))
    );
    assert_eq!(
        call("UpdateJobExecution", json!({"jobId": "b"}), update(3)),
        Err((404, "ResourceNotFoundException"))
    );
    assert_eq!(
        call("UpdateJobExecution", json!({"jobId": "a"}), json!({})),
        Err((400, "InvalidRequestException"))
    );
}
