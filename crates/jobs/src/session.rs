//! The session: messages, time and the agent's decisions go in, actions come out.

mod action;

use std::time::{Duration, Instant};

pub use action::{Action, Settlement, Withdrawal};

use crate::details::StatusUpdate;
use crate::wire::{ExecutionKey, JobExecution};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub thing_name: String,
    /// How long an answer is waited for before the request is sent again.
    pub request_timeout: Duration,
    /// How often the service is asked for `$next` although no notification came, give or take a tenth.
    pub poll_interval: Duration,
    /// How long a notification of the next execution is waited for after one has ended.
    pub settle_wait: Duration,
}

impl Settings {
    pub fn new(thing_name: impl Into<String>) -> Self {
        Self {
            thing_name: thing_name.into(),
            request_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_secs(3600),
            settle_wait: Duration::from_secs(5),
        }
    }
}

#[derive(Debug)]
pub struct Session {
    settings: Settings,
}

#[allow(unused_variables)] // being filled in
impl Session {
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self { settings }
    }

    /// What had been settled before a restart, oldest first; the last 32 are kept.
    pub fn restore_settled(&mut self, settled: Vec<(ExecutionKey, StatusUpdate)>) {}

    /// The connection stands and `topic::subscriptions` are subscribed to.
    pub fn connected(&mut self, now: Instant) {}
    pub fn disconnected(&mut self, now: Instant) {}
    pub fn message(&mut self, now: Instant, topic: &str, payload: &[u8]) {}
    /// To be called at `deadline`; earlier or later does no harm.
    pub fn tick(&mut self, now: Instant) {}

    /// Takes the offered execution: reports IN_PROGRESS; `Begun` follows, or another `Offer` of it, or `Withdrawn`.
    pub fn begin(&mut self, now: Instant, execution: &JobExecution, update: StatusUpdate) {}
    /// Goes on with an execution that we began before a restart; nothing is published.
    pub fn resume(&mut self, now: Instant, execution: &JobExecution) {}
    /// Says how far the running execution is. The latest wins while an earlier one is unanswered.
    pub fn progress(&mut self, now: Instant, update: StatusUpdate) {}
    /// Reports the outcome, until `Settled`. Works without an offer: after a restart the outcome is in the journal.
    pub fn finish(&mut self, now: Instant, key: &ExecutionKey, version: Option<u64>, update: StatusUpdate) {}
    /// Describes the running execution again; `Refreshed` follows, or `Withdrawn`.
    pub fn refresh(&mut self, now: Instant) {}
    /// Declines the offered execution for now; it is offered again at the next poll.
    pub fn pass(&mut self, now: Instant, key: &ExecutionKey) {}

    /// The execution that is offered, running or being reported.
    pub fn held(&self) -> Option<&ExecutionKey> {
        None
    }

    /// To be called until it is `None` after every input.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// When `tick` is due.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
}
