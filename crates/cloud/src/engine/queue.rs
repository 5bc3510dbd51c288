//! A thing's queue of pending executions, and what to tell its device when the queue has changed.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Engine;
use super::compat::EmptyNext;
use super::interface::{Output, Time};
use super::model::{Execution, Job, Status};
use super::names::Named;

/// A pending execution's place in the queue: IN_PROGRESS before QUEUED, then the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    queued: bool,
    queued_at: Time,
    turn: u64,
    job_seq: u64,
    number: i64,
    pub job: String,
}

impl Place {
    pub fn of(job: &Job, execution: &Execution) -> Place {
        Place {
            queued: execution.status == Status::Queued,
            queued_at: execution.queued_at,
            turn: execution.turn,
            job_seq: job.seq,
            number: execution.number,
            job: job.id.clone(),
        }
    }
}

/// What a device knows of its queue: which executions are pending, and which one is the head.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    pending: BTreeSet<(u64, i64, bool)>,
    head: Option<(u64, i64)>,
}

/// The jobs of one thing.
#[derive(Clone, Debug, Default)]
pub struct ThingJobs {
    pub pending: BTreeSet<Place>,
    /// Every job that has something for this thing, in the order of their creation.
    pub jobs: BTreeSet<(u64, String)>,
    /// What the device knew before the change that is under way.
    before: Option<Known>,
}

impl ThingJobs {
    fn known(&self, with_state: bool) -> Known {
        Known {
            pending: self.pending.iter().map(|p| (p.job_seq, p.number, with_state && p.queued)).collect(),
            head: self.pending.first().map(|place| (place.job_seq, place.number)),
        }
    }

    /// To be called before the queue changes. True when this is the first change since `settle`.
    pub fn touch(&mut self, with_state: bool) -> bool {
        let first = self.before.is_none();
        if first {
            self.before = Some(self.known(with_state));
        }
        first
    }
}

impl Engine {
    /// The end of every change: tells each device whose queue is now another one, then sends the events.
    pub(super) fn settle(&mut self, now: Time) {
        let with_state = self.settings.compat.notify_on_start.on();
        for thing in std::mem::take(&mut self.touched) {
            let Some(queue) = self.queues.get_mut(&thing) else { continue };
            let before = queue.before.take().unwrap_or_default();
            let after = queue.known(with_state);
            if queue.jobs.is_empty() {
                self.queues.remove(&thing);
            }
            if before.pending != after.pending {
                let payload = self.notify_payload(now, &thing);
                self.publish(format!("$aws/things/{thing}/jobs/notify"), payload);
            }
            if before.head != after.head {
                let payload = self.notify_next_payload(now, &thing);
                self.publish(format!("$aws/things/{thing}/jobs/notify-next"), payload);
            }
        }
        self.outputs.append(&mut self.events);
    }

    pub(super) fn publish(&mut self, topic: String, payload: Value) {
        self.outputs.push(Output::Publish { topic, payload });
    }

    /// The thing's pending executions in the order of the queue, with their jobs.
    pub(super) fn pending<'a>(
        &'a self,
        thing: &'a str,
    ) -> impl Iterator<Item = (&'a Job, &'a Execution)> + 'a {
        let places = self.queues.get(thing).into_iter().flat_map(|queue| queue.pending.iter());
        places.filter_map(move |place| {
            let job = self.jobs.get(&place.job)?;
            Some((job, job.live.things.get(thing)?.pending()?))
        })
    }

    fn notify_payload(&self, now: Time, thing: &str) -> Value {
        let mut jobs = Map::new();
        for (job, execution) in self.pending(thing).take(self.settings.compat.pending_notify_cap as usize) {
            let list = jobs.entry(execution.status.name()).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(self.summary(job, execution));
            }
        }
        json!({"timestamp": self.stamp(now), "jobs": jobs})
    }

    fn notify_next_payload(&self, now: Time, thing: &str) -> Value {
        let Some((job, execution)) = self.pending(thing).next() else {
            return match self.settings.compat.empty_notify_next {
                EmptyNext::Timestamp => json!({"timestamp": self.stamp(now)}),
                EmptyNext::Empty => json!({}),
            };
        };
        let mut shown = self.execution_members(now, job, execution);
        let document = if self.settings.compat.sign_notify_next.on() {
            self.deliver(now, job, thing, execution)
        } else {
            Value::clone(&job.live.parsed)
        };
        shown.insert("jobDocument".to_owned(), document);
        json!({"timestamp": self.stamp(now), "execution": shown})
    }
}
