//! A session with a clock and a wire: what it says is collected, what the service says is JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test harness
#![allow(dead_code, unreachable_pub)] // shared by several tests, each of which uses a part

use std::time::{Duration, Instant};

use jobs::{
    Action, ExecutionKey, JobExecution, JobId, Session, Settings, StatusDetails, StatusUpdate, UpdateStatus,
};
use serde_json::{Value, json};

pub const THING: &str = "edge-01";
pub const QUEUED_AT: u64 = 1_700_000_000;

pub struct Device {
    pub session: Session,
    pub now: Instant,
    pub started: Instant,
    pub published: usize,
}

/// A publish, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub topic: String,
    pub body: Value,
}

impl Sent {
    pub fn token(&self) -> &str {
        self.body["clientToken"].as_str().unwrap()
    }
}

impl Device {
    pub fn new() -> Self {
        let now = Instant::now();
        Self { session: Session::new(Settings::new(THING), 7), now, started: now, published: 0 }
    }

    /// Connected, `$next` answered with nothing.
    pub fn idle() -> Self {
        let mut device = Self::new();
        device.session.connected(device.now);
        let ask = device.sent("$next/get");
        device.answer(&ask, json!({}));
        assert_eq!(device.event(), Action::Idle);
        device.published = 0;
        device
    }

    /// An execution that the service has in progress for us, at version 2.
    pub fn running() -> Self {
        let mut device = Self::idle();
        device.notify(Some(queued("job1")));
        let offer = device.offer();
        device.session.begin(device.now, &offer, update(UpdateStatus::InProgress));
        let begin = device.sent("job1/update");
        device.answer(&begin, state("IN_PROGRESS", 2));
        assert_eq!(device.event(), Action::Begun { version_number: 2, seconds_left: None });
        device
    }

    /// As `running`, with its outcome published and unanswered.
    pub fn finishing() -> (Self, Sent) {
        let mut device = Self::running();
        device.finish(UpdateStatus::Succeeded);
        let sent = device.sent("job1/update");
        (device, sent)
    }

    pub fn finish(&mut self, status: UpdateStatus) {
        let key = self.session.held().unwrap().clone();
        self.session.finish(self.now, &key, None, update(status));
    }

    pub fn elapsed(&self) -> u64 {
        (self.now - self.started).as_secs()
    }

    /// Lets time pass, waking the session whenever it asked to be.
    pub fn pass_time(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.session.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.session.tick(self.now);
            let next = self.session.deadline();
            assert!(next.is_none_or(|next| next > self.now), "a deadline that a tick does not move");
            if next.is_none() {
                break; // something is to be sent
            }
        }
        self.now = until;
    }

    pub fn message(&mut self, tail: &str, payload: &Value) {
        let topic = format!("$aws/things/{THING}/jobs/{tail}");
        self.session.message(self.now, &topic, payload.to_string().as_bytes());
    }

    pub fn notify(&mut self, execution: Option<Value>) {
        let mut payload = json!({"timestamp": QUEUED_AT + self.elapsed()});
        if let Some(execution) = execution {
            payload["execution"] = execution;
        }
        self.message("notify-next", &payload);
    }

    pub fn answer(&mut self, sent: &Sent, body: Value) {
        self.reply(sent, "accepted", body);
    }

    pub fn reject(&mut self, sent: &Sent, code: &str, body: Value) {
        let mut body = body;
        body["code"] = json!(code);
        body["message"] = json!("no");
        self.reply(sent, "rejected", body);
    }

    fn reply(&mut self, sent: &Sent, verdict: &str, mut body: Value) {
        body["timestamp"] = json!(QUEUED_AT + self.elapsed());
        body["clientToken"] = sent.body["clientToken"].clone();
        let topic = format!("{}/{verdict}", sent.topic);
        self.session.message(self.now, &topic, body.to_string().as_bytes());
    }

    pub fn action(&mut self) -> Option<Action> {
        let action = self.session.poll_action();
        self.published += usize::from(matches!(action, Some(Action::Publish { .. })));
        action
    }

    pub fn event(&mut self) -> Action {
        match self.action() {
            Some(Action::Publish { topic, .. }) => panic!("an event was due, not a publish on {topic}"),
            other => other.expect("an event"),
        }
    }

    pub fn offer(&mut self) -> JobExecution {
        match self.event() {
            Action::Offer(execution) => execution,
            other => panic!("an offer was due, not {other:?}"),
        }
    }

    /// The one thing that is due to be published.
    pub fn sent(&mut self, tail: &str) -> Sent {
        let sent = self.any_sent().expect("a publish");
        assert_eq!(sent.topic, format!("$aws/things/{THING}/jobs/{tail}"));
        sent
    }

    pub fn any_sent(&mut self) -> Option<Sent> {
        match self.action()? {
            Action::Publish { topic, payload } => {
                Some(Sent { topic, body: serde_json::from_slice(&payload).unwrap() })
            }
            other => panic!("a publish was due, not {other:?}"),
        }
    }

    pub fn quiet(&mut self) {
        assert_eq!(self.action(), None);
    }
}

pub fn queued(job: &str) -> Value {
    execution(job, "QUEUED", 1)
}

pub fn execution(job: &str, status: &str, version: u64) -> Value {
    json!({"jobId": job, "executionNumber": 1, "versionNumber": version, "status": status,
           "queuedAt": QUEUED_AT, "lastUpdatedAt": QUEUED_AT, "jobDocument": {"operation": "reboot"}})
}

pub fn state(status: &str, version: u64) -> Value {
    json!({"executionState": {"status": status, "versionNumber": version, "statusDetails": {"phase": "x"}}})
}

pub fn update(status: UpdateStatus) -> StatusUpdate {
    StatusUpdate::new(status, StatusDetails::new().with("phase", "x").with("reason", "because"))
}

pub fn key(job: &str) -> ExecutionKey {
    ExecutionKey { job_id: JobId::new(job).unwrap(), execution_number: 1, queued_at: QUEUED_AT }
}
