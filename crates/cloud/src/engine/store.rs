//! The engine as rows, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::account::PackageShadows;
use super::interface::{Change, Objects, Settings, Time};
use super::model::{Job, Target, TargetSelection};
use super::queue::Place;
use super::{Engine, placeholders, timers};

/// What is stored as one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Meta,
    Thing(String),
    Group(String),
    Template(String),
    Job(String),
    /// (job, thing)
    Target(String, String),
}

/// The rows that were written since they were last taken.
#[derive(Debug, Default)]
pub struct Dirty {
    recording: bool,
    rows: BTreeSet<Row>,
}

impl Dirty {
    pub fn new(recording: bool) -> Dirty {
        Dirty { recording, rows: BTreeSet::new() }
    }

    /// Lazy, because a cloud without a store should not pay for the names of rows.
    pub fn note(&mut self, row: impl FnOnce() -> Row) {
        if self.recording {
            self.rows.insert(row());
        }
    }
}

/// What belongs to no single thing or job.
#[derive(Serialize, Deserialize)]
struct Meta {
    counter: u64,
    event_types: BTreeMap<String, bool>,
    events_created: Option<Time>,
    events_modified: Option<Time>,
    #[serde(default)]
    package_shadows: PackageShadows,
}

impl Engine {
    /// The rows that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let rows = std::mem::take(&mut self.dirty.rows);
        rows.into_iter().map(|row| self.change_of(row)).collect()
    }

    fn change_of(&self, row: Row) -> Change {
        let (kind, key, value) = match row {
            Row::Meta => {
                let meta = Meta {
                    counter: self.counter,
                    event_types: self.event_types.clone(),
                    events_created: self.events_created,
                    events_modified: self.events_modified,
                    package_shadows: self.package_shadows.clone(),
                };
                ("meta", String::new(), json(Some(&meta)))
            }
            Row::Thing(name) => ("thing", name.clone(), json(self.registry.things.get(&name))),
            Row::Group(name) => ("group", name.clone(), json(self.registry.groups.get(&name))),
            Row::Template(id) => ("template", id.clone(), json(self.templates.get(&id))),
            Row::Job(id) => ("job", id.clone(), json(self.jobs.get(&id))),
            Row::Target(job, thing) => {
                let target = self.jobs.get(&job).and_then(|job| job.live.things.get(&thing));
                ("target", format!("{job}/{thing}"), json(target))
            }
        };
        Change { kind, key, value }
    }

    /// Everything as it was when `rows` were saved, timers included. A row that is not understood is an error.
    pub fn load(
        settings: Settings,
        objects: Arc<dyn Objects + Send + Sync>,
        rows: impl IntoIterator<Item = (String, String, Value)>,
    ) -> Result<Engine, String> {
        let mut engine = Engine::new(settings, objects);
        let mut targets = Vec::new();
        for (kind, key, value) in rows {
            match kind.as_str() {
                "meta" => {
                    let meta: Meta = read(&kind, &key, value)?;
                    engine.counter = meta.counter;
                    engine.event_types = meta.event_types;
                    engine.events_created = meta.events_created;
                    engine.events_modified = meta.events_modified;
                    engine.package_shadows = meta.package_shadows;
                }
                "thing" => drop(engine.registry.things.insert(key.clone(), read(&kind, &key, value)?)),
                "group" => drop(engine.registry.groups.insert(key.clone(), read(&kind, &key, value)?)),
                "template" => drop(engine.templates.insert(key.clone(), read(&kind, &key, value)?)),
                "job" => engine.put_job(read(&kind, &key, value)?),
                "target" => targets.push((key.clone(), read::<Target>(&kind, &key, value)?)),
                _ => return Err(format!("a row of the unknown kind {kind:?}")),
            }
        }
        for (key, target) in targets {
            let (job, thing) =
                key.split_once('/').ok_or_else(|| format!("target {key:?} is not JOB/THING"))?;
            engine.put_target(job, thing, target)?;
        }
        engine.registry.index();
        engine.dirty = Dirty::new(engine.settings.record_changes);
        Ok(engine)
    }

    /// Takes in a job that is new here: made just now, or loaded.
    pub(super) fn put_job(&mut self, mut job: Job) {
        job.live.parsed = Arc::new(placeholders::parse(&job.document));
        job.live.signs = placeholders::signs(&job.document);
        self.timers.extend(timers::of_job(&job));
        self.jobs_by_age.insert(job.seq, job.id.clone());
        if job.status.is_active() && job.selection == TargetSelection::Continuous {
            self.continuous.insert(job.id.clone());
        }
        self.dirty.note(|| Row::Job(job.id.clone()));
        self.jobs.insert(job.id.clone(), job);
    }

    fn put_target(&mut self, job_id: &str, thing: &str, target: Target) -> Result<(), String> {
        let job =
            self.jobs.get_mut(job_id).ok_or_else(|| format!("a target of the unknown job {job_id:?}"))?;
        let queue = self.queues.entry(thing.to_owned()).or_default();
        queue.jobs.insert((job.seq, job_id.to_owned()));
        if target.waiting {
            job.live.waiting.insert(target.order, thing.to_owned());
        }
        if let Some(latest) = target.latest() {
            job.live.counts.add(latest.status);
            if latest.status.is_pending() && job.is_visible() {
                queue.pending.insert(Place::of(job, latest));
            }
        }
        self.timers.extend(timers::of_target(job_id, thing, &target));
        job.live.things.insert(thing.to_owned(), target);
        Ok(())
    }
}

fn json<T: Serialize>(value: Option<&T>) -> Option<Value> {
    value.and_then(|value| serde_json::to_value(value).ok())
}

fn read<T: DeserializeOwned>(kind: &str, key: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("{kind} {key:?}: {error}"))
}
