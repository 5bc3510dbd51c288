//! Which things a job is for, and what happens to continuous jobs when that changes.

use std::collections::BTreeSet;

use super::Engine;
use super::errors::Violation;
use super::interface::{ApiError, Time};
use super::model::{Job, Status, Target};
use super::validate::broken;

/// What a target ARN names.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetName<'a> {
    Thing(&'a str),
    Group(&'a str),
}

impl Engine {
    /// `arn:aws:iot:REGION:ACCOUNT:RESOURCE`
    pub(super) fn arn(&self, resource: &str) -> String {
        format!("arn:aws:iot:{}:{}:{resource}", self.settings.region, self.settings.account)
    }

    /// The resource of an ARN of this region and account.
    pub(super) fn own_resource<'a>(&self, arn: &'a str) -> Option<&'a str> {
        let mut parts = arn.splitn(6, ':');
        let (scheme, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = scheme == "arn"
            && partition.starts_with("aws")
            && service == "iot"
            && region == self.settings.region
            && account == self.settings.account;
        ours.then_some(resource)
    }

    /// A target as CreateJob takes it: it must be one of ours, and exist.
    pub(super) fn check_target(&self, path: &str, arn: &str) -> Result<(), ApiError> {
        let resource = arn.splitn(6, ':').nth(5).filter(|_| arn.starts_with("arn:"));
        let known_kind =
            |resource: &str| resource.starts_with("thing/") || resource.starts_with("thinggroup/");
        if !resource.is_some_and(known_kind) {
            let rule = "be the ARN of a thing or a thing group";
            return Err(Violation::into(broken(path, arn, rule)));
        }
        let exists = match self.own_resource(arn).and_then(target_name) {
            Some(TargetName::Thing(name)) => self.registry.things.contains_key(name),
            Some(TargetName::Group(name)) => self.registry.groups.contains_key(name),
            None => false,
        };
        if exists { Ok(()) } else { Err(ApiError::not_found(format!("Target {arn} does not exist"))) }
    }

    /// The things that a target ARN stands for: a group's by name.
    pub(super) fn things_of(&self, arn: &str) -> Vec<String> {
        match self.own_resource(arn).and_then(target_name) {
            Some(TargetName::Thing(name)) => vec![name.to_owned()],
            Some(TargetName::Group(name)) => self.registry.members(name).into_iter().collect(),
            None => Vec::new(),
        }
    }

    fn is_target(&self, job: &Job, thing: &str) -> bool {
        self.registry.things.contains_key(thing)
            && job.targets.iter().any(|arn| match self.own_resource(arn).and_then(target_name) {
                Some(TargetName::Thing(name)) => name == thing,
                Some(TargetName::Group(name)) => self.registry.is_member(thing, name),
                None => false,
            })
    }

    /// Puts the things of these targets at the end of the rollout, each once.
    pub(super) fn enlist(&mut self, job_id: &str, arns: &[String]) {
        let things: Vec<String> = arns.iter().flat_map(|arn| self.things_of(arn)).collect();
        for thing in things {
            let known = self.jobs.get(job_id).is_none_or(|job| job.live.things.contains_key(&thing));
            if !known {
                self.enlist_thing(job_id, &thing);
            }
        }
    }

    fn enlist_thing(&mut self, job_id: &str, thing: &str) {
        let last = self.jobs.get(job_id).and_then(|job| job.live.waiting.keys().next_back().copied());
        let order = last.map_or(0, |last| last + 1);
        self.change(job_id, thing, |target| {
            target.order = order;
            target.waiting = true;
            target.retries_failed = 0;
            target.retries_timed_out = 0;
        });
    }

    /// The continuous jobs that are for this thing now.
    pub(super) fn followed(&self, thing: &str) -> BTreeSet<String> {
        let jobs = self.continuous.iter().filter_map(|id| self.jobs.get(id));
        jobs.filter(|job| self.is_target(job, thing)).map(|job| job.id.clone()).collect()
    }

    /// A thing, or the targets of a job, have changed: continuous jobs that were not for the thing `before` begin,
    /// others end.
    pub(super) fn membership_changed(&mut self, now: Time, thing: &str, before: &BTreeSet<String>) {
        let after = self.followed(thing);
        let mut changed: Vec<&String> = before.symmetric_difference(&after).collect();
        // The older job's execution comes first in the queue.
        changed.sort_by_key(|id| self.jobs.get(*id).map(|job| job.seq));
        for job_id in changed {
            let Some(job) = self.jobs.get(job_id) else { continue };
            let target = job.live.things.get(thing);
            let involved = target.is_some_and(|target| target.waiting || target.pending().is_some());
            let removed =
                target.and_then(Target::latest).is_none_or(|latest| latest.status == Status::Removed);
            if after.contains(job_id) && !involved && removed {
                self.join(now, job_id, thing);
            } else if before.contains(job_id) && involved {
                self.remove_target(now, job_id, thing);
            }
        }
    }

    /// A late joiner gets its execution at once, or waits with the others for the job's time.
    pub(super) fn join(&mut self, now: Time, job_id: &str, thing: &str) {
        let Some(job) = self.jobs.get(job_id).filter(|job| !job.ended) else { return };
        let at_once = job.is_visible();
        self.enlist_thing(job_id, thing);
        if at_once {
            self.queue_execution(now, job_id, thing, 0);
        }
    }

    /// A deleted thing leaves every queue.
    pub(super) fn thing_gone(&mut self, now: Time, thing: &str, forget: bool) {
        let jobs = self.queues.get(thing).map(|queue| queue.jobs.clone()).unwrap_or_default();
        for (_, job_id) in jobs {
            if forget {
                self.change(&job_id, thing, |target| *target = Target::default());
                self.complete_if_done(now, &job_id);
            } else {
                self.remove_target(now, &job_id, thing);
            }
        }
    }

    /// The job is not for this thing any more.
    fn remove_target(&mut self, now: Time, job_id: &str, thing: &str) {
        let Some(target) = self.jobs.get(job_id).and_then(|job| job.live.things.get(thing)) else { return };
        if target.pending().is_some() {
            self.end(now, job_id, thing, Status::Removed, false);
        } else if target.waiting {
            self.change(job_id, thing, |target| target.waiting = false);
        }
        self.review(now, job_id);
    }
}

/// The thing or group that a resource such as `thing/edge-01` names.
pub fn target_name(resource: &str) -> Option<TargetName<'_>> {
    match resource.split_once('/')? {
        ("thing", name) => Some(TargetName::Thing(name)),
        ("thinggroup", name) => Some(TargetName::Group(name)),
        _ => None,
    }
}
