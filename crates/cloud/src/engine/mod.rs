//! AWS IoT Jobs and the registry as a pure machine: requests and the time go in, answers, messages and
//! changed rows come out. No I/O, no clock, no threads, so that a rehearsal can be repeated exactly.
//!
//! `control` and `device` read requests, `lifecycle` writes jobs and executions, and `queue` tells devices what
//! has become of their queues when all of that is done.
#![allow(unreachable_pub)] // a binary: `pub` here means "for the rest of the cloud"

mod abort;
mod calendar;
mod compat;
mod config;
mod control;
mod device;
mod device_validation;
mod errors;
mod events;
mod interface;
mod lifecycle;
mod membership;
mod model;
mod names;
mod placeholders;
mod queue;
mod registry;
mod rollout;
mod schedule;
mod store;
mod timers;
mod validate;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use compat::{Compat, DeleteVersion, FirstPrevious, SWITCHES, Switch};
pub use interface::{ApiError, Change, ConnectionId, Deployed, Objects, Output, Request, Settings, Time};

use control::account::PackageShadows;
use control::templates::Template;
use model::Job;
use queue::ThingJobs;
use registry::Registry;
use store::{Dirty, Row};
use timers::Timer;

/// Retries of one thing in one job.
const MOST_RETRIES: u32 = 10;

pub struct Engine {
    settings: Settings,
    objects: Arc<dyn Objects + Send + Sync>,
    registry: Registry,
    jobs: BTreeMap<String, Job>,
    jobs_by_age: BTreeMap<u64, String>,
    /// Active jobs that follow their groups.
    continuous: BTreeSet<String>,
    queues: HashMap<String, ThingJobs>,
    templates: BTreeMap<String, Template>,
    timers: BTreeSet<(Time, Timer)>,
    /// Which kinds of events are on.
    event_types: BTreeMap<String, bool>,
    events_created: Option<Time>,
    events_modified: Option<Time>,
    /// Whether jobs write what they deployed into `$package`, and in which role.
    package_shadows: PackageShadows,
    /// What ended well since it was last taken, while `package_shadows` is on.
    deployed: Vec<Deployed>,
    /// Things whose queue has changed since `settle`, in the order of the first change.
    touched: Vec<String>,
    /// Events that go out after the messages to devices.
    events: Vec<Output>,
    outputs: Vec<Output>,
    dirty: Dirty,
    /// Numbers jobs and makes ids.
    counter: u64,
}

impl Engine {
    pub fn new(settings: Settings, objects: Arc<dyn Objects + Send + Sync>) -> Engine {
        let on = settings.compat.events_by_default.on();
        let event_types = ["JOB", "JOB_EXECUTION"].map(|kind| (kind.to_owned(), on));
        let dirty = Dirty::new(settings.record_changes);
        Engine {
            settings,
            objects,
            registry: Registry::default(),
            jobs: BTreeMap::new(),
            jobs_by_age: BTreeMap::new(),
            continuous: BTreeSet::new(),
            queues: HashMap::new(),
            templates: BTreeMap::new(),
            timers: BTreeSet::new(),
            event_types: event_types.into_iter().collect(),
            events_created: None,
            events_modified: None,
            package_shadows: PackageShadows::default(),
            deployed: Vec::new(),
            touched: Vec::new(),
            events: Vec::new(),
            outputs: Vec::new(),
            dirty,
            counter: 0,
        }
    }

    /// The messages since the last call, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// What jobs have deployed since the last call, where that is written down.
    pub fn take_deployed(&mut self) -> Vec<Deployed> {
        std::mem::take(&mut self.deployed)
    }

    /// Sends messages of another service along with its own, in their turn.
    pub fn say(&mut self, messages: Vec<Output>) {
        self.outputs.extend(messages);
    }

    pub fn has_thing(&self, thing: &str) -> bool {
        self.registry.things.contains_key(thing)
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.dirty.note(|| Row::Meta);
        self.counter
    }

    /// An id in the form of a UUID. Not random: the same rehearsal has the same ids.
    fn new_id(&mut self) -> String {
        let high = mix(self.count());
        let low = mix(high);
        let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xfff);
        let (d, e) = (0x8000 | ((low >> 48) & 0x3fff), low & 0xffff_ffff_ffff);
        format!("{a:08x}-{b:04x}-4{c:03x}-{d:04x}-{e:012x}")
    }
}

/// Spreads the bits of a counter (splitmix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
