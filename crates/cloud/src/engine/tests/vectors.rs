//! All sequences of the vectors, and their data files, on the engine itself.

use serde_json::{Value, json};

use super::support::{Cloud, START, matches, request};
use crate::engine::config::RolloutConfig;
use crate::engine::model::{Execution, Status};
use crate::engine::{Output, Time, rollout};

/// Cases that are believed to be wrong, with the reason. None so far.
const EXCEPTIONS: &[(&str, &str)] = &[];

fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../../test-fixtures/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

/// One conversation, step by step.
struct Replay {
    cloud: Cloud,
    service: Vec<(String, Value)>,
    events: Vec<String>,
}

impl Replay {
    fn collect(&mut self) {
        for output in self.cloud.engine.take_outputs() {
            match output {
                Output::Answer { topic, payload, .. } => self.service.push((topic, payload)),
                Output::Publish { topic, .. } if topic.starts_with("$aws/events/") => self.events.push(topic),
                Output::Publish { topic, payload } => self.service.push((topic, payload)),
            }
        }
    }

    fn step(&mut self, step: &Value) -> Result<(), String> {
        if let Some(at) = step["at"].as_i64() {
            self.cloud.at(at - START);
        } else if let Some(by) = step["advance"].as_i64() {
            self.cloud.at(self.cloud.now.secs() - START + by);
        } else if let Some(call) = step.get("control") {
            let request = request(call["op"].as_str().unwrap(), &call["params"], call["body"].clone());
            let result = self.cloud.engine.control(self.cloud.now, &request);
            self.collect();
            return self.check_control(step.get("expect"), result);
        } else if let Some(thing) = step["device"].as_str() {
            let publish = &step["publish"];
            let payload = match publish.get("raw") {
                Some(raw) => raw.as_str().unwrap().to_owned(),
                None => publish["payload"].to_string(),
            };
            let topic = publish["topic"].as_str().unwrap();
            self.cloud.engine.device(self.cloud.now, thing, Some(1), topic, payload.as_bytes());
        } else if let Some(expected) = step["service"].as_array() {
            self.collect();
            return self.check_service(expected, step["ordered"] != json!(false));
        } else if let Some(expected) = step["events"].as_array() {
            self.collect();
            let found = std::mem::take(&mut self.events);
            return matches(&json!(expected), &json!(found), 0, false);
        } else {
            return Err("a step of an unknown kind".to_owned());
        }
        self.collect();
        Ok(())
    }

    fn check_control(
        &self,
        expect: Option<&Value>,
        result: Result<Value, crate::engine::ApiError>,
    ) -> Result<(), String> {
        let (http, kind, body) = match result {
            Ok(body) => (200, None, body),
            Err(error) => (error.http, Some(error.kind), Value::Null),
        };
        let expect = expect.cloned().unwrap_or_else(|| json!({"http": 200}));
        if expect["http"] != json!(http) || expect.get("error").and_then(Value::as_str) != kind {
            return Err(format!("expected {expect}, found {http} {kind:?} {body}"));
        }
        expect.get("body").map_or(Ok(()), |expected| matches(expected, &body, self.cloud.now.secs(), true))
    }

    fn check_service(&mut self, expected: &[Value], ordered: bool) -> Result<(), String> {
        let mut found = std::mem::take(&mut self.service);
        let now = self.cloud.now.secs();
        for message in expected {
            let fits = |(topic, payload): &(String, Value)| {
                if message["topic"] != json!(topic) {
                    return Err(format!("expected {}, found {topic}", message["topic"]));
                }
                matches(&message["payload"], payload, now, false).map_err(|error| format!("{topic}: {error}"))
            };
            let at = if ordered { 0 } else { found.iter().position(|m| fits(m).is_ok()).unwrap_or(0) };
            fits(found.get(at).ok_or_else(|| format!("{} is missing", message["topic"]))?)?;
            found.remove(at);
        }
        if found.is_empty() { Ok(()) } else { Err(format!("not expected: {found:?}")) }
    }
}

fn replay(file: &str) {
    let mut failures = Vec::new();
    for case in cases(file) {
        let id = case["id"].as_str().unwrap();
        let mut replay = Replay { cloud: Cloud::new(), service: Vec::new(), events: Vec::new() };
        let steps = case["steps"].as_array().unwrap().iter().enumerate();
        let result = steps
            .map(|(n, step)| replay.step(step).map_err(|e| format!("step {n}: {e}")))
            .find(Result::is_err);
        let excepted = EXCEPTIONS.iter().any(|(name, _)| *name == id);
        match result {
            Some(Err(error)) if !excepted => failures.push(format!("{id}: {error}")),
            None if excepted => failures.push(format!("{id} passes: it is no exception any more")),
            _ => {}
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn lifecycle() {
    replay("jobs-lifecycle");
}

#[test]
fn errors() {
    replay("jobs-errors");
}

#[test]
fn control() {
    replay("jobs-control");
}

#[test]
fn timers_retries_rollout() {
    replay("jobs-timers-retries-rollout");
}

#[test]
fn rollout_rates() {
    for case in cases("rollout-rates") {
        let input = &case["input"];
        let config: RolloutConfig = serde_json::from_value(input.clone()).unwrap();
        let mut left = input["targets"].as_u64().unwrap();
        let mut notified = 0;
        let minute = |_| {
            let made = rollout::rate(Some(&config), notified, 0).min(left);
            notified += made;
            left -= made;
            made
        };
        let found: Vec<u64> = (0..input["minutes"].as_u64().unwrap()).map(minute).collect();
        assert_eq!(json!(found), case["expect"]["executionsPerMinute"], "{}", case["id"]);
    }
}

#[test]
fn timer_deadlines() {
    for case in cases("timer-deadlines") {
        let mut execution = Execution {
            number: 1,
            status: Status::Queued,
            version: 1,
            details: Default::default(),
            queued_at: Time::default(),
            started_at: None,
            updated_at: Time::default(),
            forced: false,
            retry_attempt: 0,
            turn: 0,
            in_progress_deadline: None,
            step_deadline: None,
        };
        for event in case["input"]["events"].as_array().unwrap() {
            let now = Time::default().plus_minutes(event["t"].as_i64().unwrap());
            execution.start(now, event["inProgressTimeoutInMinutes"].as_i64());
            execution.write(now, Status::InProgress);
            execution.set_step(now, event["stepTimeoutInMinutes"].as_i64());
            let found = execution.deadline().map(|deadline| deadline.secs() / 60);
            assert_eq!(json!(found), event["deadline"], "{} {event}", case["id"]);
        }
    }
}

#[test]
fn names() {
    use crate::engine::validate::{DETAIL_KEY, JOB_ID, REASON_CODE, THING_NAME, Text};
    for case in cases("validation") {
        let rule = match case["id"].as_str().unwrap() {
            "jobId" => JOB_ID,
            "thingName" => THING_NAME,
            "statusDetailsKey" => DETAIL_KEY,
            "statusDetailsValue" => Text::printable(1..=1024),
            "jobReasonCode" => REASON_CODE,
            _ => continue, // names of services that this cloud does not have
        };
        for (list, expected) in [("accept", true), ("reject", false)] {
            for text in case[list].as_array().unwrap() {
                let text = text.as_str().unwrap();
                assert_eq!(rule.check("x", text).is_ok(), expected, "{} {text:?}", case["id"]);
            }
        }
    }
}

#[test]
fn topics() {
    use crate::engine::device_validation::Operation;
    for case in cases("topics") {
        let (topic, expect) = (case["input"]["topic"].as_str().unwrap(), &case["expect"]);
        let requested = expect["service"] == "jobs" && expect["kind"] == "request";
        let found = Operation::of_topic("edge-01", topic);
        let named = found.map(|operation| match operation {
            Operation::GetPending => ("get", None),
            Operation::StartNext => ("start-next", None),
            Operation::Describe(job) => ("describe", Some(job)),
            Operation::Update(job) => ("update", Some(job)),
        });
        let expected = requested.then(|| (expect["op"].as_str().unwrap(), expect["jobId"].as_str()));
        assert_eq!(named, expected, "{topic}");
    }
}
