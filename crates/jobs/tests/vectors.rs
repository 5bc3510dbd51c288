//! The contract's conversations, heard from the device's side: what the service says in them reaches the
//! session in that order, and it must offer exactly what is pending.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test harness

mod common;

use std::time::{Duration, Instant};

use common::{THING, update};
use jobs::{Action, Session, Settings, Settlement, UpdateStatus, Withdrawal};
use serde_json::{Value, json};

fn cases(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn all_cases() -> Vec<Value> {
    let mut all = cases(include_str!("../../../test-fixtures/vectors/jobs-lifecycle.json"));
    all.extend(cases(include_str!("../../../test-fixtures/vectors/jobs-errors.json")));
    all
}

/// A matcher stands for many messages: this makes it one of them.
fn filled(value: &Value, clock: u64) -> Value {
    match value {
        Value::String(text) => match text.as_str() {
            "$now" | "$int" => json!(clock),
            "$str" | "$any" => json!("text"),
            _ => value.clone(),
        },
        Value::Array(values) => values.iter().map(|value| filled(value, clock)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.trim_end_matches('?').to_owned(), filled(value, clock)))
            .collect(),
        other => other.clone(),
    }
}

/// Every message of the service to our thing, in order.
fn said(case: &Value) -> Vec<(String, Value)> {
    let mut clock = 0;
    let mut messages = Vec::new();
    for step in case["steps"].as_array().unwrap() {
        clock = step["at"].as_u64().unwrap_or(clock + step["advance"].as_u64().unwrap_or(0));
        for message in step["service"].as_array().into_iter().flatten() {
            let topic = message["topic"].as_str().unwrap().to_owned();
            messages.push((topic, filled(&message["payload"], clock)));
        }
    }
    messages
}

fn deliver(session: &mut Session, now: Instant, topic: &str, payload: &Value) {
    session.message(now, topic, payload.to_string().as_bytes());
}

fn events(session: &mut Session) -> Vec<Action> {
    std::iter::from_fn(|| session.poll_action())
        .filter(|action| !matches!(action, Action::Publish { .. }))
        .collect()
}

#[test]
fn every_notification_offers_exactly_what_it_says_is_next() {
    let (mut offers, mut none) = (0, 0);
    for case in all_cases() {
        for (topic, payload) in said(&case) {
            let mut session = Session::new(Settings::new(THING), 1);
            let now = Instant::now();
            session.connected(now);
            let ask: Value = match session.poll_action() {
                Some(Action::Publish { payload, .. }) => serde_json::from_slice(&payload).unwrap(),
                other => panic!("{other:?}"),
            };
            // An answer to another's describe of $next is made ours; all others stay foreign.
            let mut payload = payload;
            let answers_us = topic.ends_with("/jobs/$next/get/accepted");
            if answers_us {
                payload["clientToken"] = ask["clientToken"].clone();
            }
            deliver(&mut session, now, &topic, &payload);
            let head = &payload["execution"];
            let queued = head["status"] == "QUEUED" && topic.ends_with("/jobs/notify-next");
            let expected = topic.contains(&format!("/{THING}/")) && (queued || answers_us && !head.is_null());
            let offered = events(&mut session).into_iter().find_map(|event| match event {
                Action::Offer(execution) => Some(execution),
                _ => None,
            });
            assert_eq!(offered.is_some(), expected, "{}: {topic}", case["id"]);
            match offered {
                Some(offered) => {
                    offers += 1;
                    assert_eq!(offered.job_id.as_str(), head["jobId"], "{}", case["id"]);
                    assert_eq!(offered.version_number, head["versionNumber"].as_u64().unwrap());
                    assert_eq!(offered.document.as_ref(), head.get("jobDocument"), "{}", case["id"]);
                }
                None => none += 1,
            }
        }
    }
    assert!(offers >= 30 && none >= 100, "{offers} offers, {none} others");
}

#[test]
fn every_rejection_of_the_contract_is_dealt_with_as_its_section_nine_says() {
    let mut seen = std::collections::BTreeSet::new();
    for case in all_cases() {
        for (topic, payload) in said(&case) {
            let Some(code) = payload["code"].as_str().filter(|_| topic.contains("/update/")) else {
                continue;
            };
            seen.insert(code.to_owned());
            let mut session = Session::new(Settings::new(THING), 1);
            let now = Instant::now();
            session.connected(now);
            let job = topic.split('/').nth(4).unwrap();
            let key = jobs::ExecutionKey {
                job_id: jobs::JobId::new(job).unwrap(),
                execution_number: 1,
                queued_at: common::QUEUED_AT,
            };
            session.finish(now, &key, Some(99), update(UpdateStatus::Succeeded));
            let Some(Action::Publish { payload: sent, .. }) = session.poll_action() else {
                panic!("a publish")
            };
            let sent: Value = serde_json::from_slice(&sent).unwrap();
            let mut payload = payload.clone();
            payload["clientToken"] = sent["clientToken"].clone();
            deliver(&mut session, now, &topic, &payload);
            let first = session.poll_action();
            let state = &payload["executionState"]["status"];
            match (code, state.as_str()) {
                (_, Some("SUCCEEDED")) => assert_eq!(first, Some(Action::Settled(Settlement::Accepted))),
                ("ResourceNotFound", _) => assert_eq!(first, Some(Action::Settled(Settlement::Gone))),
                ("VersionMismatch" | "InvalidRequest", _) => {
                    let Some(Action::Publish { payload: again, .. }) = first else {
                        panic!("{code}: {first:?}")
                    };
                    let again: Value = serde_json::from_slice(&again).unwrap();
                    match payload["executionState"]["versionNumber"].as_u64() {
                        Some(version) => assert_eq!(again["expectedVersion"], version),
                        None => assert_eq!(again["statusDetails"], json!({"reason": "because"})),
                    }
                }
                ("InvalidStateTransition", Some("IN_PROGRESS")) => {
                    assert!(
                        matches!(first, Some(Action::Settled(Settlement::Unreportable { .. }))),
                        "{first:?}"
                    );
                }
                other => panic!("a new kind of rejection: {other:?}"),
            }
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// The whole conversation at once, with an agent that takes what it is offered: the answers are foreign to
/// it, the notifications are not.
#[test]
fn no_conversation_upsets_a_session_that_is_at_work() {
    for case in all_cases() {
        let mut session = Session::new(Settings::new(THING), 1);
        let mut now = Instant::now();
        session.connected(now);
        let mut held = None;
        for (topic, payload) in said(&case) {
            deliver(&mut session, now, &topic, &payload);
            while let Some(action) = session.poll_action() {
                match action {
                    Action::Offer(execution) => {
                        assert_eq!(held.replace(execution.key()), None, "{}: two at once", case["id"]);
                        session.begin(now, &execution, update(UpdateStatus::InProgress));
                    }
                    Action::Publish { topic, payload } if topic.ends_with("/update") => {
                        let sent: Value = serde_json::from_slice(&payload).unwrap();
                        let answer = json!({"clientToken": sent["clientToken"]});
                        deliver(&mut session, now, &format!("{topic}/accepted"), &answer);
                    }
                    Action::Publish { topic, payload } if !topic.contains("$next") => {
                        let sent: Value = serde_json::from_slice(&payload).unwrap();
                        let answer =
                            json!({"clientToken": sent["clientToken"], "code": "TerminalStateReached"});
                        deliver(&mut session, now, &format!("{topic}/rejected"), &answer);
                    }
                    Action::Withdrawn(withdrawal) => {
                        assert_eq!(withdrawal, Withdrawal::Ended(None));
                        assert!(held.take().is_some());
                    }
                    _ => {}
                }
            }
            assert_eq!(session.held(), held.as_ref(), "{}", case["id"]);
            now += Duration::from_secs(1);
            session.tick(now);
        }
    }
}
