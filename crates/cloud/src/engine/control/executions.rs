//! What the control plane does with single executions.

use std::ops::Bound;

use serde_json::{Map, Value, json};

use super::jobs::job_id;
use super::page::Page;
use super::{Result, empty, merged, put};
use crate::engine::Engine;
use crate::engine::device_validation::details;
use crate::engine::interface::{ApiError, Time};
use crate::engine::model::{Execution, Status, Target};
use crate::engine::names::Named;
use crate::engine::validate::{Input, JOB_ID, NAMESPACE, THING_NAME};
use crate::engine::view::seconds_left;

pub(super) fn thing_name(input: &Input) -> Result<String> {
    Ok(input.need("thingName", input.text("thingName", &THING_NAME)?)?)
}

fn summary(execution: &Execution) -> Map<String, Value> {
    let mut shown = merged(
        json!({
            "status": execution.status.name(),
            "queuedAt": execution.queued_at.to_number(),
            "lastUpdatedAt": execution.updated_at.to_number(),
            "executionNumber": execution.number,
            "retryAttempt": execution.retry_attempt,
        }),
        empty(),
    );
    put(&mut shown, "startedAt", execution.started_at.map(Time::to_number));
    shown
}

impl Engine {
    pub(super) fn list_executions_for_job(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListJobExecutionsForJob")?;
        let status = input.choice::<Status>("status")?;
        let job = self.job(&job_id(input)?)?;
        let (after, after_number) = split_key(page.after());
        let from = after.map_or(Bound::Unbounded, Bound::Included);
        let all =
            job.live.things.range::<str, _>((from, Bound::Unbounded)).flat_map(|(thing, target)| {
                target.executions.iter().map(move |execution| (thing, execution))
            });
        let entries = all
            .filter(|(thing, execution)| after != Some(thing.as_str()) || execution.number > after_number)
            .filter(|(_, execution)| status.is_none_or(|status| execution.status == status))
            .map(|(thing, execution)| {
                let arn = self.arn(&format!("thing/{thing}"));
                let shown = json!({"thingArn": arn, "jobExecutionSummary": summary(execution)});
                (format!("{thing}/{}", execution.number), shown)
            });
        let (entries, token) = page.take(entries);
        let mut answer = merged(json!({"executionSummaries": entries}), empty());
        put(&mut answer, "nextToken", token);
        Ok(answer.into())
    }

    pub(super) fn list_executions_for_thing(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListJobExecutionsForThing")?;
        let thing = thing_name(input)?;
        let status = input.choice::<Status>("status")?;
        let namespace = input.text("namespaceId", &NAMESPACE)?;
        let only = input.text("jobId", &JOB_ID)?;
        if !self.registry.things.contains_key(&thing) {
            return Err(ApiError::not_found(format!("Thing {thing} does not exist")));
        }
        let (after, after_number) = split_key(page.after());
        let after = after.and_then(|seq| seq.parse::<u64>().ok());
        let jobs = self.queues.get(&thing).into_iter().flat_map(|queue| queue.jobs.iter());
        let all = jobs.filter_map(|(_, id)| self.jobs.get(id)).filter(|job| {
            after.is_none_or(|after| job.seq >= after)
                && only.as_ref().is_none_or(|only| job.id == *only)
                && (namespace.is_none() || job.namespace == namespace)
        });
        let all = all.flat_map(|job| {
            let executions = job.live.things.get(&thing).map(|target| target.executions.as_slice());
            executions.unwrap_or_default().iter().map(move |execution| (job, execution))
        });
        let entries = all
            .filter(|(job, execution)| after != Some(job.seq) || execution.number > after_number)
            .filter(|(_, execution)| status.is_none_or(|status| execution.status == status))
            .map(|(job, execution)| {
                let shown = json!({"jobId": job.id, "jobExecutionSummary": summary(execution)});
                (format!("{}/{}", job.seq, execution.number), shown)
            });
        let (entries, token) = page.take(entries);
        let mut answer = merged(json!({"executionSummaries": entries}), empty());
        put(&mut answer, "nextToken", token);
        Ok(answer.into())
    }

    fn target(&self, job_id: &str, thing: &str) -> Result<&Target> {
        let target = self.jobs.get(job_id).and_then(|job| job.live.things.get(thing));
        target.ok_or_else(|| not_found(job_id, thing))
    }

    pub(super) fn describe_execution(&self, now: Time, input: &Input) -> Result {
        let (job_id, thing) = (job_id(input)?, thing_name(input)?);
        let number = input.integer("executionNumber", i64::MIN..=i64::MAX)?;
        let execution =
            self.target(&job_id, &thing)?.execution(number).ok_or_else(|| not_found(&job_id, &thing))?;
        let mut shown = summary(execution);
        shown.remove("retryAttempt");
        shown.extend(merged(
            json!({
                "jobId": job_id,
                "thingArn": self.arn(&format!("thing/{thing}")),
                "versionNumber": execution.version,
            }),
            empty(),
        ));
        put(&mut shown, "forceCanceled", execution.forced.then_some(true));
        put(
            &mut shown,
            "statusDetails",
            (!execution.details.is_empty()).then(|| json!({"detailsMap": execution.details})),
        );
        put(&mut shown, "approximateSecondsBeforeTimedOut", seconds_left(now, execution));
        Ok(json!({"execution": shown}))
    }

    pub(super) fn cancel_execution(&mut self, now: Time, input: &Input) -> Result {
        let (job_id, thing) = (job_id(input)?, thing_name(input)?);
        let force = input.flag("force")?.unwrap_or(false);
        let expected = input.integer("expectedVersion", i64::MIN..=i64::MAX)?;
        let details = details(input, &self.settings.compat)?;
        let latest = self.target(&job_id, &thing)?.latest().ok_or_else(|| not_found(&job_id, &thing))?;
        if let Some(expected) = expected.filter(|expected| *expected != latest.version) {
            let found = latest.version;
            return Err(ApiError::version_conflict(format!(
                "Expected version {expected} but found version {found}"
            )));
        }
        let allowed = latest.status == Status::Queued || (force && latest.status == Status::InProgress);
        if !allowed {
            let message = format!("The job execution is {} and cannot be canceled", latest.status.name());
            return Err(ApiError::invalid_transition(message));
        }
        self.change(&job_id, &thing, |target| {
            if let (Some(latest), Some(details)) = (target.latest_mut(), details) {
                latest.details = details;
            }
        });
        self.end(now, &job_id, &thing, Status::Canceled, force);
        self.review(now, &job_id);
        Ok(empty())
    }

    pub(super) fn delete_execution(&mut self, now: Time, input: &Input) -> Result {
        let (job_id, thing) = (job_id(input)?, thing_name(input)?);
        let number = input.integer("executionNumber", i64::MIN..=i64::MAX)?;
        let number = input.need("executionNumber", number)?;
        let force = input.flag("force")?.unwrap_or(false);
        let execution = self.target(&job_id, &thing)?.execution(Some(number));
        let execution = execution.ok_or_else(|| not_found(&job_id, &thing))?.clone();
        let allowed = match execution.status {
            Status::InProgress => force,
            Status::Queued => force || self.settings.compat.delete_queued_execution.on(),
            _ => true,
        };
        if !allowed {
            let message = format!("The job execution is {} and cannot be deleted", execution.status.name());
            return Err(ApiError::invalid_transition(message));
        }
        self.change(&job_id, &thing, |target| {
            target.executions.retain(|execution| execution.number != number);
        });
        self.execution_event(now, &job_id, &thing, &execution, true);
        self.complete_if_done(now, &job_id);
        Ok(empty())
    }
}

fn not_found(job_id: &str, thing: &str) -> ApiError {
    ApiError::not_found(format!("Job execution of job {job_id} for thing {thing} cannot be found"))
}

/// A page's last key: `NAME/NUMBER`.
fn split_key(key: Option<&str>) -> (Option<&str>, i64) {
    let parts = key.and_then(|key| key.rsplit_once('/'));
    (parts.map(|(name, _)| name), parts.and_then(|(_, number)| number.parse().ok()).unwrap_or(0))
}
