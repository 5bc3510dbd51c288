//! The device plane: get, start-next, describe, update; over MQTT and over HTTPS.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Engine;
use super::compat::{TerminalDescribe, TerminalUpdate};
use super::device_validation::{Call, Operation, Update, call, members};
use super::errors::{Code, Rejection};
use super::interface::{ApiError, ConnectionId, Output, Request, Time};
use super::model::{Execution, Job, Status, Target};
use super::names::Named;
use super::validate::{Input, THING_NAME};
use super::view::state;

/// The members of an answer.
type Answer = Map<String, Value>;

impl Engine {
    /// A device's PUBLISH to a topic under `$aws/things/THING/jobs`.
    pub fn device(
        &mut self,
        now: Time,
        thing: &str,
        from: Option<ConnectionId>,
        topic: &str,
        payload: &[u8],
    ) {
        self.fire_due(now);
        let members = members(payload);
        let token =
            members.as_ref().ok().and_then(|members| members.get("clientToken")).and_then(Value::as_str);
        let token = token.map(str::to_owned);
        let Some(operation) = Operation::of_topic(thing, topic) else {
            if self.settings.compat.answer_invalid_topic.on() {
                let rejection =
                    Rejection::new(Code::InvalidTopic, format!("{topic} is not a topic of an operation"));
                self.answer(now, thing, from, topic, token, Err(rejection));
            }
            return;
        };
        let result = members.and_then(|members| {
            let call = call(&operation, &Input::object(&members), &self.settings.compat)?;
            self.call(now, thing, call)
        });
        self.answer(now, thing, from, topic, token, result);
        self.settle(now);
    }

    /// The device plane over HTTPS: the four operations of `iot-jobs-data`.
    pub fn device_https(&mut self, now: Time, request: &Request) -> Result<Value, ApiError> {
        self.fire_due(now);
        let input = Input::request(request)?;
        let thing = input.need("thingName", input.text("thingName", &THING_NAME)?)?;
        let job = request.params.get("jobId").map_or("", String::as_str);
        let operation = match request.op.as_str() {
            "GetPendingJobExecutions" => Operation::GetPending,
            "StartNextPendingJobExecution" => Operation::StartNext,
            "DescribeJobExecution" => Operation::Describe(job),
            "UpdateJobExecution" => Operation::Update(job),
            other => return Err(ApiError::not_found(format!("There is no operation {other}"))),
        };
        let call = call(&operation, &input, &self.settings.compat)?;
        let answer = self.call(now, &thing, call);
        self.settle(now);
        let mut answer = answer?;
        self.write_out_document(job, &mut answer);
        if let Some(Value::Object(execution)) = answer.get_mut("execution") {
            let job = execution.get("jobId").and_then(Value::as_str).unwrap_or_default().to_owned();
            self.write_out_document(&job, execution);
        }
        Ok(Value::Object(answer))
    }

    /// Over HTTPS the document is a string: as it was written, unless something in it was signed.
    fn write_out_document(&self, job_id: &str, holder: &mut Answer) {
        let Some(document) = holder.get_mut("jobDocument") else { return };
        let written = self.jobs.get(job_id).filter(|job| !job.live.signs).map(|job| job.document.clone());
        if !document.is_string() {
            *document = Value::from(written.unwrap_or_else(|| document.to_string()));
        }
    }

    /// Accepted and rejected go to the connection that asked, and nowhere else.
    fn answer(
        &mut self,
        now: Time,
        thing: &str,
        to: Option<ConnectionId>,
        topic: &str,
        token: Option<String>,
        result: Result<Answer, Rejection>,
    ) {
        let (outcome, mut members) = match result {
            Ok(members) => ("accepted", members),
            Err(rejection) => ("rejected", rejection.members()),
        };
        members.insert("timestamp".to_owned(), self.stamp(now));
        if let Some(token) = token {
            members.insert("clientToken".to_owned(), token.into());
        }
        let (thing, topic) = (thing.to_owned(), format!("{topic}/{outcome}"));
        self.outputs.push(Output::Answer { to, thing, topic, payload: Value::Object(members) });
    }

    fn call(&mut self, now: Time, thing: &str, call: Call) -> Result<Answer, Rejection> {
        if !self.registry.things.contains_key(thing) {
            return Err(Rejection::new(Code::ResourceNotFound, format!("Thing {thing} does not exist")));
        }
        match call {
            Call::GetPending => Ok(self.get_pending(thing)),
            Call::StartNext { details, step } => {
                let step = if self.start_head(now, thing, details, step) { None } else { step };
                if let Some(step) = step.filter(|_| self.settings.compat.start_next_step_timeout.on()) {
                    self.restep_head(now, thing, step);
                }
                Ok(self.head(now, thing, true))
            }
            Call::Describe { job: None, document, .. } => Ok(self.head(now, thing, document)),
            Call::Describe { job: Some(job), number, document } => {
                self.describe(now, thing, &job, number, document)
            }
            Call::Update(update) => self.update(now, thing, update),
        }
    }

    fn get_pending(&self, thing: &str) -> Answer {
        let (mut started, mut queued) = (Vec::new(), Vec::new());
        let all = self.settings.compat.get_lists_in_progress.on();
        let listed = self.pending(thing).filter(|(_, execution)| all || execution.status == Status::Queued);
        for (job, execution) in listed.take(self.settings.compat.pending_get_cap as usize) {
            match execution.status {
                Status::InProgress => started.push(self.summary(job, execution)),
                _ => queued.push(self.summary(job, execution)),
            }
        }
        object(json!({"inProgressJobs": started, "queuedJobs": queued}))
    }

    /// Starts the head of the queue if it is QUEUED.
    fn start_head(
        &mut self,
        now: Time,
        thing: &str,
        details: Option<BTreeMap<String, String>>,
        step: Option<i64>,
    ) -> bool {
        let Some((job, execution)) = self.pending(thing).next() else { return false };
        if execution.status != Status::Queued {
            return false;
        }
        let (job_id, timeout) = (job.id.clone(), job.config.in_progress_minutes());
        self.change(&job_id, thing, |target| {
            if let Some(latest) = target.latest_mut() {
                latest.start(now, timeout);
                latest.write(now, Status::InProgress);
                latest.set_step(now, step);
                if let Some(details) = details {
                    latest.details = details;
                }
            }
        });
        true
    }

    fn restep_head(&mut self, now: Time, thing: &str, step: i64) {
        let Some(job_id) = self.pending(thing).next().map(|(job, _)| job.id.clone()) else { return };
        self.change(&job_id, thing, |target| {
            if let Some(latest) = target.latest_mut() {
                latest.set_step(now, Some(step));
            }
        });
    }

    /// The head of the queue; no `execution` when nothing is pending.
    fn head(&self, now: Time, thing: &str, document: bool) -> Answer {
        let shown = self
            .pending(thing)
            .next()
            .map(|(job, execution)| self.shown(now, job, thing, execution, document));
        shown.map(|execution| object(json!({"execution": execution}))).unwrap_or_default()
    }

    fn shown(&self, now: Time, job: &Job, thing: &str, execution: &Execution, document: bool) -> Value {
        let mut shown = self.execution_members(now, job, execution);
        shown.insert("thingName".to_owned(), thing.into());
        if document {
            shown.insert("jobDocument".to_owned(), self.deliver(now, job, thing, execution));
        }
        Value::Object(shown)
    }

    fn find(&self, thing: &str, job_id: &str, number: Option<i64>) -> Result<(&Job, &Execution), Rejection> {
        let found = self.jobs.get(job_id).and_then(|job| {
            let execution = job.live.things.get(thing)?.execution(number)?;
            Some((job, execution))
        });
        found.ok_or_else(|| {
            let message = format!("Job execution of job {job_id} for thing {thing} does not exist");
            Rejection::new(Code::ResourceNotFound, message)
        })
    }

    fn describe(
        &self,
        now: Time,
        thing: &str,
        job_id: &str,
        number: Option<i64>,
        document: bool,
    ) -> Result<Answer, Rejection> {
        let (job, execution) = self.find(thing, job_id, number)?;
        if !execution.status.is_pending()
            && self.settings.compat.describe_terminal == TerminalDescribe::Reject
        {
            let message =
                format!("Job execution of job {job_id} has reached the state {}", execution.status.name());
            return Err(Rejection::new(Code::TerminalStateReached, message));
        }
        Ok(object(json!({"execution": self.shown(now, job, thing, execution, document)})))
    }

    fn update(&mut self, now: Time, thing: &str, update: Update) -> Result<Answer, Rejection> {
        let (job, execution) = self.find(thing, &update.job, update.number)?;
        if self.settings.compat.version_before_terminal.on() {
            check_version(&update, execution)?;
            self.check_transition(&update, execution)?;
        } else {
            self.check_transition(&update, execution)?;
            check_version(&update, execution)?;
        }
        let timeout = job.config.in_progress_minutes();
        let number = execution.number;
        let (job_id, status) = (update.job, update.status);
        self.change(&job_id, thing, |target: &mut Target| {
            if let Some(latest) = target.latest_mut() {
                if status == Status::InProgress {
                    latest.start(now, timeout);
                    latest.set_step(now, update.step);
                }
                latest.write(now, status);
                if let Some(details) = update.details {
                    latest.details = details;
                }
            }
        });

        let mut answer = Answer::new();
        if let Ok((job, execution)) = self.find(thing, &job_id, Some(number)) {
            if update.show_state {
                answer.insert("executionState".to_owned(), state(execution));
            }
            if update.show_document {
                answer.insert("jobDocument".to_owned(), self.deliver(now, job, thing, execution));
            }
        }
        if !status.is_pending() {
            self.ended(now, &job_id, thing);
        }
        Ok(answer)
    }

    fn check_transition(&self, update: &Update, execution: &Execution) -> Result<(), Rejection> {
        let (from, to) = (execution.status, update.status);
        if from.is_pending() && to != Status::Queued {
            return Ok(());
        }
        let message = format!("Update with status {} is not allowed in the state {}", to.name(), from.name());
        if !from.is_pending()
            && self.settings.compat.terminal_update_code == TerminalUpdate::TerminalStateReached
        {
            return Err(Rejection::new(Code::TerminalStateReached, message));
        }
        Err(Rejection {
            execution_state: Some(state(execution)),
            ..Rejection::new(Code::InvalidStateTransition, message)
        })
    }
}

fn check_version(update: &Update, execution: &Execution) -> Result<(), Rejection> {
    match update.expected_version {
        Some(expected) if expected != execution.version => {
            let message = format!("Expected version {expected} but found version {}", execution.version);
            let execution_state = Some(state(execution));
            Err(Rejection { execution_state, ..Rejection::new(Code::VersionMismatch, message) })
        }
        _ => Ok(()),
    }
}

/// The members of a literal object.
fn object(value: Value) -> Answer {
    match value {
        Value::Object(members) => members,
        _ => Answer::new(),
    }
}
