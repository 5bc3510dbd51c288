//! The session against a small model of the service, over a wire that loses, repeats, delays and reorders,
//! with an agent that is killed now and then. Whatever happens, the work is done once and its outcome
//! arrives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test harness

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::{QUEUED_AT, THING, update};
use jobs::{Action, ExecutionKey, JobExecution, Session, Settings, Settlement, StatusUpdate, UpdateStatus};
use proptest::prelude::*;
use serde_json::{Value, json};

type Message = (String, Value);

#[derive(Clone, Debug)]
struct Execution {
    id: String,
    status: String,
    version: u64,
}

impl Execution {
    fn is_pending(&self) -> bool {
        matches!(self.status.as_str(), "QUEUED" | "IN_PROGRESS")
    }

    fn json(&self) -> Value {
        json!({"jobId": self.id, "executionNumber": 1, "versionNumber": self.version, "status": self.status,
               "queuedAt": QUEUED_AT, "jobDocument": {}})
    }
}

/// AWS IoT Jobs for one thing, as far as a device can tell.
#[derive(Debug, Default)]
struct Service {
    executions: Vec<Execution>,
    created: usize,
    troubled: bool,
    clock: u64,
}

impl Service {
    fn head(&self) -> Option<&Execution> {
        let pending = || self.executions.iter().filter(|execution| execution.is_pending());
        pending().find(|execution| execution.status == "IN_PROGRESS").or_else(|| pending().next())
    }

    /// Applies a change and says so, if that changed the head.
    fn change(&mut self, change: impl FnOnce(&mut Vec<Execution>)) -> Option<Message> {
        let name = |head: Option<&Execution>| head.map(|head| head.id.clone());
        let before = name(self.head());
        change(&mut self.executions);
        self.clock += 1;
        let mut payload = json!({"timestamp": QUEUED_AT + self.clock});
        if let Some(head) = self.head() {
            payload["execution"] = head.json();
        }
        (name(self.head()) != before).then(|| (format!("$aws/things/{THING}/jobs/notify-next"), payload))
    }

    fn handle(&mut self, (topic, request): &Message) -> Vec<Message> {
        let token = &request["clientToken"];
        let levels: Vec<&str> = topic.split('/').collect();
        let (id, operation) = (levels[4], levels[5]);
        let reject = |code: &str, state: Option<&Execution>| {
            let mut body = json!({"code": code, "message": "", "clientToken": token, "timestamp": QUEUED_AT});
            if let Some(state) = state {
                body["executionState"] = json!({"status": state.status, "versionNumber": state.version});
            }
            vec![(format!("{topic}/rejected"), body)]
        };
        let accept = |body: Value| (format!("{topic}/accepted"), body);
        if std::mem::take(&mut self.troubled) {
            return reject("InternalError", None);
        }
        if id == "$next" {
            let execution = self.head().map(Execution::json);
            return vec![accept(json!({"execution": execution, "clientToken": token}))];
        }
        let Some(found) = self.executions.iter().find(|execution| execution.id == id).cloned() else {
            return reject("ResourceNotFound", None);
        };
        if operation == "get" {
            return match found.is_pending() {
                true => vec![accept(json!({"execution": found.json(), "clientToken": token}))],
                false => reject("TerminalStateReached", None),
            };
        }
        if request["expectedVersion"].as_u64().is_some_and(|version| version != found.version) {
            return reject("VersionMismatch", Some(&found));
        }
        if !found.is_pending() {
            return reject("InvalidStateTransition", Some(&found));
        }
        let status = request["status"].as_str().unwrap().to_owned();
        let mut body = json!({"clientToken": token, "timestamp": QUEUED_AT});
        if request["includeJobExecutionState"] == true {
            body["executionState"] = json!({"status": status, "versionNumber": found.version + 1,
                                            "statusDetails": request["statusDetails"]});
        }
        let notice = self.change(|executions| {
            let execution = executions.iter_mut().find(|execution| execution.id == found.id).unwrap();
            execution.status = status;
            execution.version += 1;
        });
        std::iter::once(accept(body)).chain(notice).collect()
    }
}

/// What an agent knows: this is on its disk, and survives a kill.
#[derive(Debug, Default)]
struct Journal {
    begun: BTreeSet<ExecutionKey>,
    outcome: Option<(ExecutionKey, StatusUpdate)>,
    settled: Vec<(ExecutionKey, StatusUpdate)>,
    accepted: BTreeMap<ExecutionKey, usize>,
}

struct World {
    service: Service,
    session: Session,
    now: Instant,
    connected: bool,
    seed: u64,
    /// On their way to the service, and from it.
    up: Vec<Message>,
    down: Vec<Message>,
    journal: Journal,
    offered: Option<JobExecution>,
    running: Option<ExecutionKey>,
}

impl World {
    fn new() -> Self {
        let session = Session::new(Settings::new(THING), 0);
        let (service, journal, now) = (Service::default(), Journal::default(), Instant::now());
        let (up, down) = (Vec::new(), Vec::new());
        Self {
            service,
            session,
            now,
            connected: false,
            seed: 0,
            up,
            down,
            journal,
            offered: None,
            running: None,
        }
    }

    fn drain(&mut self) {
        let mut events = 0;
        while let Some(action) = self.session.poll_action() {
            events += usize::from(!matches!(action, Action::Publish { .. }));
            assert!(events <= 6, "events pile up");
            match action {
                Action::Publish { topic, payload } => {
                    assert!(self.connected, "published while disconnected");
                    self.up.push((topic, serde_json::from_slice(&payload).unwrap()));
                }
                Action::Offer(execution) => {
                    let key = execution.key();
                    assert_eq!(self.running, None, "{key} is offered while another runs");
                    assert!(self.journal.outcome.is_none(), "{key} is offered while a report is owed");
                    assert!(!self.journal.accepted.contains_key(&key), "{key} is offered again");
                    self.offered = Some(execution);
                }
                Action::Begun { version_number, .. } => {
                    let key = self.offered.take().expect("begun without an offer").key();
                    let execution = self.service.executions.iter().find(|e| e.id == key.job_id.as_str());
                    // It may have ended since; then its version went on.
                    assert!(execution.is_none_or(|e| e.status != "QUEUED" && e.version >= version_number));
                    self.journal.begun.insert(key.clone());
                    self.running = Some(key);
                }
                Action::Withdrawn(_) => {
                    assert!(self.offered.take().is_some() || self.running.take().is_some());
                }
                Action::Settled(settlement) => {
                    let (key, update) = self.journal.outcome.take().expect("settled once");
                    // What the service has is what we said: then it was accepted, whichever copy it was.
                    assert_ne!(settlement, Settlement::AlreadyEnded(Some(update.status.into())));
                    if settlement == Settlement::Accepted {
                        let times = self.journal.accepted.entry(key.clone()).or_default();
                        *times += 1;
                        assert_eq!(*times, 1, "{key} was reported twice");
                    }
                    self.journal.settled.push((key, update));
                }
                Action::Refreshed(_) => assert!(self.running.is_some()),
                Action::Idle => assert!(self.running.is_none()),
            }
        }
    }

    fn decide(&mut self, how: usize) {
        if let Some(offer) = &self.offered {
            // While a begin is unanswered, or refused and looked into, this is refused and does no harm.
            if offer.status == jobs::Status::InProgress && self.journal.begun.contains(&offer.key()) {
                let offer = self.offered.take().unwrap();
                self.session.resume(self.now, &offer);
                self.running = Some(offer.key());
            } else if how == 0 {
                let key = offer.key();
                let before = self.session.poll_action();
                assert_eq!(before, None);
                self.finish(key, UpdateStatus::Rejected);
            } else {
                self.session.begin(self.now, offer, update(UpdateStatus::InProgress));
            }
        } else if let Some(key) = self.running.clone() {
            match how {
                0 => self.session.progress(self.now, update(UpdateStatus::InProgress)),
                1 => self.session.refresh(self.now),
                2 => self.finish(key, UpdateStatus::Failed),
                _ => self.finish(key, UpdateStatus::Succeeded),
            }
        }
    }

    fn finish(&mut self, key: ExecutionKey, status: UpdateStatus) {
        (self.offered, self.running) = (None, None);
        self.journal.outcome = Some((key.clone(), update(status)));
        self.session.finish(self.now, &key, None, update(status));
    }

    fn kill(&mut self) {
        self.disconnect();
        self.seed += 1;
        self.session = Session::new(Settings::new(THING), self.seed);
        (self.offered, self.running) = (None, None);
        self.session.restore_settled(self.journal.settled.clone());
        if let Some((key, update)) = &self.journal.outcome {
            self.session.finish(self.now, key, None, update.clone());
        }
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.session.disconnected(self.now);
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            self.session.connected(self.now);
        }
    }

    fn serve(&mut self, request: &Message) {
        let answers = self.service.handle(request);
        self.down.extend(answers);
    }

    fn deliver(&mut self, (topic, payload): &Message) {
        self.session.message(self.now, topic, payload.to_string().as_bytes());
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.session.tick(self.now);
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Queue => {
                let id = format!("job{}", self.service.created);
                self.service.created += 1;
                let execution = Execution { id, status: "QUEUED".to_owned(), version: 1 };
                let notice = self.service.change(|executions| executions.push(execution));
                self.down.extend(notice);
            }
            Op::Cancel => {
                let Some(id) = self.service.head().map(|head| head.id.clone()) else { return };
                let notice = self.service.change(|executions| {
                    let execution = executions.iter_mut().find(|execution| execution.id == id).unwrap();
                    execution.status = "CANCELED".to_owned();
                    execution.version += 1;
                });
                self.down.extend(notice);
            }
            Op::Delete => {
                let Some(id) = self.service.head().map(|head| head.id.clone()) else { return };
                let notice = self.service.change(|executions| executions.retain(|e| e.id != id));
                self.down.extend(notice);
            }
            Op::Forget => {
                let Some((key, _)) = self.journal.settled.last().cloned() else { return };
                let notice = self.service.change(|executions| {
                    let found = executions.iter_mut().find(|execution| execution.id == key.job_id.as_str());
                    if let Some(execution) = found.filter(|execution| execution.status != "CANCELED") {
                        execution.status = "IN_PROGRESS".to_owned();
                    }
                });
                self.down.extend(notice);
            }
            Op::Trouble => self.service.troubled = true,
            Op::Serve { at, keep } if !self.up.is_empty() => {
                let at = at % self.up.len();
                let request = if keep { self.up[at].clone() } else { self.up.remove(at) };
                self.serve(&request);
            }
            Op::Deliver { at, keep } if !self.down.is_empty() && self.connected => {
                let at = at % self.down.len();
                let message = if keep { self.down[at].clone() } else { self.down.remove(at) };
                self.deliver(&message);
            }
            Op::LoseUp { at } if !self.up.is_empty() => drop(self.up.remove(at % self.up.len())),
            Op::LoseDown { at } if !self.down.is_empty() => drop(self.down.remove(at % self.down.len())),
            Op::Disconnect => self.disconnect(),
            Op::Connect => self.connect(),
            Op::Kill => self.kill(),
            Op::Wait { seconds } => self.wait(seconds),
            Op::Decide { how } => self.decide(how),
            Op::Garbage { tail, payload } => {
                self.session.message(self.now, &format!("$aws/things/{THING}/jobs/{tail}"), &payload);
            }
            _ => {}
        }
    }

    /// From now on nothing is lost, and the agent does what it is asked to.
    fn settle_down(&mut self) {
        self.service.troubled = false;
        self.down.clear();
        self.up.clear();
        self.disconnect();
        self.drain();
        self.connect();
        for _ in 0..400 {
            self.drain();
            for request in std::mem::take(&mut self.up) {
                self.serve(&request);
            }
            for message in std::mem::take(&mut self.down) {
                self.deliver(&message);
                self.drain();
            }
            self.decide(3);
            self.drain();
            if self.up.is_empty() {
                let Some(at) = self.session.deadline() else { continue };
                self.now = self.now.max(at);
                self.session.tick(self.now);
                assert!(self.session.deadline().is_none_or(|next| next > self.now), "a busy loop");
            }
            if self.service.head().is_none() && self.session.held().is_none() {
                return;
            }
        }
        panic!("stuck with {:?} held, {:?} at the service", self.session.held(), self.service.head());
    }
}

#[derive(Clone, Debug)]
enum Op {
    Queue,
    Cancel,
    Delete,
    /// The service comes back from a backup: an execution that ended through us is in progress again.
    Forget,
    Trouble,
    Serve {
        at: usize,
        keep: bool,
    },
    Deliver {
        at: usize,
        keep: bool,
    },
    LoseUp {
        at: usize,
    },
    LoseDown {
        at: usize,
    },
    Disconnect,
    Connect,
    Kill,
    Wait {
        seconds: u64,
    },
    Decide {
        how: usize,
    },
    Garbage {
        tail: String,
        payload: Vec<u8>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..8usize;
    prop_oneof![
        3 => Just(Op::Queue),
        1 => Just(Op::Cancel),
        1 => Just(Op::Delete),
        1 => Just(Op::Forget),
        1 => Just(Op::Trouble),
        12 => (at.clone(), prop::bool::weighted(0.2)).prop_map(|(at, keep)| Op::Serve { at, keep }),
        12 => (at.clone(), prop::bool::weighted(0.2)).prop_map(|(at, keep)| Op::Deliver { at, keep }),
        1 => at.clone().prop_map(|at| Op::LoseUp { at }),
        1 => at.prop_map(|at| Op::LoseDown { at }),
        1 => Just(Op::Disconnect),
        4 => Just(Op::Connect),
        1 => Just(Op::Kill),
        4 => prop_oneof![Just(1), Just(5), Just(10), Just(700), Just(4000)].prop_map(|seconds| Op::Wait { seconds }),
        8 => (0..5usize).prop_map(|how| Op::Decide { how }),
        1 => ("[a-z0-9$/-]{0,20}|notify-next|job0/update/(accepted|rejected)|\\$next/get/(accepted|rejected)",
              prop_oneof![
                  prop::collection::vec(any::<u8>(), 0..64),
                  Just(b"{}".to_vec()),
                  Just(br#"{"code":"ResourceNotFound"}"#[..20].to_vec()),
                  Just(br#"{"execution":{"jobId":"job0"}}"#.to_vec()),
              ])
            .prop_map(|(tail, payload)| Op::Garbage { tail, payload }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn the_work_is_done_once_and_its_outcome_arrives(ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
            world.drain();
        }
        world.settle_down();
        for (key, update) in &world.journal.settled {
            let sent = serde_json::to_value(update.status).unwrap();
            let known = world.service.executions.iter().find(|e| e.id == key.job_id.as_str());
            // Only an operator may overrule what was accepted, and only after it was forgotten.
            let known = known.filter(|execution| execution.status != "CANCELED");
            if let Some(known) = known && world.journal.accepted.contains_key(key) {
                prop_assert_eq!(&sent, &json!(known.status));
            }
        }
    }

    #[test]
    fn nothing_piles_up_however_much_is_received(ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::new();
        world.connect();
        let (mut events, mut publishes) = (0, 0);
        for op in ops {
            // The agent does not look, while everything that can arrive does.
            if matches!(op, Op::Queue | Op::Cancel | Op::Delete | Op::Deliver { .. } | Op::Garbage { .. }) {
                world.step(op);
            }
        }
        while let Some(action) = world.session.poll_action() {
            match action {
                Action::Publish { .. } => publishes += 1,
                _ => events += 1,
            }
        }
        prop_assert!(events <= 3 && publishes <= 2, "{} events, {} publishes", events, publishes);
    }
}
