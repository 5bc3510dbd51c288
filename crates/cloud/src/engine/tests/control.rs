//! What operators do with jobs and executions, where the vectors leave gaps.

use serde_json::{Value, json};

use super::fleet::fleet;
use super::support::{Cloud, START, arn, job_body};

#[test]
fn create_job_refuses() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    let document = json!({"document": "{}"});
    let rate = |rate: Value| json!({"jobExecutionsRolloutConfig": {"exponentialRate": rate}});
    let criteria = json!({"numberOfNotifiedThings": 1});
    let abort = |percent: f64| {
        json!({"abortConfig": {"criteriaList": [{"failureType": "ALL", "action": "CANCEL",
            "thresholdPercentage": percent, "minNumberOfExecutedThings": 1}]}})
    };
    let retry = |list: Value| json!({"jobExecutionsRetryConfig": {"criteriaList": list}});
    for more in [
        json!({"targets": []}),
        json!({"targets": ["edge-01"]}),
        json!({"targets": "edge-01"}),
        json!({"targets": [arn("policy/x")]}),
        json!({"targets": vec![arn("thing/d"); 101]}),
        json!({"document": null}),
        json!({"document": "not json"}),
        json!({"document": ""}),
        json!({"document": 5}),
        json!({"document": "{}", "documentSource": "https://s3.amazonaws.com/docs/job.json"}),
        json!({"document": null, "documentSource": "https://s3.amazonaws.com/docs/missing.json"}),
        json!({"documentParameters": {"k": "v"}}),
        json!({"description": "a\nb"}),
        json!({"description": "x".repeat(2029)}),
        json!({"presignedUrlConfig": {"expiresInSec": 59}}),
        json!({"presignedUrlConfig": {"expiresInSec": 3601}}),
        json!({"presignedUrlConfig": {"roleArn": "short"}}),
        json!({"timeoutConfig": {"inProgressTimeoutInMinutes": 0}}),
        json!({"timeoutConfig": {"inProgressTimeoutInMinutes": "5"}}),
        json!({"timeoutConfig": 5}),
        json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": 0}}),
        json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": 1001}}),
        rate(json!({})),
        rate(json!({"baseRatePerMinute": 0, "incrementFactor": 2, "rateIncreaseCriteria": criteria})),
        rate(json!({"baseRatePerMinute": 1001, "incrementFactor": 2, "rateIncreaseCriteria": criteria})),
        rate(json!({"baseRatePerMinute": 1, "incrementFactor": 1, "rateIncreaseCriteria": criteria})),
        rate(json!({"baseRatePerMinute": 1, "incrementFactor": 5.1, "rateIncreaseCriteria": criteria})),
        rate(json!({"baseRatePerMinute": 1, "incrementFactor": 1.55, "rateIncreaseCriteria": criteria})),
        rate(json!({"baseRatePerMinute": 1, "incrementFactor": 2, "rateIncreaseCriteria": {}})),
        rate(json!({"baseRatePerMinute": 1, "incrementFactor": 2})),
        json!({"abortConfig": {}}),
        json!({"abortConfig": {"criteriaList": []}}),
        abort(100.5),
        abort(-1.0),
        abort(33.333),
        retry(json!([])),
        retry(json!([{"failureType": "REJECTED", "numberOfRetries": 1}])),
        retry(json!([{"failureType": "FAILED", "numberOfRetries": 11}])),
        retry(json!([{"failureType": "FAILED"}])),
        retry(
            json!([{"failureType": "FAILED", "numberOfRetries": 6}, {"failureType": "TIMED_OUT", "numberOfRetries": 6}]),
        ),
        retry(json!([{"failureType": "TIMED_OUT", "numberOfRetries": 1}])),
        json!({"destinationPackageVersions": ["arn:aws:iot:us-east-1:123456789012:package/a"]}),
        json!({"destinationPackageVersions": vec![arn("package/a/version/1"); 26]}),
        json!({"schedulingConfig": {"startTime": "tomorrow"}}),
        json!({"schedulingConfig": {"startTime": "2023-11-14 22:40"}}),
        json!({"schedulingConfig": {"startTime": "2025-11-14 22:40"}}),
        json!({"schedulingConfig": {"startTime": "2023-11-15 00:00", "endTime": "2023-11-15 00:29"}}),
        json!({"schedulingConfig": {"endBehavior": "EXPLODE"}}),
        json!({"schedulingConfig": {"maintenanceWindows": [{"startTime": "daily", "durationInMinutes": 60}]}}),
        json!({"schedulingConfig": {"maintenanceWindows": [{"startTime": "cron(0 18 * * ? *)", "durationInMinutes": 1431}]}}),
    ] {
        let mut body = job_body(&["thing/d"], document.clone());
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let kind = cloud.err("CreateJob", json!({"jobId": "a"}), body);
        assert_eq!(kind, "InvalidRequestException", "{more}");
    }
    assert_eq!(cloud.err("CreateJob", json!({"jobId": "a"}), Value::Null), "InvalidRequestException");
    assert_eq!(cloud.err("CreateJob", json!({"jobId": "a"}), json!([])), "InvalidRequestException");
    assert_eq!(cloud.err("Nonsense", json!({}), Value::Null), "ResourceNotFoundException");
    assert!(cloud.topics().is_empty() && cloud.engine.next_timer().is_none());
}

#[test]
fn a_broken_member_is_named() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    let body = job_body(&["thing/d"], json!({"timeoutConfig": {"inProgressTimeoutInMinutes": 10081}}));
    let error = cloud.call("CreateJob", json!({"jobId": "a"}), body).unwrap_err();
    assert_eq!(
        error.message,
        "1 validation error detected: Value '10081' at 'timeoutConfig.inProgressTimeoutInMinutes' failed to satisfy \
         constraint: Member must have value less than or equal to 10080"
    );
    let exists =
        |cloud: &mut Cloud| cloud.call("CreateJob", json!({"jobId": "a"}), job_body(&["thing/d"], json!({})));
    exists(&mut cloud).unwrap();
    let error = exists(&mut cloud).unwrap_err();
    assert_eq!((error.http, &error.extra["resourceArn"]), (409, &json!(arn("job/a"))));
}

#[test]
fn a_document_from_s3_is_read_once() {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    let source = "https://docs.s3.us-east-1.amazonaws.com/job.json";
    cloud.ok(
        "CreateJob",
        json!({"jobId": "a"}),
        json!({"targets": [arn("thing/d")], "documentSource": source}),
    );
    let described = cloud.ok("DescribeJob", json!({"jobId": "a"}), Value::Null);
    assert_eq!(described["documentSource"], source);
    assert_eq!(cloud.answer("d", "a/get", json!({}))["execution"]["jobDocument"]["operation"], "install");
}

#[test]
fn exponential_rollout_follows_success() {
    let mut cloud = fleet(20);
    let rate = json!({"baseRatePerMinute": 2, "incrementFactor": 3,
        "rateIncreaseCriteria": {"numberOfSucceededThings": 2}});
    cloud.job("a", &["thinggroup/fleet"], json!({"jobExecutionsRolloutConfig": {"exponentialRate": rate}}));
    let queued =
        |cloud: &mut Cloud| cloud.describe_job("a")["jobProcessDetails"]["numberOfQueuedThings"].clone();
    assert_eq!(queued(&mut cloud), 2);
    assert_eq!(cloud.describe_job("a")["isConcurrent"], true);
    cloud.at(60);
    assert_eq!(queued(&mut cloud), 4);
    for thing in ["d1", "d10"] {
        cloud.device(thing, "a/update", json!({"status": "SUCCEEDED"}));
    }
    cloud.at(119);
    assert_eq!(queued(&mut cloud), 2);
    cloud.at(120);
    assert_eq!(queued(&mut cloud), 2 + 6);
    cloud.at(600);
    assert_eq!(queued(&mut cloud), 18);
    assert_eq!(cloud.describe_job("a")["isConcurrent"], false);
    assert_eq!(cloud.engine.next_timer(), None);
}

#[test]
fn targets_come_in_their_order_and_once() {
    let mut cloud = fleet(3);
    cloud.thing("z");
    let slow = json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": 1}});
    cloud.drain();
    cloud.job("a", &["thing/z", "thing/d3", "thinggroup/fleet"], slow);
    cloud.at(600);
    let topics: Vec<String> = cloud.topics().into_iter().filter(|topic| topic.ends_with("notify")).collect();
    assert_eq!(topics, ["z/jobs/notify", "d3/jobs/notify", "d1/jobs/notify", "d2/jobs/notify"]);
}

#[test]
fn a_thing_that_is_deleted_before_its_turn_holds_nothing_up() {
    let mut cloud = fleet(2);
    cloud.job("a", &["thinggroup/fleet"], json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": 1}}));
    cloud.device("d1", "a/update", json!({"status": "SUCCEEDED"}));
    assert_eq!(cloud.describe_job("a")["status"], "IN_PROGRESS");
    cloud.ok("DeleteThing", json!({"thingName": "d2"}), Value::Null);
    assert_eq!(cloud.describe_job("a")["status"], "COMPLETED");
}

#[test]
fn an_empty_snapshot_is_complete_at_once() {
    let mut cloud = fleet(0);
    cloud.job("a", &["thinggroup/fleet"], json!({}));
    assert_eq!(cloud.describe_job("a")["status"], "COMPLETED");
    assert_eq!(cloud.events(), ["job/a/completed"]);
}

#[test]
fn single_executions_are_canceled_and_deleted_by_the_rules() {
    let mut cloud = fleet(2);
    cloud.job("a", &["thinggroup/fleet"], json!({}));
    cloud.device("d1", "start-next", json!({}));
    let (d1, d2) = (json!({"jobId": "a", "thingName": "d1"}), json!({"jobId": "a", "thingName": "d2"}));
    assert_eq!(cloud.err("CancelJobExecution", d1.clone(), Value::Null), "InvalidStateTransitionException");
    let stale = json!({"expectedVersion": 7});
    assert_eq!(cloud.err("CancelJobExecution", d2.clone(), stale), "VersionConflictException");
    let body = json!({"expectedVersion": 1, "statusDetails": {"why": "operator"}});
    cloud.ok("CancelJobExecution", d2.clone(), body);
    let canceled = cloud.execution("a", "d2");
    assert_eq!(canceled["statusDetails"], json!({"detailsMap": {"why": "operator"}}));
    assert_eq!((&canceled["versionNumber"], canceled.get("forceCanceled")), (&json!(2), None));
    assert_eq!(cloud.err("CancelJobExecution", d2, Value::Null), "InvalidStateTransitionException");
    let with = |base: &Value, name: &str, value: Value| {
        let mut params = base.clone();
        params[name] = value;
        params
    };
    let number = with(&d1, "executionNumber", json!(1));
    assert_eq!(
        cloud.err("DeleteJobExecution", number.clone(), Value::Null),
        "InvalidStateTransitionException"
    );
    let wrong = with(&d1, "executionNumber", json!(2));
    assert_eq!(cloud.err("DeleteJobExecution", wrong, Value::Null), "ResourceNotFoundException");
    cloud.ok("CancelJobExecution", with(&d1, "force", json!(true)), Value::Null);
    assert_eq!(cloud.execution("a", "d1")["forceCanceled"], true);
    assert_eq!(cloud.describe_job("a")["status"], "COMPLETED");
    cloud.ok("DeleteJobExecution", number, Value::Null);
    assert_eq!(cloud.describe_job("a")["jobProcessDetails"]["numberOfCanceledThings"], 1);
}

#[test]
fn updating_a_job() {
    let mut cloud = fleet(2);
    let more = json!({"timeoutConfig": {"inProgressTimeoutInMinutes": 5},
        "jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "ALL", "numberOfRetries": 3}]}});
    cloud.job("a", &["thinggroup/fleet"], more);
    cloud.device("d1", "start-next", json!({}));
    cloud.at(1);
    let retries = |n: i64| json!({"criteriaList": [{"failureType": "ALL", "numberOfRetries": n}]});
    let more = json!({"jobExecutionsRetryConfig": retries(1)});
    assert_eq!(cloud.err("UpdateJob", json!({"jobId": "a"}), more), "InvalidRequestException");
    let more = json!({"description": "new", "timeoutConfig": {"inProgressTimeoutInMinutes": 9},
        "jobExecutionsRetryConfig": retries(0)});
    cloud.ok("UpdateJob", json!({"jobId": "a"}), more);
    let job = cloud.describe_job("a");
    assert_eq!((&job["description"], &job["lastUpdatedAt"]), (&json!("new"), &json!(START + 1)));
    // What runs already keeps its timer.
    assert_eq!(cloud.execution("a", "d1")["approximateSecondsBeforeTimedOut"], 299);
    cloud.device("d2", "start-next", json!({}));
    assert_eq!(cloud.execution("a", "d2")["approximateSecondsBeforeTimedOut"], 540);
    cloud.device("d1", "a/update", json!({"status": "FAILED"}));
    assert_eq!(cloud.execution("a", "d1")["executionNumber"], 1);
    cloud.ok("CancelJob", json!({"jobId": "a"}), json!({"reasonCode": "OPERATOR_1", "comment": "stop"}));
    let job = cloud.describe_job("a");
    assert_eq!((&job["reasonCode"], &job["comment"]), (&json!("OPERATOR_1"), &json!("stop")));
    assert_eq!(cloud.err("UpdateJob", json!({"jobId": "a"}), json!({})), "InvalidRequestException");
    assert_eq!(
        cloud.err("CancelJob", json!({"jobId": "a"}), json!({"reasonCode": "small"})),
        "InvalidRequestException"
    );
}

#[test]
fn deletion_may_take_a_while() {
    let mut cloud = Cloud::compat(&["deletion-seconds=30"]);
    cloud.thing("d");
    for n in 0..11 {
        cloud.job(&format!("j{n}"), &["thing/d"], json!({}));
    }
    cloud.drain();
    let delete = |n: usize| json!({"jobId": format!("j{n}"), "force": true});
    (0..10).for_each(|n| drop(cloud.ok("DeleteJob", delete(n), Value::Null)));
    assert_eq!(cloud.describe_job("j0")["status"], "DELETION_IN_PROGRESS");
    assert_eq!(cloud.err("DeleteJob", delete(0), Value::Null), "InvalidStateTransitionException");
    assert_eq!(cloud.err("CancelJob", json!({"jobId": "j0"}), Value::Null), "InvalidRequestException");
    assert_eq!(cloud.err("DeleteJob", delete(10), Value::Null), "LimitExceededException");
    assert_eq!(cloud.events()[0], "job/j0/deletion_in_progress");
    cloud.at(30);
    assert_eq!(cloud.err("DescribeJob", json!({"jobId": "j0"}), Value::Null), "ResourceNotFoundException");
    assert_eq!(cloud.answer("d", "$next/get", json!({}))["execution"]["jobId"], "j10");
    // The id is free again.
    cloud.job("j0", &["thing/d"], json!({}));
}

#[test]
fn active_jobs_are_limited() {
    let mut cloud = Cloud::compat(&["active-jobs-limit=2"]);
    cloud.thing("d");
    cloud.job("a", &["thing/d"], json!({}));
    cloud.job("b", &["thing/d"], json!({}));
    cloud.job("c", &["thing/d"], json!({"targetSelection": "CONTINUOUS"}));
    let body = job_body(&["thing/d"], json!({}));
    assert_eq!(cloud.err("CreateJob", json!({"jobId": "e"}), body.clone()), "LimitExceededException");
    cloud.device("d", "a/update", json!({"status": "SUCCEEDED"}));
    cloud.ok("CreateJob", json!({"jobId": "e"}), body);
}

#[test]
fn events_can_be_turned_off() {
    let mut cloud = fleet(1);
    let events = |job: bool, execution: bool| json!({"eventConfigurations": {"JOB": {"Enabled": job}, "JOB_EXECUTION": {"Enabled": execution}}});
    cloud.ok("UpdateEventConfigurations", Value::Null, events(false, true));
    cloud.job("a", &["thinggroup/fleet"], json!({}));
    cloud.device("d1", "a/update", json!({"status": "REJECTED"}));
    cloud.ok("DeleteJob", json!({"jobId": "a"}), Value::Null);
    assert_eq!(cloud.events(), ["jobExecution/a/deleted"]);
    cloud.ok("UpdateEventConfigurations", Value::Null, events(true, false));
    cloud.job("a", &["thinggroup/fleet"], json!({}));
    cloud.ok("CancelJob", json!({"jobId": "a", "force": true}), Value::Null);
    let event = cloud.drain().into_iter().find(|(topic, _)| topic == "$aws/events/job/a/canceled").unwrap().1;
    assert_eq!((&event["eventType"], &event["timestamp"]), (&json!("JOB"), &json!(START)));
    let shown = cloud.ok("DescribeEventConfigurations", Value::Null, Value::Null);
    assert_eq!(shown["eventConfigurations"]["JOB_EXECUTION"]["Enabled"], false);
    let unknown = json!({"eventConfigurations": {"NOPE": {"Enabled": true}}});
    assert_eq!(cloud.err("UpdateEventConfigurations", Value::Null, unknown), "InvalidRequestException");
}

#[test]
fn a_deletion_changes_the_base_and_aborts_nothing_by_itself() {
    let mut cloud = fleet(6);
    let criteria = json!([{"failureType": "FAILED", "action": "CANCEL", "thresholdPercentage": 50,
        "minNumberOfExecutedThings": 2}]);
    cloud.job("a", &["thinggroup/fleet"], json!({"abortConfig": {"criteriaList": criteria}}));
    let end = |cloud: &mut Cloud, thing: &str, status: &str| {
        cloud.device(thing, "a/update", json!({"status": status}));
    };
    ["d1", "d2"].iter().for_each(|thing| end(&mut cloud, thing, "SUCCEEDED"));
    end(&mut cloud, "d3", "FAILED");
    for thing in ["d1", "d2"] {
        let params = json!({"jobId": "a", "thingName": thing, "executionNumber": 1});
        cloud.ok("DeleteJobExecution", params, Value::Null);
    }
    assert_eq!(cloud.describe_job("a")["status"], "IN_PROGRESS");
    // One of two is half; the next thing that ends shows it.
    end(&mut cloud, "d4", "SUCCEEDED");
    let job = cloud.describe_job("a");
    assert_eq!(job["status"], "CANCELED");
    assert!(job["comment"].as_str().unwrap().contains("50 percent"));
    assert_eq!(job["jobProcessDetails"]["numberOfCanceledThings"], 2);
}
