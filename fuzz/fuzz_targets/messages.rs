//! What a session hears, in any order, between anything that the agent does. A line of the input is a step: a word for
//! what the agent does, or a topic and a payload. `TOKEN` is the client token that was published last.
#![no_main]

use std::time::{Duration, Instant};

use jobs::{Action, JobExecution, Session, Settings, StatusDetails, StatusUpdate, UpdateStatus};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Device {
    offered: Option<JobExecution>,
    token: String,
}

impl Device {
    fn drain(&mut self, session: &mut Session) {
        let mut actions = 0;
        while let Some(action) = session.poll_action() {
            actions += 1;
            assert!(actions < 100, "the session never comes to rest");
            match action {
                Action::Offer(execution) => self.offered = Some(execution),
                Action::Publish { topic, payload } => {
                    assert!(topic.starts_with("$aws/things/t/jobs/") && topic.len() <= 256, "{topic}");
                    assert!(payload.len() <= 128 * 1024);
                    let request: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                    self.token = request["clientToken"].as_str().unwrap().to_owned();
                }
                _ => {}
            }
        }
    }
}

fuzz_target!(|input: &str| {
    let mut now = Instant::now();
    let mut session = Session::new(Settings::new("t"), 1);
    let mut device = Device::default();
    let update = |status| StatusUpdate::new(status, StatusDetails::new().with("a", "b"));
    session.connected(now);
    for step in input.lines() {
        match (step, &device.offered) {
            ("connect", _) => session.connected(now),
            ("disconnect", _) => session.disconnected(now),
            ("progress", _) => session.progress(now, update(UpdateStatus::InProgress)),
            ("refresh", _) => session.refresh(now),
            ("wait", _) => now += Duration::from_secs(7),
            ("begin", Some(offered)) => session.begin(now, offered, update(UpdateStatus::InProgress)),
            ("resume", Some(offered)) => session.resume(now, offered),
            ("pass", Some(offered)) => session.pass(now, &offered.key()),
            ("finish", Some(offered)) => {
                session.finish(now, &offered.key(), None, update(UpdateStatus::Succeeded));
            }
            _ => {
                let (topic, payload) = step.split_once(' ').unwrap_or((step, ""));
                let payload = payload.replace("TOKEN", &device.token);
                session.message(now, &format!("$aws/things/t/jobs/{topic}"), payload.as_bytes());
            }
        }
        session.tick(now);
        device.drain(&mut session);
    }
    if let Some(due) = session.deadline() {
        session.tick(due);
        device.drain(&mut session);
    }
});
