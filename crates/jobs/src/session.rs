//! The session: messages, time and the agent's decisions go in, actions come out.
//!
//! It holds at most one execution, and for that one at most one unanswered update; beside it at most one
//! unanswered describe. Those two requests are its whole outbox, so nothing grows with what is received. This
//! file has what the agent does to a session, `service.rs` and `rejected.rs` have what the service does to
//! it, and README.md draws the states.

mod action;
mod history;
mod rejected;
mod request;
mod service;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use action::{Action, Settlement, Withdrawal};

use crate::details::{StatusUpdate, UpdateStatus};
use crate::topic::{self, JobTarget};
use crate::wire::{self, ExecutionKey, JobExecution, NextNotification};
use history::History;
use request::Request;

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
    rng: fastrand::Rng,
    tokens: Tokens,
    connected: bool,
    held: Option<Held>,
    update: Option<Request>,
    describe: Option<Describe>,
    /// The latest word on the head of the queue that came while an execution was held and was not about it.
    hint: Option<NextNotification>,
    poll_at: Option<Instant>,
    history: History,
    /// What the agent has to hear. Bounded because each entry but `Idle`, which is not repeated, ends a state
    /// that only the agent can enter again.
    events: VecDeque<Action>,
}

/// The one execution that is offered, running or being reported.
#[derive(Debug)]
struct Held {
    key: ExecutionKey,
    /// The version number the service has, as far as its answers told.
    version: Option<u64>,
    /// How often `begin` met another version than the one that was offered.
    resyncs: u32,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Offered,
    /// IN_PROGRESS is unanswered; or it was refused and the execution is being described to find out why.
    Beginning {
        update: StatusUpdate,
        seconds_left: Option<u64>,
        reduced: bool,
    },
    Running {
        waiting: Option<StatusUpdate>,
        refresh: bool,
    },
    Finishing {
        update: StatusUpdate,
        mismatches: u32,
        reduced: bool,
        repeat: bool,
    },
}

#[derive(Debug)]
struct Describe {
    about: About,
    request: Request,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Next,
    Held,
}

/// Client tokens of at most 33 bytes. The seed sets those of one start apart from those of another.
#[derive(Debug)]
struct Tokens {
    start: u64,
    count: u64,
}

impl Tokens {
    fn next(&mut self) -> String {
        self.count += 1;
        format!("{:x}-{:x}", self.start, self.count)
    }
}

impl Session {
    /// The seed spreads polls and retries of a fleet and makes client tokens unique: take a random one at
    /// each start.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            settings,
            tokens: Tokens { start: rng.u64(..), count: 0 },
            rng,
            connected: false,
            held: None,
            update: None,
            describe: None,
            hint: None,
            poll_at: None,
            history: History::default(),
            events: VecDeque::new(),
        }
    }

    /// What had been settled before a restart, oldest first; the last 32 are kept.
    pub fn restore_settled(&mut self, settled: Vec<(ExecutionKey, StatusUpdate)>) {
        for (key, update) in settled {
            self.history.record(key, update);
        }
    }

    /// The connection stands and `topic::subscriptions` are subscribed to. What is owed goes out again at
    /// once; a notification may have been missed, so the service is asked.
    pub fn connected(&mut self, now: Instant) {
        self.connected = true;
        self.schedule_poll(now);
        let Some(held) = &mut self.held else { return self.ask(now, About::Next) };
        match &mut held.phase {
            Phase::Offered => {}
            Phase::Beginning { .. } if self.update.is_none() => self.ask(now, About::Held),
            Phase::Beginning { .. } | Phase::Finishing { .. } => self.send_update_again(now),
            Phase::Running { waiting, refresh } => {
                let about = if *refresh { About::Held } else { About::Next };
                match waiting.take() {
                    Some(latest) => self.send_update(now, &latest),
                    None => self.send_update_again(now),
                }
                self.ask(now, about);
            }
        }
    }

    pub fn disconnected(&mut self, _now: Instant) {
        self.connected = false;
        // Whatever these were to tell is asked for anew on the next connection.
        self.describe = None;
        self.hint = None;
    }

    /// To be called at `deadline`; earlier or later does no harm.
    pub fn tick(&mut self, now: Instant) {
        if !self.connected {
            return;
        }
        if let Some(request) = &mut self.update {
            request.tick(now);
        }
        if let Some(describe) = &mut self.describe {
            describe.request.tick(now);
        }
        if self.polls() && self.poll_at.is_some_and(|at| at <= now) {
            match self.describe {
                None => self.ask(now, About::Next),
                Some(_) => self.schedule_poll(now),
            }
        }
    }

    /// Takes the offered execution: reports IN_PROGRESS; `Begun` follows, or another `Offer` of it, or
    /// `Withdrawn`.
    ///
    /// The version and the execution number that were offered are the lock: an offer that was stale does no
    /// harm.
    pub fn begin(&mut self, now: Instant, execution: &JobExecution, mut update: StatusUpdate) {
        let key = execution.key();
        let resyncs = match &self.held {
            None => 0,
            Some(Held { phase: Phase::Offered, key: offered, resyncs, .. }) if *offered == key => *resyncs,
            Some(Held { phase: Phase::Offered, .. }) => 0,
            Some(_) => return self.misused("begin", &key),
        };
        update.status = UpdateStatus::InProgress;
        let seconds_left = execution.approximate_seconds_before_timed_out;
        let phase = Phase::Beginning { update: update.clone(), seconds_left, reduced: false };
        self.hold(Held { key, version: Some(execution.version_number), resyncs, phase });
        self.send_update(now, &update);
    }

    /// Goes on with an execution that we began before a restart; nothing is published.
    pub fn resume(&mut self, _now: Instant, execution: &JobExecution) {
        let key = execution.key();
        if !matches!(self.held, None | Some(Held { phase: Phase::Offered, .. })) {
            return self.misused("resume", &key);
        }
        let phase = Phase::Running { waiting: None, refresh: false };
        self.hold(Held { key, version: Some(execution.version_number), resyncs: 0, phase });
    }

    /// Says how far the running execution is. The latest wins while an earlier one is unanswered.
    pub fn progress(&mut self, now: Instant, mut update: StatusUpdate) {
        let Some(Held { phase: Phase::Running { waiting, .. }, .. }) = &mut self.held else {
            return tracing::debug!("progress of an execution that is not running is dropped");
        };
        update.status = UpdateStatus::InProgress;
        if self.update.is_some() {
            *waiting = Some(update);
        } else {
            self.send_update(now, &update);
        }
    }

    /// Reports the outcome, until `Settled`. Works without an offer: after a restart the outcome is in the
    /// journal. `version` is used where the session has not learned one itself.
    pub fn finish(&mut self, now: Instant, key: &ExecutionKey, version: Option<u64>, update: StatusUpdate) {
        if !update.status.is_terminal() {
            return self.misused("finish without a terminal status", key);
        }
        let mut resyncs = 0;
        let version = match &self.held {
            Some(Held { key: held, phase: Phase::Finishing { update: owed, repeat: false, .. }, .. })
                if held == key && *owed == update =>
            {
                return; // it is on its way, and its client token must not change
            }
            Some(held) if held.key == *key => {
                resyncs = held.resyncs;
                // An unanswered update may or may not have raised the version: then it is not known.
                if self.update.is_some() { None } else { held.version.or(version) }
            }
            _ => version,
        };
        // Only what is heard from now on can tell what comes after this execution.
        self.hint = None;
        let phase = Phase::Finishing { update: update.clone(), mismatches: 0, reduced: false, repeat: false };
        self.hold(Held { key: key.clone(), version, resyncs, phase });
        self.send_update(now, &update);
    }

    /// Describes the running execution again; `Refreshed` follows, or `Withdrawn`.
    pub fn refresh(&mut self, now: Instant) {
        if let Some(Held { phase: Phase::Running { refresh, .. }, .. }) = &mut self.held {
            *refresh = true;
            self.ask(now, About::Held);
        }
    }

    /// Declines the offered execution for now; it is offered again at the next poll.
    pub fn pass(&mut self, now: Instant, key: &ExecutionKey) {
        match &self.held {
            Some(Held { phase: Phase::Offered, key: offered, .. }) if offered == key => {
                self.held = None;
                if let Some(hint) = self.hint.take() {
                    self.consider(now, hint);
                }
            }
            _ => self.misused("pass", key),
        }
    }

    /// The execution that is offered, running or being reported.
    pub fn held(&self) -> Option<&ExecutionKey> {
        self.held.as_ref().map(|held| &held.key)
    }

    /// To be called until it is `None` after every input.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if !self.connected {
            return None;
        }
        let update = self.update.as_mut().and_then(Request::take);
        let describe = || self.describe.as_mut().and_then(|describe| describe.request.take());
        update.or_else(describe).map(|(topic, payload)| Action::Publish { topic, payload })
    }

    /// When `tick` is due. `None` while disconnected: nothing can be done before `connected`.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.connected {
            return None;
        }
        let update = self.update.as_ref().and_then(Request::deadline);
        let describe = self.describe.as_ref().and_then(|describe| describe.request.deadline());
        let poll = self.poll_at.filter(|_| self.polls());
        [update, describe, poll].into_iter().flatten().min()
    }

    /// Holds an execution at the agent's word, which outruns any question that is still open.
    fn hold(&mut self, held: Held) {
        self.held = Some(held);
        self.update = None;
        self.describe = None;
    }

    /// Only these two need the safety net: the others wait for an answer that is asked for again, or for the
    /// agent.
    fn polls(&self) -> bool {
        matches!(self.held, None | Some(Held { phase: Phase::Running { .. }, .. }))
    }

    fn schedule_poll(&mut self, now: Instant) {
        let jitter = 0.9 + 0.2 * self.rng.f64();
        self.poll_at = Some(now + self.settings.poll_interval.mul_f64(jitter));
    }

    /// Asks anew, with a new client token, even if the same was being asked: the older answer might be from
    /// before what made us ask again.
    fn ask(&mut self, now: Instant, about: About) {
        let (target, execution_number) = match (about, &self.held) {
            (About::Held, Some(Held { key, .. })) => {
                (JobTarget::Job(key.job_id.clone()), Some(key.execution_number))
            }
            _ => {
                self.schedule_poll(now);
                (JobTarget::Next, None)
            }
        };
        let token = self.tokens.next();
        let payload = wire::body(&wire::DescribeRequest { execution_number, client_token: &token });
        let topic = topic::describe(&self.settings.thing_name, &target);
        let request = Request::new(now, self.settings.request_timeout, topic, payload, token);
        self.describe = Some(Describe { about, request });
    }

    /// Sends an update of the held execution, in the place of one that may still be unanswered.
    fn send_update(&mut self, now: Instant, update: &StatusUpdate) {
        let Some(held) = &self.held else { return };
        let terminal = update.status.is_terminal();
        let token = self.tokens.next();
        let payload = wire::body(&wire::UpdateRequest {
            status: update.status,
            status_details: update.details.as_map(),
            // Progress goes without the lock: a copy that MQTT delivers twice would only be refused for it.
            expected_version: held.version.filter(|_| !matches!(held.phase, Phase::Running { .. })),
            execution_number: held.key.execution_number,
            // The answer then has status, details and version. That is some 100 bytes and the details once
            // more, which still is one metered unit, and it keeps the version known for the terminal update.
            include_job_execution_state: !terminal,
            step_timeout_in_minutes: update.step_timeout_minutes.filter(|_| !terminal).map(step_timeout),
            client_token: &token,
        });
        let topic = topic::update(&self.settings.thing_name, &held.key.job_id);
        self.update = Some(Request::new(now, self.settings.request_timeout, topic, payload, token));
    }

    fn send_update_again(&mut self, now: Instant) {
        if let Some(request) = &mut self.update {
            request.send_again(now);
        }
    }

    fn misused(&self, call: &str, key: &ExecutionKey) {
        let held = self.held.as_ref().map(|held| held.key.to_string());
        tracing::error!(%key, held, "{call}: not possible now, ignored");
    }
}

/// The service takes 1 to 10,080, and -1 for "no step timer".
fn step_timeout(minutes: i32) -> i32 {
    if minutes == -1 { -1 } else { minutes.clamp(1, 10_080) }
}
