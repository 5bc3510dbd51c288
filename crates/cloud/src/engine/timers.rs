//! What is due when.

use std::collections::BTreeSet;

use super::Engine;
use super::interface::Time;
use super::model::{Job, Target};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A job's schedule starts, opens, closes or ends it.
    Phase(String),
    /// An execution has run for too long: (job, thing).
    Deadline(String, String),
    /// A rollout's next minute begins.
    Rollout(String),
    /// A job's deletion is done.
    Deletion(String),
}

/// The timers of a job itself.
pub fn of_job(job: &Job) -> impl Iterator<Item = (Time, Timer)> {
    let rollout =
        job.next_rollout.filter(|_| job.is_visible()).map(|at| (at, Timer::Rollout(job.id.clone())));
    let phase = job.next_phase.map(|at| (at, Timer::Phase(job.id.clone())));
    let deletion = job.deleted_at.map(|at| (at, Timer::Deletion(job.id.clone())));
    [rollout, phase, deletion].into_iter().flatten()
}

/// The timer of a thing's execution.
pub fn of_target(job: &str, thing: &str, target: &Target) -> Option<(Time, Timer)> {
    let at = target.latest()?.deadline()?;
    Some((at, Timer::Deadline(job.to_owned(), thing.to_owned())))
}

impl Engine {
    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Fires every timer that is due by `now`, in order, each at its own time.
    pub fn fire_due(&mut self, now: Time) {
        while let Some((at, timer)) = pop_due(&mut self.timers, now) {
            match timer {
                Timer::Phase(job) => self.phase(at, &job),
                Timer::Deadline(job, thing) => self.time_out(at, &job, &thing),
                Timer::Rollout(job) => self.rollout(at, &job),
                Timer::Deletion(job) => self.drop_job(at, &job),
            }
            self.settle(at);
        }
    }
}

fn pop_due(timers: &mut BTreeSet<(Time, Timer)>, now: Time) -> Option<(Time, Timer)> {
    if timers.first()?.0 > now {
        return None;
    }
    timers.pop_first()
}
