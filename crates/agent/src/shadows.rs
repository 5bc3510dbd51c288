//! The device's shadows: files that are kept as shadows desire, and what the device says of itself. The loop hands over
//! messages, the time and what happened; what is to be done to the device comes back as work for the one worker, so that
//! a delta and a job never meet on the same file.

mod facts;
mod follower;
mod memory;
mod packages;
mod watch;

use std::time::{Duration, Instant};

use ::shadow::{Action, Members, Session, Shadow};
use dispatcher::{ExecutionId, Operation, Outcome, Verdict};
use serde_json::Value;

pub use facts::Facts;

use crate::config::Settings;
use crate::status;
use crate::worker::Host;
use facts::Classic;
use follower::{Follower, Wish};
use memory::{Handled, Memory, Refusal};
use packages::Packages;
use watch::Watch;

/// How soon what could not begin is tried again.
const LATER: Duration = Duration::from_secs(600);

pub struct Shadows {
    followers: Vec<Follower>,
    classic: Option<Classic>,
    packages: Option<Packages>,
    memory: Memory,
    watch: Watch,
    /// The journal could not be written: nothing begins before.
    not_before: Option<Instant>,
}

impl Shadows {
    pub fn open(settings: &Settings) -> Self {
        let session = |name: Option<&str>, follows| {
            let shadow =
                Shadow { thing: settings.connection.thing_name.clone(), name: name.map(str::to_owned) };
            let request_timeout = settings.connection.request_timeout;
            ::shadow::Settings { request_timeout, ..::shadow::Settings::new(shadow, follows) }
        };
        let configured = &settings.shadows;
        let files = configured.files.iter();
        let followers: Vec<_> = files
            .map(|file| Follower::new(file.clone(), Session::new(session(Some(&file.shadow), true), seed())))
            .collect();
        let paths = configured.files.iter().filter_map(|file| settings.host.configs.get(&file.file.name));
        let watch = Watch::new(paths.map(|place| place.target.file.as_path()));
        let classic = configured.report.as_ref().map(|report| {
            let session = ::shadow::Settings { report_interval: report.interval, ..session(None, false) };
            Classic::new(report.clone(), Session::new(session, seed()), &settings.state_directory)
        });
        let packages = configured.reports_packages().then(|| {
            let session = ::shadow::Settings { shared: true, ..session(Some("$package"), false) };
            Packages::new(configured, Session::new(session, seed()))
        });
        // Of a device without such files nothing has to be remembered.
        let memory = Memory::open(&settings.state_directory, !followers.is_empty());
        Self { followers, classic, packages, memory, watch, not_before: None }
    }

    fn sessions(&mut self) -> impl Iterator<Item = &mut Session> {
        let followers = self.followers.iter_mut().map(|follower| &mut follower.session);
        let classic = self.classic.iter_mut().map(|classic| &mut classic.session);
        followers.chain(classic).chain(self.packages.iter_mut().map(|packages| &mut packages.session))
    }

    pub fn connected(&mut self, now: Instant) {
        self.sessions().for_each(|session| session.connected(now));
    }

    pub fn disconnected(&mut self, now: Instant) {
        self.sessions().for_each(|session| session.disconnected(now));
    }

    pub fn tick(&mut self, now: Instant) {
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
        }
        self.sessions().for_each(|session| session.tick(now));
    }

    pub fn deadline(&mut self) -> Option<Instant> {
        let not_before = self.not_before;
        self.sessions().filter_map(|session| session.deadline()).chain(not_before).min()
    }

    /// A message of the connection; false when it is about no shadow.
    pub fn message(&mut self, now: Instant, topic: &str, payload: &[u8]) -> bool {
        self.sessions().any(|session| session.message(now, topic, payload))
    }

    /// What to publish, until there is nothing more.
    pub fn poll(&mut self) -> Option<(String, Vec<u8>)> {
        for follower in &mut self.followers {
            while let Some(action) = follower.session.poll_action() {
                match action {
                    Action::Publish { topic, payload } => return Some((topic, payload)),
                    Action::Desired(desired) => follower.desires(desired, &mut self.memory),
                    Action::Reported => {
                        tracing::debug!(shadow = follower.name(), "the shadow has what is in force");
                    }
                }
            }
        }
        self.sessions().find_map(|session| {
            std::iter::from_fn(|| session.poll_action()).find_map(|action| match action {
                Action::Publish { topic, payload } => Some((topic, payload)),
                Action::Desired(_) | Action::Reported => None,
            })
        })
    }

    /// The files that somebody has written. Cancel-safe.
    pub async fn written(&mut self) -> Vec<usize> {
        self.watch.written().await
    }

    pub fn have_been_written(&mut self, files: &[usize]) {
        for file in files {
            if let Some(follower) = self.followers.get_mut(*file) {
                follower.look = true;
            }
        }
    }

    /// What is desired and was not dealt with yet. What cannot be is refused here.
    pub fn work(&mut self) -> Option<(ExecutionId, Operation)> {
        if self.not_before.is_some() {
            return None;
        }
        for follower in &mut self.followers {
            match follower.wish(&self.memory) {
                Wish::Nothing => {}
                Wish::Apply(id, operation) => return Some((id, operation)),
                Wish::Refuse(id, outcome) => deal_with(follower, &mut self.memory, &id, &outcome),
            }
        }
        None
    }

    /// No work is taken up without a journal.
    pub fn not_now(&mut self, now: Instant) {
        self.not_before = Some(now + LATER);
    }

    /// Something that was begun on behalf of a shadow has ended, now or before a restart.
    pub fn ended(&mut self, id: &ExecutionId, outcome: &Outcome) {
        let follower = self.followers.iter_mut().find(|follower| id.shadow() == Some(follower.name()));
        if let Some(follower) = follower {
            deal_with(follower, &mut self.memory, id, outcome);
        }
    }

    /// Says what is in force, where that may have changed.
    pub async fn look(&mut self, now: Instant, host: &mut Host) {
        for follower in self.followers.iter_mut().filter(|follower| follower.look) {
            follower.look = false;
            let found = host.config_in_force(&follower.file.file).await;
            let refused = self.memory.of(follower.name()).and_then(|handled| handled.refused.as_ref());
            follower.report(now, found, refused);
        }
    }

    /// What the device says of itself, if it is time to look.
    pub fn note(&mut self, now: Instant, facts: &Facts<'_>) {
        if let Some(classic) = &mut self.classic {
            classic.note(now, facts);
        }
        if let Some(packages) = &mut self.packages {
            packages.note(now, facts);
        }
    }

    pub fn job_ended(&mut self) {
        if let Some(classic) = &mut self.classic {
            classic.look_again();
        }
        if let Some(packages) = &mut self.packages {
            packages.job_ended();
        }
    }

    /// For `fleethand status` and `fleethand shadow`.
    pub fn shown(&self) -> Vec<status::Shadow> {
        let followers = self.followers.iter().map(|follower| {
            let handled = self.memory.of(follower.name());
            status::Shadow {
                refused: handled.and_then(|handled| handled.refused.as_ref()).map(Refusal::shown),
                ..shown(Some(follower.name()), &follower.session)
            }
        });
        let classic = self.classic.iter().map(|classic| shown(None, &classic.session));
        let packages = self.packages.iter().map(|packages| shown(Some("$package"), &packages.session));
        followers.chain(classic).chain(packages).collect()
    }
}

/// On disk when this returns, so that it is not begun again.
fn deal_with(follower: &mut Follower, memory: &mut Memory, id: &ExecutionId, outcome: &Outcome) {
    let Outcome { verdict, reason, message: detail } = outcome;
    let shadow = follower.name();
    let refused = if *verdict == Verdict::Succeeded {
        tracing::info!(name: "shadow-applied", shadow, reason, detail, "what is desired is in force");
        None
    } else {
        tracing::warn!(name: "shadow-refused", shadow, reason, detail, "what is desired is refused");
        Some(Refusal::new(outcome))
    };
    memory.remember(follower.name(), Handled { desired: id.queued_at, refused });
    follower.look = true;
}

fn shown(name: Option<&str>, session: &Session) -> status::Shadow {
    let empty = || Value::Object(Members::new());
    let desired = session.desired();
    status::Shadow {
        name: name.map(str::to_owned),
        version: desired.map(|(_, version)| version),
        desired: desired.map_or_else(empty, |(desired, _)| desired.clone().into()),
        reported: session.reported().map_or_else(empty, |reported| reported.clone().into()),
        refused: None,
    }
}

/// Of client tokens and jitter.
fn seed() -> u64 {
    fastrand::u64(..)
}
