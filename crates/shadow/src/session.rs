//! The session: messages, the time and what is so on the device go in; what to publish and what is desired come out.
//!
//! It keeps one copy of the document, which is exact or is asked for: each accepted update is one version, and says what
//! it changed, so that whoever hears them in turn knows all. A version that was heard of and not seen is the sign that
//! something was lost. At most one request is unanswered, and nothing grows with what is received. This file has what
//! the agent does to a session, `service.rs` what the service does to it.

mod request;
mod service;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::document::{self, Members, Unfit, difference, without_nulls};
use crate::topic::Shadow;
use crate::wire;
use request::Request;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub shadow: Shadow,
    /// What is desired matters; otherwise this shadow is only reported to.
    pub follows: bool,
    /// Others report to it, too: their members are not ours to remove.
    pub shared: bool,
    /// How long an answer is waited for before the request is sent again.
    pub request_timeout: Duration,
    /// How far apart the messages about one update may come.
    pub settle: Duration,
    /// What has changed is reported at most once in this time.
    pub report_interval: Duration,
}

impl Settings {
    pub fn new(shadow: Shadow, follows: bool) -> Self {
        Self {
            shadow,
            follows,
            shared: false,
            request_timeout: Duration::from_secs(10),
            settle: Duration::from_secs(1),
            report_interval: Duration::ZERO,
        }
    }
}

/// What the agent has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Publish {
        topic: String,
        payload: Vec<u8>,
    },
    /// All that is desired now; empty where nothing is. Said once for each change that is seen.
    Desired(Members),
    /// The service has what was reported last.
    Reported,
}

#[derive(Debug)]
pub struct Session {
    settings: Settings,
    rng: fastrand::Rng,
    tokens: Tokens,
    connected: bool,
    /// The service's document; none while it has to be asked for.
    known: Option<Document>,
    /// The highest version heard of since it was asked for.
    heard: u64,
    /// When a version that was heard of and is not known makes us ask.
    ask_at: Option<Instant>,
    /// What is so on the device.
    is: Option<Members>,
    report_at: Option<Instant>,
    request: Option<(Asked, Request)>,
    conflicts: u32,
    /// What is so was refused for good, or asking was: silence until something else is so, or the link is new.
    refused: bool,
    told: Option<Members>,
    events: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Get,
    Update,
}

/// Empty where there is none; the version is then that of the one that was deleted, or zero.
#[derive(Debug, Default)]
struct Document {
    version: u64,
    is_there: bool,
    /// It is an answer, and not what was made of one by what was heard since.
    is_asked_for: bool,
    desired: Members,
    reported: Members,
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
    /// The seed spreads the retries of a fleet and makes client tokens unique: take a random one at each start.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            settings,
            tokens: Tokens { start: rng.u64(..), count: 0 },
            rng,
            connected: false,
            known: None,
            heard: 0,
            ask_at: None,
            is: None,
            report_at: None,
            request: None,
            conflicts: 0,
            refused: false,
            told: None,
            events: VecDeque::new(),
        }
    }

    /// The filters to subscribe to before `connected` is called.
    pub fn subscriptions(&self) -> Vec<String> {
        self.settings.shadow.subscriptions(self.settings.follows)
    }

    /// The connection stands. What was said meanwhile was missed: who follows asks.
    pub fn connected(&mut self, now: Instant) {
        self.connected = true;
        self.refused = false;
        self.conflicts = 0;
        if self.settings.follows {
            self.known = None;
        }
        self.go_on(now);
    }

    pub fn disconnected(&mut self, _now: Instant) {
        self.connected = false;
        // An unanswered update may or may not have been taken, and what was only heard of stays unknown.
        if self.request.take().is_some() || self.ask_at.take().is_some() {
            self.known = None;
        }
    }

    /// This is so on the device, all of it. What differs is reported, now or when its turn comes.
    pub fn report(&mut self, now: Instant, is: &Members) {
        let is = without_nulls(is);
        if self.is.as_ref() != Some(&is) {
            self.refused = false;
            self.conflicts = 0;
            self.is = Some(is);
        }
        self.go_on(now);
    }

    /// Whether this could be reported, as far as is known.
    pub fn fits(&self, is: &Members) -> Result<(), Unfit> {
        let none = Members::new();
        document::check(self.known.as_ref().map_or(&none, |known| &known.desired), &without_nulls(is))
    }

    /// What the service has as reported, where that is known.
    pub fn reported(&self) -> Option<&Members> {
        self.known.as_ref().map(|known| &known.reported)
    }

    /// What the service has as desired, and as which version, where that is known.
    pub fn desired(&self) -> Option<(&Members, u64)> {
        self.known.as_ref().map(|known| (&known.desired, known.version))
    }

    /// To be called at `deadline`; earlier or later does no harm.
    pub fn tick(&mut self, now: Instant) {
        if let Some((_, request)) = &mut self.request {
            request.tick(now);
        }
        self.go_on(now);
    }

    /// To be called until it is `None` after every input.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let (_, request) = self.request.as_mut().filter(|_| self.connected)?;
        request.take().map(|(topic, payload)| Action::Publish { topic, payload })
    }

    /// When `tick` is due; none while nothing is waited for.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.connected || self.refused {
            return None;
        }
        match &self.request {
            Some((_, request)) => request.deadline(),
            None => self.ask_at.or_else(|| self.report_at.filter(|_| self.owes().is_some())),
        }
    }

    /// What the service does not have yet of what is so.
    fn owes(&self) -> Option<Members> {
        let is = self.is.as_ref()?;
        let mut patch = difference(&self.known.as_ref()?.reported, is)?;
        if self.settings.shared {
            patch.retain(|key, _| is.contains_key(key));
        }
        (!patch.is_empty()).then_some(patch)
    }

    /// The next request, if one is due and none is open.
    fn go_on(&mut self, now: Instant) {
        if !self.connected || self.refused || self.request.is_some() {
            return;
        }
        if self.known.is_none() {
            // Who only reports has nothing to ask before there is something to report.
            if self.settings.follows || self.is.is_some() {
                self.ask(now);
            }
            return;
        }
        match self.ask_at {
            Some(at) if at <= now => return self.ask(now),
            // What is reported would be reckoned from what is not so any more.
            Some(_) => return,
            None => {}
        }
        if self.report_at.is_none_or(|at| at <= now) {
            self.send_report(now);
        }
    }

    fn ask(&mut self, now: Instant) {
        // What is heard before the answer may be older than it, or newer.
        self.known = None;
        self.ask_at = None;
        self.heard = 0;
        let token = self.tokens.next();
        let payload = wire::body(&wire::Get { client_token: &token });
        self.send(now, Asked::Get, "get", payload, token);
    }

    fn send_report(&mut self, now: Instant) {
        let Some(patch) = self.owes() else { return };
        let (Some(known), Some(is)) = (&self.known, &self.is) else { return };
        if let Err(unfit) = document::check(&known.desired, is) {
            let shadow = self.settings.shadow.name.as_deref();
            tracing::error!(shadow, %unfit, "this cannot be reported");
            self.refused = true;
            return;
        }
        let token = self.tokens.next();
        let state = wire::Reported { reported: &patch };
        let payload = wire::body(&wire::Update { state, client_token: &token });
        self.report_at = Some(now + self.settings.report_interval);
        self.send(now, Asked::Update, "update", payload, token);
    }

    fn send(&mut self, now: Instant, asked: Asked, what: &str, payload: Vec<u8>, token: String) {
        let topic = self.settings.shadow.topic(what);
        let request = Request::new(now, self.settings.request_timeout, topic, payload, token);
        self.request = Some((asked, request));
    }
}
