//! Which things a job is for, and what happens to continuous jobs when that changes.

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

    /// A thing has joined or left groups: continuous jobs follow.
    pub(super) fn membership_changed(&mut self, now: Time, thing: &str) {
        let jobs: Vec<String> = self.continuous.iter().cloned().collect();
        for job_id in jobs {
            let Some(job) = self.jobs.get(&job_id) else { continue };
            let target = job.live.things.get(thing);
            let involved = target.is_some_and(|target| target.waiting || target.pending().is_some());
            let left = target.and_then(Target::latest).is_some_and(|latest| latest.status == Status::Removed);
            match (self.is_target(job, thing), involved) {
                (true, false) if target.is_none() || left => self.join(now, &job_id, thing),
                (false, true) => {
                    self.end(now, &job_id, thing, Status::Removed, false);
                    self.review(now, &job_id);
                }
                _ => {}
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
            let Some(target) = self.jobs.get(&job_id).and_then(|job| job.live.things.get(thing)) else {
                continue;
            };
            if forget {
                self.change(&job_id, thing, |target| *target = Target::default());
            } else if target.waiting || target.pending().is_some() {
                self.end_if_pending(now, &job_id, thing);
            }
            self.review(now, &job_id);
        }
    }

    fn end_if_pending(&mut self, now: Time, job_id: &str, thing: &str) {
        let pending = |engine: &Engine| {
            engine
                .jobs
                .get(job_id)
                .and_then(|job| job.live.things.get(thing))
                .is_some_and(|t| t.pending().is_some())
        };
        if pending(self) {
            self.end(now, job_id, thing, Status::Removed, false);
        } else {
            self.change(job_id, thing, |target| target.waiting = false);
        }
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
