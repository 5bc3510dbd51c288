//! CreateJob and what else is done with whole jobs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::page::Page;
use super::templates::Source;
use super::{Result, empty, invalid, merged, put};
use crate::engine::Engine;
use crate::engine::calendar::show_moment;
use crate::engine::config::JobConfig;
use crate::engine::errors::Violation;
use crate::engine::interface::{ApiError, Time};
use crate::engine::lifecycle::{Cancellation, at_limit};
use crate::engine::model::{Job, JobStatus, Live, Status, TargetSelection};
use crate::engine::names::Named;
use crate::engine::schedule::SchedulingConfig;
use crate::engine::validate::{
    ARN, DESCRIPTION, GROUP_ID, Input, JOB_ID, NAMESPACE, REASON_CODE, THING_NAME, Text, broken,
};

const MOST_TARGETS: usize = 100;
const MOST_PACKAGES: usize = 25;
const MOST_DELETIONS: usize = 10;

pub(super) fn job_id(input: &Input) -> Result<String> {
    Ok(input.need("jobId", input.text("jobId", &JOB_ID)?)?)
}

impl Engine {
    pub(super) fn job(&self, id: &str) -> Result<&Job> {
        self.jobs.get(id).ok_or_else(|| ApiError::not_found(format!("Job {id} cannot be found")))
    }

    pub(super) fn create_job(&mut self, now: Time, input: &Input) -> Result {
        let id = job_id(input)?;
        let targets = input.texts("targets", &Text::any(1..=2048), 1..=MOST_TARGETS)?;
        let targets = input.need("targets", targets)?;
        let selection = input.choice("targetSelection")?.unwrap_or(TargetSelection::Snapshot);
        let description = input.text("description", &DESCRIPTION)?;
        let namespace = input.text("namespaceId", &NAMESPACE)?;
        let config = JobConfig::parse(input, &self.settings.compat)?;
        let scheduling =
            input.child("schedulingConfig")?.map(|part| SchedulingConfig::parse(now, &part)).transpose()?;
        let packages = package_versions(input)?;
        check_tags(input)?;
        let source = self.document_source(input)?;
        let config = config.or(source.config.clone());
        config.check()?;
        let scheduling = scheduling.or_else(|| source.windows_only());

        if let Some(job) = self.jobs.get(&id) {
            let arn = self.arn(&format!("job/{}", job.id));
            return Err(ApiError::already_exists(format!("Job {id} already exists"), &id, &arn));
        }
        for (index, target) in targets.iter().enumerate() {
            self.check_target(&format!("targets.{}.member", index + 1), target)?;
        }
        let open = scheduling.as_ref().is_none_or(|schedule| schedule.is_open(now));
        if open && at_limit(&self.jobs, selection, &self.settings.compat) {
            let limit = self.settings.compat.active_jobs_limit;
            return Err(ApiError::limit_exceeded(format!("The limit of {limit} active jobs is reached")));
        }

        let description = description.or(source.description);
        let answer = self.job_answer(&id, description.as_ref());
        let job = Job {
            id: id.clone(),
            seq: self.count(),
            targets: targets.clone(),
            selection,
            status: JobStatus::Scheduled,
            document: source.document,
            raw_document: source.raw_document,
            document_source: source.document_source,
            description,
            config,
            next_phase: scheduling.as_ref().and_then(|schedule| schedule.next_change(now)),
            scheduling,
            parameters: source.parameters,
            template_arn: source.template_arn,
            namespace,
            packages: packages.unwrap_or(source.packages),
            created_at: now,
            updated_at: now,
            completed_at: None,
            forced: false,
            reason_code: None,
            comment: None,
            started: false,
            ended: false,
            next_rollout: None,
            deleted_at: None,
            live: Live::default(),
        };
        self.put_job(job);
        self.enlist(&id, &targets);
        if open {
            self.open(now, &id);
        }
        Ok(answer.into())
    }

    fn job_answer(&self, id: &str, description: Option<&String>) -> Map<String, Value> {
        let mut answer = merged(json!({"jobArn": self.arn(&format!("job/{id}")), "jobId": id}), empty());
        put(&mut answer, "description", description.cloned());
        answer
    }

    pub(super) fn describe_job(&self, now: Time, input: &Input) -> Result {
        let job = self.job(&job_id(input)?)?;
        let mut shown = self.job_summary(job);
        shown.extend(merged(
            json!({"targets": job.targets, "jobProcessDetails": process_details(job)}),
            serde_json::to_value(&job.config).unwrap_or_default(),
        ));
        put(&mut shown, "description", job.description.clone());
        put(&mut shown, "forceCanceled", job.forced.then_some(true));
        put(&mut shown, "reasonCode", job.reason_code.clone());
        put(&mut shown, "comment", job.comment.clone());
        put(&mut shown, "namespaceId", job.namespace.clone());
        put(&mut shown, "jobTemplateArn", job.template_arn.clone());
        put(&mut shown, "documentParameters", (!job.parameters.is_empty()).then(|| json!(job.parameters)));
        put(
            &mut shown,
            "destinationPackageVersions",
            (!job.packages.is_empty()).then(|| json!(job.packages)),
        );
        if let Some(schedule) = &job.scheduling {
            put(&mut shown, "schedulingConfig", serde_json::to_value(schedule).ok());
            let starts =
                schedule.next_starts(now, 7).into_iter().map(|at| json!({"startTime": show_moment(at)}));
            let starts: Vec<Value> = starts.collect();
            put(
                &mut shown,
                "scheduledJobRollouts",
                (!starts.is_empty() && job.status.is_active()).then_some(starts),
            );
        }
        let mut answer = merged(json!({"job": shown}), empty());
        put(&mut answer, "documentSource", job.document_source.clone());
        Ok(answer.into())
    }

    fn job_summary(&self, job: &Job) -> Map<String, Value> {
        let mut shown = merged(
            json!({
                "jobArn": self.arn(&format!("job/{}", job.id)),
                "jobId": job.id,
                "targetSelection": job.selection.name(),
                "status": job.status.name(),
                "createdAt": job.created_at.to_number(),
                "lastUpdatedAt": job.updated_at.to_number(),
                "isConcurrent": job.is_rolling_out(),
            }),
            empty(),
        );
        put(&mut shown, "completedAt", job.completed_at.map(Time::to_number));
        shown
    }

    pub(super) fn get_job_document(&self, input: &Input) -> Result {
        let job = self.job(&job_id(input)?)?;
        let before = input.flag("beforeSubstitution")?.unwrap_or(false);
        let document = job.raw_document.as_ref().filter(|_| before).unwrap_or(&job.document);
        Ok(json!({"document": document}))
    }

    pub(super) fn list_jobs(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListJobs")?;
        let status = input.choice::<JobStatus>("status")?;
        let selection = input.choice::<TargetSelection>("targetSelection")?;
        let namespace = input.text("namespaceId", &NAMESPACE)?;
        let by_name = input.text("thingGroupName", &THING_NAME)?;
        let by_id = input.text("thingGroupId", &GROUP_ID)?;
        let mut group = by_name.as_ref().and_then(|name| self.registry.groups.get(name));
        if let Some(id) = &by_id {
            group = self.registry.groups.values().find(|group| group.id == *id);
        }
        if group.is_none() && (by_name.is_some() || by_id.is_some()) {
            return Err(ApiError::not_found("The thing group does not exist"));
        }
        let group_arn = group.map(|group| self.arn(&format!("thinggroup/{}", group.name)));
        let from = page.after().and_then(|key| key.parse::<u64>().ok()).map_or(0, |seq| seq + 1);
        let jobs = self.jobs_by_age.range(from..).filter_map(|(_, id)| self.jobs.get(id)).filter(|job| {
            status.is_none_or(|status| job.status == status)
                && selection.is_none_or(|selection| job.selection == selection)
                && (namespace.is_none() || job.namespace == namespace)
                && group_arn.as_ref().is_none_or(|arn| job.targets.contains(arn))
        });
        let entries = jobs.map(|job| {
            let mut shown = self.job_summary(job);
            put(&mut shown, "thingGroupId", group.map(|group| group.id.clone()));
            (job.seq.to_string(), shown)
        });
        let (jobs, token) = page.take(entries);
        let mut answer = merged(json!({"jobs": jobs}), empty());
        put(&mut answer, "nextToken", token);
        Ok(answer.into())
    }

    pub(super) fn update_job(&mut self, now: Time, input: &Input) -> Result {
        let id = job_id(input)?;
        let description = input.text("description", &DESCRIPTION)?;
        let config = JobConfig::parse(input, &self.settings.compat)?;
        let job = self.job(&id)?;
        if !job.status.is_active() {
            return Err(invalid(format!("Job {id} is {} and cannot be updated", job.status.name())));
        }
        let retries = config.job_executions_retry_config.iter().flat_map(|retry| &retry.criteria_list);
        if retries.into_iter().any(|criterion| criterion.number_of_retries != 0) {
            let rule = "have value equal to 0";
            let violation = broken("jobExecutionsRetryConfig.criteriaList", "numberOfRetries", rule);
            return Err(violation.into());
        }
        let config = config.or(job.config.clone());
        config.check()?;
        self.edit_job(&id, |job| {
            job.description = description.or(job.description.take());
            job.config = config;
            job.updated_at = now;
        });
        Ok(empty())
    }

    pub(super) fn cancel_job_call(&mut self, now: Time, input: &Input) -> Result {
        let id = job_id(input)?;
        let why = Cancellation {
            force: input.flag("force")?.unwrap_or(false),
            reason_code: input.text("reasonCode", &REASON_CODE)?,
            comment: input.text("comment", &DESCRIPTION)?,
        };
        let job = self.job(&id)?;
        if !job.status.is_active() {
            return Err(invalid(format!("Job {id} is {} and cannot be canceled", job.status.name())));
        }
        let answer = self.job_answer(&id, job.description.as_ref());
        self.cancel_job(now, &id, why);
        Ok(answer.into())
    }

    pub(super) fn delete_job_call(&mut self, now: Time, input: &Input) -> Result {
        let id = job_id(input)?;
        let force = input.flag("force")?.unwrap_or(false);
        let status = self.job(&id)?.status;
        let ended = matches!(status, JobStatus::Completed | JobStatus::Canceled);
        if status == JobStatus::DeletionInProgress || !(ended || force) {
            return Err(ApiError::invalid_transition(format!(
                "Job {id} is {} and cannot be deleted",
                status.name()
            )));
        }
        let deleting = self.jobs.values().filter(|job| job.status == JobStatus::DeletionInProgress).count();
        if deleting >= MOST_DELETIONS {
            return Err(ApiError::limit_exceeded(format!("{MOST_DELETIONS} jobs are being deleted already")));
        }
        self.delete_job(now, &id);
        Ok(empty())
    }

    pub(super) fn associate_targets(&mut self, now: Time, input: &Input) -> Result {
        let id = job_id(input)?;
        let targets = input.texts("targets", &Text::any(1..=2048), 1..=usize::MAX)?;
        let targets = input.need("targets", targets)?;
        let comment = input.text("comment", &DESCRIPTION)?;
        let job = self.job(&id)?;
        if job.selection != TargetSelection::Continuous || job.status != JobStatus::InProgress {
            return Err(invalid(format!("Job {id} is not a CONTINUOUS job that is IN_PROGRESS")));
        }
        let mut all = job.targets.clone();
        all.extend(targets.iter().filter(|target| !job.targets.contains(target)).cloned());
        if targets.len() > MOST_TARGETS || all.len() > MOST_TARGETS {
            return Err(ApiError::limit_exceeded(format!("A job has at most {MOST_TARGETS} targets")));
        }
        for (index, target) in targets.iter().enumerate() {
            self.check_target(&format!("targets.{}.member", index + 1), target)?;
        }
        let answer = self.job_answer(&id, job.description.as_ref());
        let things: Vec<String> = targets.iter().flat_map(|arn| self.things_of(arn)).collect();
        let before: Vec<_> = things.iter().map(|thing| self.followed(thing)).collect();
        self.edit_job(&id, |job| {
            job.targets = all;
            job.comment = comment.or(job.comment.take());
            job.updated_at = now;
        });
        for (thing, before) in things.iter().zip(before) {
            self.membership_changed(now, thing, &before);
        }
        Ok(answer.into())
    }

    /// The document of the job, from wherever the request says.
    fn document_source(&self, input: &Input) -> Result<Source> {
        let named: Vec<&str> = ["document", "documentSource", "jobTemplateArn"]
            .into_iter()
            .filter(|name| input.has(name))
            .collect();
        let [name] = named.as_slice() else {
            return Err(invalid(format!(
                "A job takes one of document, documentSource and jobTemplateArn, and has {}",
                if named.is_empty() { "none".to_owned() } else { named.join(" and ") }
            )));
        };
        let parameters =
            input.map("documentParameters", &Text::any(1..=128), &Text::printable(1..=30720), usize::MAX)?;
        if *name == "jobTemplateArn" {
            let arn = input.need("jobTemplateArn", input.text("jobTemplateArn", &ARN)?)?;
            return self.template_source(&arn, parameters.unwrap_or_default());
        }
        if parameters.is_some() {
            return Err(invalid("documentParameters can be used with AWS managed job templates only"));
        }
        let (document, document_source) = self.read_document(input)?;
        Ok(Source { document, document_source, ..Source::default() })
    }
}

pub(super) fn package_versions(input: &Input) -> Result<Option<Vec<String>>> {
    let name = "destinationPackageVersions";
    let packages = input.texts(name, &ARN, 0..=MOST_PACKAGES)?;
    for (index, arn) in packages.iter().flatten().enumerate() {
        let resource = arn.splitn(6, ':').nth(5).unwrap_or_default();
        let parts: Vec<&str> = resource.split('/').collect();
        let allowed = |part: &str, most: usize| {
            !part.is_empty()
                && part.len() <= most
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let fits = match parts.as_slice() {
            ["package", package, "version", version] => {
                allowed(package, 128) && (allowed(version, 64) || ["$default", "$null"].contains(version))
            }
            _ => false,
        };
        if !fits || !arn.starts_with("arn:") {
            let path = format!("{name}.{}.member", index + 1);
            return Err(Violation::into(broken(&path, arn, "be the ARN of a package version")));
        }
    }
    Ok(packages)
}

pub(super) fn check_tags(input: &Input) -> Result<()> {
    for tag in input.children("tags", 0..=50)?.unwrap_or_default() {
        tag.need("Key", tag.text("Key", &Text::any(1..=128))?)?;
        tag.text("Value", &Text::any(0..=256))?;
    }
    Ok(())
}

fn process_details(job: &Job) -> Value {
    let of = |status| job.live.counts.of(status);
    let mut details = json!({
        "numberOfCanceledThings": of(Status::Canceled),
        "numberOfSucceededThings": of(Status::Succeeded),
        "numberOfFailedThings": of(Status::Failed),
        "numberOfRejectedThings": of(Status::Rejected),
        "numberOfQueuedThings": of(Status::Queued),
        "numberOfInProgressThings": of(Status::InProgress),
        "numberOfRemovedThings": of(Status::Removed),
        "numberOfTimedOutThings": of(Status::TimedOut),
    });
    if let Some(members) = details.as_object_mut() {
        put(members, "processingTargets", job.is_rolling_out().then(|| json!(job.targets)));
    }
    details
}

pub(super) type Parameters = BTreeMap<String, String>;
