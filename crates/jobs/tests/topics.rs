//! Topics: every case of the contract's table, and what is built here is what it lists.

#![allow(clippy::unwrap_used)] // helpers of tests

use jobs::topic::{self, Incoming, JobTarget, Verdict};
use jobs::{JobId, subscriptions};
use proptest::prelude::*;
use serde_json::Value;

const THING: &str = "edge-01";

fn job(id: &str) -> JobId {
    JobId::new(id).unwrap()
}

#[test]
fn every_topic_of_the_contract_is_read_as_it_says() {
    let table: Value =
        serde_json::from_str(include_str!("../../../test-fixtures/vectors/topics.json")).unwrap();
    let mut seen = 0;
    for case in table["cases"].as_array().unwrap() {
        let name = case["input"]["topic"].as_str().unwrap();
        let expect = &case["expect"];
        let text = |member: &str| expect[member].as_str().unwrap_or_default();
        let target = || match text("jobId") {
            "$next" => JobTarget::Next,
            id => JobTarget::Job(job(id)),
        };
        let parsed = Incoming::parse(THING, name);
        let verdict = match text("kind") {
            "accepted" => Some(Verdict::Accepted),
            "rejected" => Some(Verdict::Rejected),
            _ => None,
        };
        if text("service") != "jobs" {
            assert_eq!(parsed, None, "{name}");
        } else if text("kind") == "request" {
            // What a device sends never arrives; it is what the builders make.
            assert_eq!(parsed, None, "{name}");
            match text("op") {
                "describe" => assert_eq!(topic::describe(THING, &target()), name),
                "update" => assert_eq!(topic::update(THING, &job(text("jobId"))), name),
                _ => {} // get and start-next are not used
            }
        } else {
            let expected = match (text("op"), verdict) {
                ("notify", None) => Incoming::Notify,
                ("notify-next", None) => Incoming::NotifyNext,
                ("get", Some(verdict)) => Incoming::GetPending(verdict),
                ("start-next", Some(verdict)) => Incoming::StartNext(verdict),
                ("describe", Some(verdict)) => Incoming::Describe { job: target(), verdict },
                ("update", Some(verdict)) => Incoming::Update { job: job(text("jobId")), verdict },
                other => panic!("a new kind of case: {other:?}"),
            };
            assert_eq!(parsed, Some(expected), "{name}");
        }
        assert_eq!(Incoming::parse("another", name), None, "{name}");
        seen += 1;
    }
    assert!(seen >= 20, "{seen} cases");
}

#[test]
fn jobs_may_be_called_like_an_operation() {
    for (tail, expected) in [
        ("get/get/accepted", Some(("get", true))),
        ("start-next/get/accepted", Some(("start-next", true))),
        ("notify/update/accepted", Some(("notify", false))),
        ("update/update/accepted", Some(("update", false))),
        ("$next/update/accepted", None),
        ("$nextt/get/accepted", None),
        ("a.b/get/accepted", None),
        ("job-1/get/accepted/more", None),
        ("job-1/get/maybe", None),
        ("job-1/get", None),
        ("/get/accepted", None),
        ("notify/", None),
        ("notify-next-namespace-x", None),
        ("get/accepted/", None),
    ] {
        let parsed = Incoming::parse(THING, &format!("$aws/things/{THING}/jobs/{tail}"));
        let verdict = Verdict::Accepted;
        let expected = expected.map(|(id, describe)| match describe {
            true => Incoming::Describe { job: JobTarget::Job(job(id)), verdict },
            false => Incoming::Update { job: job(id), verdict },
        });
        assert_eq!(parsed, expected, "{tail}");
    }
}

#[test]
fn three_filters_cover_all_that_a_session_hears() {
    assert_eq!(
        subscriptions(THING),
        [
            "$aws/things/edge-01/jobs/notify-next",
            "$aws/things/edge-01/jobs/+/get/+",
            "$aws/things/edge-01/jobs/+/update/+"
        ]
    );
}

proptest! {
    #[test]
    fn no_topic_panics(topic in ".{0,80}", tail in "[a-z$/+#-]{0,40}") {
        let _ = Incoming::parse(THING, &topic);
        let _ = Incoming::parse(THING, &format!("$aws/things/{THING}/jobs/{tail}"));
    }
}
