//! How jobs and executions come, change and end. `change` and `edit_job` are the only places where they are
//! written, so that queue, counts, timers and rows always follow.

use std::collections::BTreeMap;

use super::abort;
use super::compat::Compat;
use super::config::RetryType;
use super::interface::{Deployed, Time};
use super::model::{Execution, Job, JobStatus, Status, Target, TargetSelection};
use super::queue::Place;
use super::store::Row;
use super::timers;
use super::{Engine, MOST_RETRIES};

/// Why a job ends before its time.
pub struct Cancellation {
    pub force: bool,
    pub reason_code: Option<String>,
    pub comment: Option<String>,
}

impl Engine {
    /// The one place where what a job means to a thing is written.
    pub(super) fn change(&mut self, job_id: &str, thing: &str, edit: impl FnOnce(&mut Target)) {
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        if !self.queues.contains_key(thing) {
            self.queues.insert(thing.to_owned(), Default::default());
        }
        let Some(queue) = self.queues.get_mut(thing) else { return };
        if queue.touch(self.settings.compat.notify_on_start.on()) {
            self.touched.push(thing.to_owned());
        }
        let mut target = job.live.things.remove(thing).unwrap_or_default();

        if target.waiting {
            job.live.waiting.remove(&target.order);
        }
        if let Some(latest) = target.latest() {
            job.live.counts.remove(latest.status);
            queue.pending.remove(&Place::of(job, latest));
        }
        if let Some(timer) = timers::of_target(job_id, thing, &target) {
            self.timers.remove(&timer);
        }

        edit(&mut target);

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
        self.dirty.note(|| Row::Target(job_id.to_owned(), thing.to_owned()));
        if target.is_empty() {
            queue.jobs.remove(&(job.seq, job_id.to_owned()));
        } else {
            queue.jobs.insert((job.seq, job_id.to_owned()));
            job.live.things.insert(thing.to_owned(), target);
        }
    }

    /// The one place where a job itself is written. A job that goes out of sight, or comes back, takes its
    /// executions with it.
    pub(super) fn edit_job(&mut self, job_id: &str, edit: impl FnOnce(&mut Job)) {
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        for timer in timers::of_job(job) {
            self.timers.remove(&timer);
        }
        let was_visible = job.is_visible();
        edit(job);
        if !job.status.is_active() {
            job.next_rollout = None;
            job.next_phase = None;
            self.continuous.remove(job_id);
        } else if job.selection == TargetSelection::Continuous {
            self.continuous.insert(job_id.to_owned());
        }
        self.timers.extend(timers::of_job(job));
        self.dirty.note(|| Row::Job(job_id.to_owned()));
        if job.is_visible() != was_visible {
            self.show_or_hide(job_id);
        }
    }

    /// Puts the job's pending executions into the queues of their things, or takes them out.
    fn show_or_hide(&mut self, job_id: &str) {
        let Some(job) = self.jobs.get(job_id) else { return };
        for (thing, target) in &job.live.things {
            let (Some(execution), Some(queue)) = (target.pending(), self.queues.get_mut(thing)) else {
                continue;
            };
            if queue.touch(self.settings.compat.notify_on_start.on()) {
                self.touched.push(thing.clone());
            }
            let place = Place::of(job, execution);
            if job.is_visible() {
                queue.pending.insert(place);
            } else {
                queue.pending.remove(&place);
            }
        }
    }

    /// A new execution of the job for the thing, at the end of its queue.
    pub(super) fn queue_execution(&mut self, now: Time, job_id: &str, thing: &str, retry_attempt: u32) {
        let version = i64::from(self.settings.compat.first_version);
        let turn = self.count();
        self.change(job_id, thing, |target| {
            target.waiting = false;
            target.executions.push(Execution {
                number: target.latest().map_or(1, |latest| latest.number + 1),
                status: Status::Queued,
                version,
                details: BTreeMap::new(),
                queued_at: now,
                turn,
                started_at: None,
                updated_at: now,
                forced: false,
                retry_attempt,
                in_progress_deadline: None,
                step_deadline: None,
            });
        });
    }

    /// The service itself ends a thing's pending execution.
    pub(super) fn end(&mut self, now: Time, job_id: &str, thing: &str, status: Status, forced: bool) {
        self.change(job_id, thing, |target| {
            target.waiting = false;
            if let Some(latest) = target.latest_mut().filter(|latest| latest.status.is_pending()) {
                latest.write(now, status);
                latest.forced = forced;
            }
        });
        self.announce_end(now, job_id, thing);
    }

    fn announce_end(&mut self, now: Time, job_id: &str, thing: &str) {
        let latest = self
            .jobs
            .get(job_id)
            .and_then(|job| job.live.things.get(thing))
            .and_then(Target::latest)
            .cloned();
        if let Some(execution) = latest.filter(|execution| !execution.status.is_pending()) {
            self.execution_event(now, job_id, thing, &execution, false);
        }
    }

    /// What follows from the end of a thing's latest execution: the event, a retry, and the job's own fate.
    pub(super) fn ended(&mut self, now: Time, job_id: &str, thing: &str) {
        self.announce_end(now, job_id, thing);
        self.note_deployed(job_id, thing);
        self.retry(now, job_id, thing);
        self.review(now, job_id);
    }

    pub(super) fn time_out(&mut self, now: Time, job_id: &str, thing: &str) {
        self.change(job_id, thing, |target| {
            if let Some(latest) = target.latest_mut().filter(|latest| latest.status == Status::InProgress) {
                latest.write(now, Status::TimedOut);
            }
        });
        self.ended(now, job_id, thing);
    }

    fn note_deployed(&mut self, job_id: &str, thing: &str) {
        let Some(job) = self.jobs.get(job_id).filter(|_| self.package_shadows.enabled) else { return };
        let latest = job.live.things.get(thing).and_then(Target::latest);
        if !job.packages.is_empty() && latest.is_some_and(|latest| latest.status == Status::Succeeded) {
            self.deployed.push(Deployed { thing: thing.to_owned(), packages: job.packages.clone() });
        }
    }

    fn retry(&mut self, now: Time, job_id: &str, thing: &str) {
        let Some(job) = self.jobs.get(job_id).filter(|job| job.status.is_active() && !job.ended) else {
            return;
        };
        let Some(target) = job.live.things.get(thing) else { return };
        let Some(failure) = target.latest().and_then(|latest| retry_type(latest.status)) else { return };
        let used = target.retries_failed + target.retries_timed_out;
        let criteria = job.config.job_executions_retry_config.iter().flat_map(|config| &config.criteria_list);
        let allowed =
            criteria.filter(|c| [failure, RetryType::All].contains(&c.failure_type)).any(|criterion| {
                let spent = match criterion.failure_type {
                    RetryType::Failed => target.retries_failed,
                    RetryType::TimedOut => target.retries_timed_out,
                    RetryType::All => used,
                };
                i64::from(spent) < criterion.number_of_retries
            });
        if !allowed || used >= MOST_RETRIES {
            return;
        }
        self.queue_execution(now, job_id, thing, used + 1);
        self.change(job_id, thing, |target| match failure {
            RetryType::TimedOut => target.retries_timed_out += 1,
            RetryType::Failed | RetryType::All => target.retries_failed += 1,
        });
    }

    /// After an execution has ended: the job may be over, aborted because too much has failed, or completed.
    pub(super) fn review(&mut self, now: Time, job_id: &str) {
        let Some(job) = self.jobs.get(job_id).filter(|job| job.status.is_active()) else { return };
        let verdict = abort::verdict(
            job.config.abort_config.as_ref(),
            &job.live.counts,
            self.settings.compat.abort_base,
        );
        if let Some(comment) = verdict {
            let reason_code = Some("ABORT_THRESHOLD_REACHED".to_owned());
            self.cancel_job(now, job_id, Cancellation { force: false, reason_code, comment: Some(comment) });
            return;
        }
        self.complete_if_done(now, job_id);
    }

    /// Nothing is left to do for a job that will make no more executions.
    pub(super) fn complete_if_done(&mut self, now: Time, job_id: &str) {
        let Some(job) = self.jobs.get(job_id).filter(|job| job.status.is_active()) else { return };
        let over = match job.selection {
            TargetSelection::Snapshot => job.started,
            TargetSelection::Continuous => job.ended,
        };
        if over && job.live.waiting.is_empty() && job.live.counts.pending() == 0 {
            self.edit_job(job_id, |job| {
                job.status = JobStatus::Completed;
                job.completed_at = Some(now);
                job.updated_at = now;
            });
            self.job_event(now, job_id, "completed");
        }
    }

    /// No new executions; what is QUEUED is canceled, and what is IN_PROGRESS too if forced.
    pub(super) fn cancel_job(&mut self, now: Time, job_id: &str, why: Cancellation) {
        let force = why.force;
        self.edit_job(job_id, |job| {
            job.status = JobStatus::Canceled;
            job.forced = force;
            job.reason_code = why.reason_code;
            job.comment = why.comment;
            job.updated_at = now;
        });
        self.stop_waiting(job_id);
        let Some(job) = self.jobs.get(job_id) else { return };
        let stops = |target: &Target| {
            target.pending().is_some_and(|execution| force || execution.status == Status::Queued)
        };
        let things: Vec<String> = job
            .live
            .things
            .iter()
            .filter(|(_, target)| stops(target))
            .map(|(name, _)| name.clone())
            .collect();
        for thing in things {
            self.end(now, job_id, &thing, Status::Canceled, force);
        }
        self.job_event(now, job_id, "canceled");
    }

    /// The rollout stops where it is.
    pub(super) fn stop_waiting(&mut self, job_id: &str) {
        let Some(job) = self.jobs.get(job_id) else { return };
        let waiting: Vec<String> = job.live.waiting.values().cloned().collect();
        for thing in waiting {
            self.change(job_id, &thing, |target| target.waiting = false);
        }
    }

    /// Deletes a job and all of its executions; at once, unless a switch asks for a while in between.
    pub(super) fn delete_job(&mut self, now: Time, job_id: &str) {
        match self.settings.compat.deletion_seconds {
            0 => self.drop_job(now, job_id),
            seconds => {
                self.edit_job(job_id, |job| {
                    job.status = JobStatus::DeletionInProgress;
                    job.deleted_at = Some(now.plus_secs(seconds.into()));
                    job.updated_at = now;
                });
                self.job_event(now, job_id, "deletion_in_progress");
            }
        }
    }

    pub(super) fn drop_job(&mut self, now: Time, job_id: &str) {
        let Some(job) = self.jobs.get(job_id) else { return };
        let things: Vec<(String, Target)> =
            job.live.things.iter().map(|(n, t)| (n.clone(), t.clone())).collect();
        for (thing, target) in things {
            self.change(job_id, &thing, |target| *target = Target::default());
            for execution in &target.executions {
                self.execution_event(now, job_id, &thing, execution, true);
            }
        }
        self.job_event(now, job_id, "deleted");
        if let Some(job) = self.jobs.remove(job_id) {
            for timer in timers::of_job(&job) {
                self.timers.remove(&timer);
            }
            self.jobs_by_age.remove(&job.seq);
        }
        self.continuous.remove(job_id);
        self.dirty.note(|| Row::Job(job_id.to_owned()));
    }
}

fn retry_type(status: Status) -> Option<RetryType> {
    match status {
        Status::Failed => Some(RetryType::Failed),
        Status::TimedOut => Some(RetryType::TimedOut),
        _ => None,
    }
}

/// As many jobs of this selection run as the account may have.
pub fn at_limit(jobs: &BTreeMap<String, Job>, selection: TargetSelection, compat: &Compat) -> bool {
    let runs = |job: &&Job| job.selection == selection && job.status == JobStatus::InProgress;
    jobs.values().filter(runs).count() >= compat.active_jobs_limit as usize
}
