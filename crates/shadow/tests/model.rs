//! The session against a model of the service, on a wire that loses, repeats and reorders, while an operator wishes and
//! deletes, somebody else writes, and the device applies what it is told, or refuses it. Whatever happens: in the end
//! what is reported is what is desired, or says that it was refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // test code

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use shadow::{Action, Members, Session, Settings, Shadow, merge};

type Message = (String, Value);

/// One shadow at the service, as far as a device can tell.
#[derive(Debug, Default)]
struct Service {
    version: u64,
    document: Option<[Members; 2]>,
    conflicts: usize,
}

impl Service {
    fn handle(&mut self, what: &str, request: &Value) -> Vec<Message> {
        let token = &request["clientToken"];
        let say = |what: &str, mut payload: Value| {
            if !token.is_null() {
                payload["clientToken"] = token.clone();
            }
            (what.to_owned(), payload)
        };
        match what {
            "get" => match &self.document {
                None => vec![say("get/rejected", json!({"code": 404, "message": "none"}))],
                Some([desired, reported]) => {
                    let state = json!({"desired": desired, "reported": reported});
                    vec![say("get/accepted", json!({"state": state, "version": self.version}))]
                }
            },
            _ if self.conflicts > 0 => {
                self.conflicts -= 1;
                vec![say("update/rejected", json!({"code": 409, "message": "Version conflict"}))]
            }
            _ => {
                let [desired, reported] = self.document.get_or_insert_default();
                for (section, name) in [(&mut *desired, "desired"), (&mut *reported, "reported")] {
                    match &request["state"][name] {
                        Value::Object(patch) => merge(section, patch),
                        Value::Null if request["state"].get(name).is_some() => section.clear(),
                        _ => {}
                    }
                }
                let differs = differences(desired, reported);
                self.version += 1;
                let accepted = json!({"state": request["state"], "version": self.version});
                let mut said = vec![say("update/accepted", accepted)];
                if !differs.is_empty() {
                    said.push(say("update/delta", json!({"state": differs, "version": self.version})));
                }
                said
            }
        }
    }

    fn delete(&mut self) -> Vec<Message> {
        match self.document.take() {
            None => Vec::new(),
            Some(_) => vec![("delete/accepted".to_owned(), json!({"version": self.version}))],
        }
    }
}

fn differences(desired: &Members, reported: &Members) -> Members {
    let mut differs = Members::new();
    for (key, value) in desired {
        let found = reported.get(key);
        if let (Some(inner), Some(found)) = (value.as_object(), found.and_then(Value::as_object)) {
            let inner = differences(inner, found);
            if !inner.is_empty() {
                differs.insert(key.clone(), inner.into());
            }
        } else if found != Some(value) {
            differs.insert(key.clone(), value.clone());
        }
    }
    differs
}

#[derive(Debug, Clone)]
enum Step {
    /// `desired` as it is merged; null removes.
    Desire(Members),
    DesireNothing,
    /// Somebody else writes what is reported.
    Meddle(Members),
    Delete,
    Conflicts(usize),
    /// What is on the wire at this place is delivered.
    Deliver(usize),
    Lose(usize),
    Repeat(usize),
    /// The device finishes what it was told last.
    Work,
    Cut,
    Wait(u64),
}

/// A device that takes everything but what has the member `bad`.
struct Device {
    session: Session,
    service: Service,
    now: Instant,
    to_do: Option<Members>,
    in_force: Members,
    refused: Option<Members>,
    from_device: Vec<Message>,
    to_device: Vec<Message>,
    /// The version goes on as if nothing had been lost: only a new link is sure to find it.
    lost_a_deletion: bool,
}

impl Device {
    fn new() -> Device {
        let shadow = Shadow { thing: "t".to_owned(), name: None };
        let mut device = Device {
            session: Session::new(Settings::new(shadow, true), 3),
            service: Service::default(),
            now: Instant::now(),
            to_do: None,
            in_force: Members::new(),
            refused: None,
            from_device: Vec::new(),
            to_device: Vec::new(),
            lost_a_deletion: false,
        };
        device.session.connected(device.now);
        device.act();
        device
    }

    fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Publish { topic, payload } => {
                    let what = topic.strip_prefix("$aws/things/t/shadow/").unwrap().to_owned();
                    self.from_device.push((what, serde_json::from_slice(&payload).unwrap()));
                }
                Action::Desired(desired) => self.to_do = Some(desired),
                Action::Reported => {}
            }
        }
    }

    fn work(&mut self) {
        let Some(desired) = self.to_do.take() else { return };
        if desired.contains_key("bad") {
            self.refused = Some(desired);
        } else {
            self.refused = None;
            if !desired.is_empty() {
                self.in_force = desired;
            }
        }
        let mut is = self.in_force.clone();
        if self.refused.is_some() {
            is.insert("_refused".to_owned(), json!({"reason": "bad"}));
        }
        self.session.report(self.now, &is);
        self.act();
    }

    fn cut(&mut self) {
        self.session.disconnected(self.now);
        self.from_device.clear();
        self.to_device.clear();
        self.session.connected(self.now);
        self.act();
    }

    fn deliver(&mut self, at: usize) {
        let on_the_wire = self.from_device.len() + self.to_device.len();
        if on_the_wire == 0 {
            return;
        }
        let at = at % on_the_wire;
        if at < self.from_device.len() {
            let (what, request) = self.from_device.remove(at);
            let said = self.service.handle(&what, &request);
            self.to_device.extend(said);
        } else {
            let (what, payload) = self.to_device.remove(at - self.from_device.len());
            let topic = format!("$aws/things/t/shadow/{what}");
            assert!(self.session.message(self.now, &topic, payload.to_string().as_bytes()));
            self.act();
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Desire(patch) => {
                let said = self.service.handle("update", &json!({"state": {"desired": patch}}));
                self.to_device.extend(said);
            }
            Step::DesireNothing => {
                let said = self.service.handle("update", &json!({"state": {"desired": null}}));
                self.to_device.extend(said);
            }
            Step::Meddle(patch) => {
                let said = self.service.handle("update", &json!({"state": {"reported": patch}}));
                self.to_device.extend(said);
            }
            Step::Delete => {
                let said = self.service.delete();
                self.to_device.extend(said);
            }
            Step::Conflicts(count) => self.service.conflicts = count,
            Step::Deliver(at) => self.deliver(at),
            Step::Lose(at) => {
                let on_the_wire = self.from_device.len() + self.to_device.len();
                if on_the_wire > 0 {
                    let at = at % on_the_wire;
                    if at < self.from_device.len() {
                        self.from_device.remove(at);
                    } else {
                        let (what, _) = self.to_device.remove(at - self.from_device.len());
                        self.lost_a_deletion |= what == "delete/accepted";
                    }
                }
            }
            Step::Repeat(at) => {
                if !self.to_device.is_empty() {
                    let again = self.to_device[at % self.to_device.len()].clone();
                    self.to_device.push(again);
                }
            }
            Step::Work => self.work(),
            Step::Cut => self.cut(),
            Step::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.session.tick(self.now);
                self.act();
            }
        }
    }

    /// Everything arrives from now on. What was lost before is found when the link is next made, or with the next update.
    fn calm(&mut self, by_a_new_link: bool) {
        self.service.conflicts = 0;
        if by_a_new_link || self.lost_a_deletion {
            self.cut();
        } else {
            self.step(Step::Desire([("last".to_owned(), json!(1))].into_iter().collect()));
        }
        for _ in 0..10_000 {
            if !self.from_device.is_empty() || !self.to_device.is_empty() {
                self.deliver(0);
            } else if self.to_do.is_some() {
                self.work();
            } else if let Some(due) = self.session.deadline() {
                self.now = self.now.max(due);
                self.session.tick(self.now);
                self.act();
            } else {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.session);
    }
}

fn members() -> impl Strategy<Value = Members> {
    let value = prop_oneof![
        3 => (0..3).prop_map(|n| json!(n)),
        1 => Just(Value::Null),
        1 => (0..2).prop_map(|n| json!({"x": n})),
        1 => Just(json!({"x": null})),
    ];
    proptest::collection::btree_map("[abc]|bad", value, 1..3)
        .prop_map(|members| members.into_iter().collect())
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..8_usize;
    prop_oneof![
        6 => members().prop_map(Step::Desire),
        1 => Just(Step::DesireNothing),
        1 => members().prop_map(Step::Meddle),
        1 => Just(Step::Delete),
        1 => (1..4_usize).prop_map(Step::Conflicts),
        16 => at.clone().prop_map(Step::Deliver),
        2 => at.clone().prop_map(Step::Lose),
        2 => at.prop_map(Step::Repeat),
        4 => Just(Step::Work),
        1 => Just(Step::Cut),
        3 => (1..30_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn in_the_end_what_is_reported_is_what_is_desired_or_a_refusal(
        steps in proptest::collection::vec(step(), 0..60),
        by_a_new_link: bool,
    ) {
        let mut device = Device::new();
        for step in steps {
            device.step(step);
        }
        device.calm(by_a_new_link);
        let [desired, reported] = device.service.document.clone().unwrap_or_default();
        if desired.contains_key("bad") {
            prop_assert!(reported.contains_key("_refused"), "{reported:?}");
            prop_assert_eq!(device.refused.as_ref(), Some(&desired));
        } else {
            prop_assert!(!reported.contains_key("_refused"));
            if !desired.is_empty() {
                prop_assert_eq!(&reported, &desired);
            }
        }
        // And it is the truth.
        let mut is = reported;
        is.remove("_refused");
        prop_assert_eq!(is, device.in_force);
    }
}
