//! A test for each rule of the session.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // test code

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shadow::{Action, Members, Session, Settings, Shadow};

const PREFIX: &str = "$aws/things/t/shadow/name/n/";

/// A session, and what it published: the last part of the topic, and the payload.
struct Test {
    session: Session,
    now: Instant,
    desired: Option<Members>,
    reported: usize,
}

impl Test {
    fn new(follows: bool) -> Test {
        let shadow = Shadow { thing: "t".to_owned(), name: Some("n".to_owned()) };
        let mut test = Test {
            session: Session::new(Settings::new(shadow, follows), 7),
            now: Instant::now(),
            desired: None,
            reported: 0,
        };
        test.session.connected(test.now);
        test
    }

    /// What a follower finds: this document, in this version.
    fn knowing(version: u64, state: Value) -> Test {
        let mut test = Test::new(true);
        let token = test.asks();
        test.hears("get/accepted", json!({"state": state, "version": version, "clientToken": token}));
        test
    }

    fn says(&mut self) -> Vec<(String, Value)> {
        let mut said = Vec::new();
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Publish { topic, payload } => {
                    let what = topic.strip_prefix(PREFIX).unwrap().to_owned();
                    said.push((what, serde_json::from_slice(&payload).unwrap()));
                }
                Action::Desired(desired) => self.desired = Some(desired),
                Action::Reported => self.reported += 1,
            }
        }
        said
    }

    fn silent(&mut self) {
        assert_eq!(self.says(), []);
    }

    /// It asks for the document; with which token.
    fn asks(&mut self) -> Value {
        let said = self.says();
        assert!(said.len() == 1 && said[0].0 == "get", "{said:?}");
        said[0].1["clientToken"].clone()
    }

    /// It reports this; with which token.
    fn reports(&mut self, patch: Value) -> Value {
        let said = self.says();
        assert!(said.len() == 1 && said[0].0 == "update", "{said:?}");
        assert_eq!(said[0].1["state"], json!({"reported": patch}));
        assert_eq!(said[0].1.get("version"), None);
        said[0].1["clientToken"].clone()
    }

    fn hears(&mut self, what: &str, payload: Value) {
        let topic = format!("{PREFIX}{what}");
        assert!(self.session.message(self.now, &topic, payload.to_string().as_bytes()));
    }

    fn is(&mut self, value: Value) {
        self.session.report(self.now, value.as_object().unwrap());
    }

    fn waits(&mut self) -> Duration {
        let due = self.session.deadline().unwrap();
        let waited = due.saturating_duration_since(self.now);
        self.now = due;
        self.session.tick(due);
        waited
    }

    fn wants(&mut self, expected: Value) {
        self.says();
        assert_eq!(self.desired.take().map(Value::Object), Some(expected));
    }
}

#[test]
fn a_follower_asks_on_every_connect_and_says_what_is_desired_when_that_is_news() {
    let mut test = Test::knowing(5, json!({"desired": {"a": 1}, "reported": {"a": 0}}));
    test.wants(json!({"a": 1}));
    test.session.disconnected(test.now);
    test.session.connected(test.now);
    let token = test.asks();
    test.hears("get/accepted", json!({"state": {"desired": {"a": 1}}, "version": 9, "clientToken": token}));
    test.silent();
    assert_eq!(test.desired, None, "that was told before");
}

#[test]
fn there_being_no_shadow_is_nothing_desired_and_what_is_so_makes_one() {
    let mut test = Test::new(true);
    let token = test.asks();
    test.is(json!({"a": 1, "b": null}));
    test.hears("get/rejected", json!({"code": 404, "message": "none", "clientToken": token}));
    let token = test.reports(json!({"a": 1}));
    assert_eq!(test.desired, Some(Members::new()));
    let accepted = json!({"state": {"reported": {"a": 1}}, "version": 1, "clientToken": token});
    test.hears("update/accepted", accepted);
    test.silent();
    assert_eq!((test.reported, test.session.deadline()), (1, None), "nothing is owed or waited for");
}

#[test]
fn an_update_in_turn_is_all_there_is_to_know_and_its_delta_costs_nothing_more() {
    let mut test = Test::knowing(5, json!({"desired": {"a": 1, "b": 2}}));
    test.wants(json!({"a": 1, "b": 2}));
    let update = json!({"state": {"desired": {"a": 3, "b": null}}, "version": 6});
    test.hears("update/accepted", update.clone());
    test.hears("update/delta", json!({"state": {"a": 3}, "version": 6}));
    test.wants(json!({"a": 3}));
    // Late and repeated ones change nothing.
    test.hears("update/accepted", update);
    test.hears("update/delta", json!({"state": {"a": 1}, "version": 4}));
    test.hears("update/accepted", json!({"state": {"desired": {"a": 9}}, "version": 2}));
    test.silent();
    assert_eq!((test.desired, test.session.deadline()), (None, None));
}

#[test]
fn a_delta_that_says_something_else_than_is_known_is_the_sign_of_a_loss_that_no_version_tells_of() {
    let mut test = Test::knowing(5, json!({"desired": {"a": 1}, "reported": {"a": 1}}));
    test.wants(json!({"a": 1}));
    // It was deleted, and made anew: the version goes on.
    test.hears("update/accepted", json!({"state": {"desired": {"b": 2}}, "version": 6}));
    test.hears("update/delta", json!({"state": {"b": 2}, "version": 6}));
    test.wants(json!({"a": 1, "b": 2}));
    assert_eq!(test.session.deadline(), None, "so far it fits");
    test.hears("update/accepted", json!({"state": {"reported": {"c": 1}}, "version": 7}));
    test.hears("update/delta", json!({"state": {"b": 3}, "version": 7}));
    test.silent();
    test.waits();
    let token = test.asks();
    let state = json!({"desired": {"b": 3}, "reported": {"c": 1}});
    test.hears("get/accepted", json!({"state": state, "version": 7, "clientToken": token}));
    test.wants(json!({"b": 3}));
    // An answer is the last word, whatever a delta says.
    test.hears("update/delta", json!({"state": {"b": 9}, "version": 7}));
    assert_eq!(test.session.deadline(), None);
}

#[test]
fn a_delta_before_its_update_waits_for_it() {
    let mut test = Test::knowing(5, json!({"desired": {"a": 1}}));
    test.wants(json!({"a": 1}));
    test.hears("update/delta", json!({"state": {"a": 2}, "version": 6}));
    test.silent();
    test.hears("update/accepted", json!({"state": {"desired": {"a": 2}}, "version": 6}));
    test.wants(json!({"a": 2}));
    assert_eq!(test.session.deadline(), None);
}

#[test]
fn a_version_that_is_heard_of_and_does_not_come_is_asked_for() {
    for (what, message) in [
        ("update/delta", json!({"state": {"a": 2}, "version": 6})),
        ("update/accepted", json!({"state": {"desired": {"b": 2}}, "version": 7})),
    ] {
        let mut test = Test::knowing(5, json!({"desired": {"a": 1}}));
        test.wants(json!({"a": 1}));
        test.hears(what, message);
        test.silent();
        assert_eq!(test.waits(), Duration::from_secs(1));
        let token = test.asks();
        let answer = json!({"state": {"desired": {"a": 2, "b": 2}}, "version": 7, "clientToken": token});
        test.hears("get/accepted", answer);
        test.wants(json!({"a": 2, "b": 2}));
        assert_eq!(test.session.deadline(), None);
    }
}

#[test]
fn an_answer_that_is_older_than_what_was_heard_meanwhile_is_not_the_last_word() {
    let mut test = Test::new(true);
    let token = test.asks();
    test.hears("update/accepted", json!({"state": {"desired": {"a": 2}}, "version": 6}));
    test.hears("get/accepted", json!({"state": {"desired": {"a": 1}}, "version": 5, "clientToken": token}));
    test.waits();
    let token = test.asks();
    test.hears("get/accepted", json!({"state": {"desired": {"a": 2}}, "version": 6, "clientToken": token}));
    test.wants(json!({"a": 2}));
}

#[test]
fn what_is_heard_while_an_answer_is_on_its_way_may_be_newer_than_the_answer() {
    let mut test = Test::knowing(5, json!({"desired": {"a": 1}}));
    test.wants(json!({"a": 1}));
    test.hears("update/delta", json!({"state": {"a": 2}, "version": 6}));
    test.waits();
    let token = test.asks();
    test.hears("delete/accepted", json!({"version": 6}));
    test.hears("get/accepted", json!({"state": {"desired": {"a": 2}}, "version": 6, "clientToken": token}));
    test.waits();
    let token = test.asks();
    test.hears("get/rejected", json!({"code": 404, "message": "none", "clientToken": token}));
    test.wants(json!({}));
}

#[test]
fn what_was_removed_is_reported_as_null_and_what_did_not_change_not_at_all() {
    let mut test = Test::knowing(5, json!({"reported": {"a": 1, "b": {"c": 1, "d": 2}, "e": 5}}));
    test.is(json!({"a": 1, "b": {"c": 1}, "f": [1]}));
    let token = test.reports(json!({"b": {"d": null}, "e": null, "f": [1]}));
    // What changes while it is unanswered goes out in one, after it.
    test.is(json!({"a": 2}));
    test.is(json!({"a": 3, "b": {"c": 1}}));
    test.silent();
    let echo = json!({"reported": {"b": {"d": null}, "e": null, "f": [1]}});
    test.hears("update/accepted", json!({"state": echo, "version": 6, "clientToken": token}));
    test.reports(json!({"a": 3, "f": null}));
}

#[test]
fn what_somebody_else_writes_into_what_is_reported_is_put_right() {
    let mut test = Test::knowing(5, json!({"reported": {"a": 1}}));
    test.is(json!({"a": 1}));
    test.silent();
    test.hears("update/accepted", json!({"state": {"reported": {"a": 7, "x": 1}}, "version": 6}));
    test.reports(json!({"a": 1, "x": null}));
}

#[test]
fn a_shadow_that_is_deleted_is_made_again_and_one_that_was_made_anew_is_asked_for() {
    let mut test = Test::knowing(5, json!({"desired": {"a": 1}, "reported": {"a": 1}}));
    test.is(json!({"a": 1}));
    test.wants(json!({"a": 1}));
    test.hears("delete/accepted", json!({"version": 5}));
    let token = test.reports(json!({"a": 1}));
    assert_eq!(test.desired.take(), Some(Members::new()));
    let state = json!({"reported": {"a": 1}});
    test.hears("update/accepted", json!({"state": state, "version": 6, "clientToken": token}));
    test.silent();
    // Days later the count begins anew.
    test.hears("delete/accepted", json!({"version": 6}));
    test.reports(json!({"a": 1}));
    test.hears("update/accepted", json!({"state": {"desired": {"z": 1}}, "version": 1}));
    assert!(test.session.deadline().is_some());
}

#[test]
fn conflicts_are_resolved_by_asking_after_a_random_wait_and_not_for_ever() {
    let mut test = Test::knowing(5, json!({}));
    test.is(json!({"a": 1}));
    let mut waits = Vec::new();
    for version in 6..11 {
        let token = test.reports(json!({"a": 1}));
        test.hears(
            "update/rejected",
            json!({"code": 409, "message": "Version conflict", "clientToken": token}),
        );
        test.silent();
        waits.push(test.waits());
        let token = test.asks();
        test.hears("get/accepted", json!({"state": {}, "version": version, "clientToken": token}));
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(10)));
    waits.dedup();
    assert!(waits.len() > 3, "{waits:?}");
    let token = test.reports(json!({"a": 1}));
    test.hears("update/rejected", json!({"code": 409, "message": "Version conflict", "clientToken": token}));
    test.silent();
    assert_eq!(test.session.deadline(), None, "enough");
    test.is(json!({"a": 2}));
    test.reports(json!({"a": 2}));
}

#[test]
fn refusals_for_now_are_tried_again_and_refusals_for_good_are_not() {
    for code in [429, 500, 503] {
        let mut test = Test::knowing(5, json!({}));
        test.is(json!({"a": 1}));
        let token = test.reports(json!({"a": 1}));
        test.hears("update/rejected", json!({"code": code, "message": "later", "clientToken": token}));
        test.silent();
        assert!(test.waits() <= Duration::from_secs(10));
        assert_eq!(test.reports(json!({"a": 1})), token, "the same request");
    }
    for code in [400, 401, 403, 413, 415] {
        let mut test = Test::knowing(5, json!({}));
        test.is(json!({"a": 1}));
        test.reports(json!({"a": 1}));
        test.hears("update/rejected", json!({"code": code, "message": "never"}));
        test.is(json!({"a": 1}));
        test.silent();
        assert_eq!(test.session.deadline(), None, "{code}");
        test.is(json!({"a": 2}));
        test.reports(json!({"a": 2}));
    }
    let mut test = Test::new(true);
    test.asks();
    test.hears("get/rejected", json!({"code": 403, "message": "Forbidden"}));
    test.silent();
    assert_eq!(test.session.deadline(), None);
}

#[test]
fn an_unanswered_request_is_sent_again_slower_each_time() {
    let mut test = Test::new(true);
    let token = test.asks();
    let mut waits = Vec::new();
    for _ in 0..4 {
        waits.push(test.waits().as_secs());
        assert_eq!(test.asks(), token);
    }
    assert_eq!(waits, [10, 20, 40, 80]);
}

#[test]
fn who_only_reports_asks_once_and_then_writes_changes_alone_at_most_once_in_a_while() {
    let shadow = Shadow { thing: "t".to_owned(), name: Some("n".to_owned()) };
    let hour = Duration::from_secs(3600);
    let settings = Settings { report_interval: hour, ..Settings::new(shadow, false) };
    let mut test = Test::new(false);
    test.session = Session::new(settings, 7);
    test.session.connected(test.now);
    test.silent();
    test.is(json!({"a": 1}));
    let token = test.asks();
    test.hears("get/rejected", json!({"code": 404, "message": "none", "clientToken": token}));
    let token = test.reports(json!({"a": 1}));
    let state = json!({"reported": {"a": 1}});
    test.hears("update/accepted", json!({"state": state, "version": 1, "clientToken": token}));
    test.session.disconnected(test.now);
    test.session.connected(test.now);
    test.is(json!({"a": 1}));
    test.silent();
    assert_eq!(test.session.deadline(), None, "nothing changed: nothing is asked or said");
    test.is(json!({"a": 2}));
    test.silent();
    assert_eq!(test.waits(), hour);
    test.reports(json!({"a": 2}));
    // Whether that was taken is not known any more.
    test.session.disconnected(test.now);
    test.session.connected(test.now);
    test.asks();
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let mut test = Test::knowing(5, json!({"desired": {"a": "x".repeat(5000)}}));
    let big = json!({"a": "y".repeat(5000)});
    assert!(test.session.fits(big.as_object().unwrap()).unwrap_err().to_string().contains("8192"));
    test.is(big);
    test.silent();
    assert_eq!(test.session.deadline(), None);
    test.is(json!({"a": "y"}));
    let token = test.reports(json!({"a": "y"}));
    let echo = json!({"reported": {"a": "y"}});
    test.hears("update/accepted", json!({"state": echo, "version": 6, "clientToken": token}));
    // What does not fit beside what is desired may fit beside something else.
    test.is(json!({"a": "y".repeat(5000)}));
    test.silent();
    test.hears("update/accepted", json!({"state": {"desired": null}, "version": 7}));
    test.reports(json!({"a": "y".repeat(5000)}));
}

#[test]
fn what_is_not_understood_is_as_good_as_lost() {
    let mut test = Test::knowing(5, json!({"desired": {"a": 1}}));
    test.wants(json!({"a": 1}));
    for payload in ["", "{", "[]", "{}", r#"{"version":-1}"#, r#"{"state":{"desired":1},"version":6}"#] {
        for what in ["get/accepted", "get/rejected", "update/accepted", "update/delta", "delete/accepted"] {
            let topic = format!("{PREFIX}{what}");
            assert!(test.session.message(test.now, &topic, payload.as_bytes()));
        }
    }
    assert!(!test.session.message(test.now, "$aws/things/t/shadow/name/n/update/documents", b"{}"));
    assert!(!test.session.message(test.now, "$aws/things/t/shadow/update/delta", b"{}"));
    test.silent();
}

#[test]
fn what_others_report_to_a_shared_shadow_is_left_alone() {
    let shadow = Shadow { thing: "t".to_owned(), name: Some("n".to_owned()) };
    let mut test = Test::new(false);
    test.session = Session::new(Settings { shared: true, ..Settings::new(shadow, false) }, 7);
    test.session.connected(test.now);
    test.is(json!({"ours": {"version": "2"}}));
    let token = test.asks();
    let state = json!({"reported": {"theirs": {"version": "1"}, "ours": {"version": "1", "old": 1}}});
    test.hears("get/accepted", json!({"state": state, "version": 3, "clientToken": token}));
    test.reports(json!({"ours": {"version": "2", "old": null}}));
}
