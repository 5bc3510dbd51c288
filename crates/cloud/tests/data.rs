//! The contract's data vectors that concern the service, tried on it from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use serde_json::{Value, json};
use support::{Cloud, arn, vectors};

#[test]
fn rollouts_release_as_many_things_a_minute_as_the_table_says() {
    for case in vectors("rollout-rates.json") {
        let (id, input) = (case["id"].as_str().unwrap(), &case["input"]);
        let cloud = Cloud::manual(&[]);
        cloud.done("CreateThingGroup", json!({"thingGroupName": "fleet"}), json!({}));
        for number in 0..input["targets"].as_u64().unwrap() {
            let thing = format!("thing-{number:05}");
            cloud.done("CreateThing", json!({"thingName": thing}), json!(null));
            let add = json!({"thingGroupName": "fleet", "thingName": thing});
            cloud.done("AddThingToThingGroup", json!({}), add);
        }
        let mut job = json!({"targets": [arn("thinggroup/fleet")], "document": "{}"});
        let members = ["maximumPerMinute", "exponentialRate"].into_iter();
        let rollout: serde_json::Map<String, Value> =
            members.filter_map(|member| Some((member.to_owned(), input.get(member)?.clone()))).collect();
        if !rollout.is_empty() {
            job["jobExecutionsRolloutConfig"] = rollout.into();
        }
        cloud.done("CreateJob", json!({"jobId": "rollout"}), job);
        let mut seen = 0;
        let mut released = || {
            let messages = cloud.messages(&mut seen);
            messages
                .iter()
                .filter(|message| message["topic"].as_str().unwrap().ends_with("/jobs/notify-next"))
                .count()
        };
        let mut minutes = vec![released()];
        for _ in 1..input["minutes"].as_u64().unwrap() {
            cloud.advance(60);
            minutes.push(released());
        }
        assert_eq!(json!(minutes), case["expect"]["executionsPerMinute"], "{id}");
    }
}

#[test]
fn deadlines_are_the_nearer_of_the_two_timers() {
    for case in vectors("timer-deadlines.json") {
        let id = case["id"].as_str().unwrap();
        let events = case["input"]["events"].as_array().unwrap();
        let cloud = Cloud::manual(&[]);
        cloud.done("CreateThing", json!({"thingName": "edge-01"}), json!(null));
        let mut job = json!({"targets": [arn("thing/edge-01")], "document": "{}"});
        if let Some(minutes) = events[0].get("inProgressTimeoutInMinutes") {
            job["timeoutConfig"] = json!({"inProgressTimeoutInMinutes": minutes});
        }
        cloud.done("CreateJob", json!({"jobId": "job1"}), job);
        let execution = || {
            let ids = json!({"thingName": "edge-01", "jobId": "job1"});
            cloud.done("DescribeJobExecution", ids, json!(null))["execution"].clone()
        };
        let mut now = 0;
        for event in events {
            let minute = event["t"].as_i64().unwrap();
            cloud.advance((minute - now) * 60);
            now = minute;
            let mut update = json!({"status": "IN_PROGRESS"});
            if let Some(minutes) = event.get("stepTimeoutInMinutes") {
                update["stepTimeoutInMinutes"] = minutes.clone();
            }
            cloud.publish("edge-01", "$aws/things/edge-01/jobs/job1/update", update);
            let left = execution().get("approximateSecondsBeforeTimedOut").and_then(Value::as_i64);
            let expected = event["deadline"].as_i64().map(|deadline| (deadline - now) * 60);
            assert_eq!(left, expected, "{id} at minute {now}");
        }
        match events.last().unwrap()["deadline"].as_i64() {
            Some(deadline) => {
                cloud.advance((deadline - now) * 60 - 1);
                assert_eq!(execution()["status"], "IN_PROGRESS", "{id}");
                cloud.advance(1);
                assert_eq!(execution()["status"], "TIMED_OUT", "{id}");
            }
            None => {
                cloud.advance(7 * 24 * 3600);
                assert_eq!(execution()["status"], "IN_PROGRESS", "{id}");
            }
        }
    }
}

/// A thing with jobs whose names are also words of topics.
fn thing_with_jobs(names: &[&str]) -> Cloud {
    let cloud = Cloud::manual(&[]);
    cloud.done("CreateThing", json!({"thingName": "edge-01"}), json!(null));
    for name in names {
        let job = json!({"targets": [arn("thing/edge-01")], "document": "{}"});
        cloud.done("CreateJob", json!({"jobId": name}), job);
    }
    cloud
}

/// What came of a publish: topics without the part that names the thing's jobs.
fn answers(cloud: &Cloud, topic: &str, payload: Value) -> Vec<String> {
    let mut seen = 0;
    cloud.messages(&mut seen);
    cloud.publish("edge-01", topic, payload);
    let topics =
        cloud.messages(&mut seen).into_iter().map(|message| message["topic"].as_str().unwrap().to_owned());
    topics.filter(|topic| !topic.contains("/jobs/notify")).collect()
}

#[test]
fn request_topics_are_answered_on_their_own_and_no_other_topic_is_one() {
    let mut requests = 0;
    for case in vectors("topics.json") {
        let (topic, expected) = (case["input"]["topic"].as_str().unwrap(), &case["expect"]);
        if !topic.starts_with("$aws/things/edge-01/jobs/") {
            continue;
        }
        let cloud = thing_with_jobs(&["job-1", "get", "start-next"]);
        let answers = answers(&cloud, topic, json!({"status": "IN_PROGRESS"}));
        if expected["kind"] == "request" {
            requests += 1;
            assert_eq!(answers, [format!("{topic}/accepted")]);
        } else {
            assert!(!answers.iter().any(|answer| answer.ends_with("/accepted")), "{topic}: {answers:?}");
        }
    }
    assert!(requests >= 5);
}

#[test]
fn names_are_accepted_and_refused_as_the_models_patterns_say() {
    let mut tried = 0;
    for case in vectors("validation.json") {
        let what = case["id"].as_str().unwrap();
        for (member, expected) in [("accept", true), ("reject", false)] {
            for value in case[member].as_array().unwrap() {
                let value = value.as_str().unwrap();
                let Some(accepted) = accepts(what, value) else { continue };
                assert_eq!(accepted, expected, "{what} {value:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 30, "{tried}");
}

/// Whether the service takes `value` in that place; none for what it has no place for.
fn accepts(what: &str, value: &str) -> Option<bool> {
    let cloud = thing_with_jobs(&["job1"]);
    let ok = |operation, params: Value, body: Value| {
        Some(cloud.control(operation, &params, Some(&body)).status == 200)
    };
    let update = |details: Value| {
        let update = json!({"status": "IN_PROGRESS", "statusDetails": details});
        let topic = "$aws/things/edge-01/jobs/job1/update";
        Some(answers(&cloud, topic, update) == [format!("{topic}/accepted")])
    };
    match what {
        "jobId" => ok(
            "CreateJob",
            json!({"jobId": value}),
            json!({"targets": [arn("thing/edge-01")], "document": "{}"}),
        ),
        "thingName" => ok("CreateThing", json!({"thingName": value}), json!({})),
        "jobReasonCode" => ok("CancelJob", json!({"jobId": "job1"}), json!({"reasonCode": value})),
        "describeJobId" => {
            let topic = format!("$aws/things/edge-01/jobs/{value}/get");
            Some(answers(&cloud, &topic, json!({})) == [format!("{topic}/accepted")])
        }
        "statusDetailsKey" => update(json!({value: "v"})),
        "statusDetailsValue" => update(json!({"k": value})),
        _ => None,
    }
}
