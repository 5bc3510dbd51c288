//! An engine with a clock that a test moves, and the matchers of the vectors.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::engine::{ApiError, Compat, Engine, Objects, Output, Request, Settings, Time};

/// Where the vectors' clock begins.
pub const START: i64 = 1_700_000_000;
pub const DOCUMENT: &str = r#"{"operation": "install", "package": "agent"}"#;

/// A bucket with one document, and URLs that differ with every signature.
pub struct Bucket;

impl Objects for Bucket {
    fn presign_get(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        expires_in: u32,
        now: i64,
    ) -> String {
        let version = version.map(|version| format!("&versionId={version}")).unwrap_or_default();
        format!("https://s3/{bucket}/{key}?X-Amz-Date={now}&X-Amz-Expires={expires_in}{version}")
    }

    fn presign_put(&self, bucket: Option<&str>, key: &str, expires_in: u32, now: i64) -> String {
        let bucket = bucket.unwrap_or("uploads");
        format!("https://s3/{bucket}/{key}?put&X-Amz-Date={now}&X-Amz-Expires={expires_in}")
    }

    fn read(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        (bucket == "docs" && key == "job.json").then(|| DOCUMENT.as_bytes().to_vec())
    }
}

pub fn settings() -> Settings {
    Settings {
        region: "us-east-1".to_owned(),
        account: "123456789012".to_owned(),
        compat: Compat::default(),
        endpoint: "localhost".to_owned(),
        record_changes: true,
    }
}

pub fn arn(resource: &str) -> String {
    format!("arn:aws:iot:us-east-1:123456789012:{resource}")
}

pub struct Cloud {
    pub engine: Engine,
    pub now: Time,
}

impl Cloud {
    pub fn new() -> Cloud {
        Cloud::with(settings())
    }

    pub fn with(settings: Settings) -> Cloud {
        Cloud { engine: Engine::new(settings, Arc::new(Bucket)), now: Time::from_secs(START) }
    }

    pub fn compat(assignments: &[&str]) -> Cloud {
        let mut settings = settings();
        assignments.iter().for_each(|assignment| settings.compat.set(assignment).unwrap());
        Cloud::with(settings)
    }

    /// The clock is now `secs` after its start; timers have fired on the way.
    pub fn at(&mut self, secs: i64) {
        self.now = Time::from_secs(START + secs);
        self.engine.fire_due(self.now);
    }

    pub fn call(&mut self, op: &str, params: Value, body: Value) -> Result<Value, ApiError> {
        self.engine.control(self.now, &request(op, &params, body))
    }

    /// A call that must be accepted.
    pub fn ok(&mut self, op: &str, params: Value, body: Value) -> Value {
        self.call(op, params.clone(), body.clone())
            .unwrap_or_else(|error| panic!("{op} {params} {body}: {error}"))
    }

    /// A call that must be refused: its type.
    pub fn err(&mut self, op: &str, params: Value, body: Value) -> &'static str {
        match self.call(op, params.clone(), body.clone()) {
            Err(error) => error.kind,
            Ok(answer) => panic!("{op} {params} {body} was accepted: {answer}"),
        }
    }

    pub fn thing(&mut self, name: &str) {
        self.ok("CreateThing", json!({"thingName": name}), Value::Null);
    }

    /// A job for these resources, with further members.
    pub fn job(&mut self, id: &str, targets: &[&str], more: Value) {
        let body = job_body(targets, more);
        self.ok("CreateJob", json!({"jobId": id}), body);
    }

    /// The device publishes; the payloads of the answer and of all that follows from it.
    pub fn device(&mut self, thing: &str, topic: &str, payload: Value) -> Vec<(String, Value)> {
        self.drain();
        let topic = format!("$aws/things/{thing}/jobs/{topic}");
        self.engine.device(self.now, thing, Some(1), &topic, payload.to_string().as_bytes());
        self.drain()
    }

    /// The answer alone.
    pub fn answer(&mut self, thing: &str, topic: &str, payload: Value) -> Value {
        self.device(thing, topic, payload).swap_remove(0).1
    }

    /// What the service has sent, topics without `$aws/things/`.
    pub fn drain(&mut self) -> Vec<(String, Value)> {
        let plain = |output| match output {
            Output::Answer { topic, payload, .. } | Output::Publish { topic, payload } => (topic, payload),
        };
        let short = |(topic, payload): (String, Value)| {
            (topic.strip_prefix("$aws/things/").unwrap_or(&topic).to_owned(), payload)
        };
        self.engine.take_outputs().into_iter().map(plain).map(short).collect()
    }

    /// The topics of what the service has sent to devices.
    pub fn topics(&mut self) -> Vec<String> {
        self.drain()
            .into_iter()
            .map(|(topic, _)| topic)
            .filter(|topic| !topic.starts_with("$aws/events"))
            .collect()
    }

    /// The topics of events.
    pub fn events(&mut self) -> Vec<String> {
        let events = self.drain().into_iter().map(|(topic, _)| topic);
        events.filter_map(|topic| topic.strip_prefix("$aws/events/").map(str::to_owned)).collect()
    }

    pub fn describe_job(&mut self, id: &str) -> Value {
        self.ok("DescribeJob", json!({"jobId": id}), Value::Null)["job"].clone()
    }

    pub fn execution(&mut self, job: &str, thing: &str) -> Value {
        self.ok("DescribeJobExecution", json!({"jobId": job, "thingName": thing}), Value::Null)["execution"]
            .clone()
    }
}

pub fn job_body(targets: &[&str], more: Value) -> Value {
    let targets: Vec<String> = targets.iter().map(|target| arn(target)).collect();
    let mut body = json!({"targets": targets, "document": DOCUMENT});
    let Value::Object(more) = more else { panic!("{more}") };
    body.as_object_mut().unwrap().extend(more);
    body
}

pub fn request(op: &str, params: &Value, body: Value) -> Request {
    let params = params.as_object().cloned().unwrap_or_default();
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let params = params.into_iter().map(|(name, value)| (name, text(value))).collect();
    Request { op: op.to_owned(), params, body }
}

/// Whether `found` is what a vector expects: everything in `expected`, and nothing else unless `subset`.
pub fn matches(expected: &Value, found: &Value, now: i64, subset: bool) -> Result<(), String> {
    match (expected, found) {
        (Value::String(matcher), _) if matcher.starts_with('$') => {
            let fits = match matcher.as_str() {
                "$now" => found.as_i64() == Some(now),
                "$int" => found.is_i64() || found.is_u64(),
                "$str" => found.is_string(),
                "$any" => true,
                _ => found.as_str() == Some(matcher),
            };
            if fits { Ok(()) } else { Err(format!("expected {matcher}, found {found}")) }
        }
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                let (key, optional) = key.strip_suffix('?').map_or((key.as_str(), false), |key| (key, true));
                match found.get(key) {
                    None if optional => {}
                    None => return Err(format!("{key} is missing in {found:?}")),
                    Some(found) => {
                        matches(value, found, now, subset).map_err(|error| format!("{key}: {error}"))?;
                    }
                }
            }
            let listed =
                |key: &String| expected.contains_key(key) || expected.contains_key(&format!("{key}?"));
            match found.keys().find(|key| !listed(key)) {
                Some(key) if !subset => Err(format!("{key} should be absent")),
                _ => Ok(()),
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            if expected.len() != found.len() {
                return Err(format!("expected {} entries, found {found:?}", expected.len()));
            }
            let mut pairs = expected.iter().zip(found);
            pairs.try_for_each(|(expected, found)| matches(expected, found, now, subset))
        }
        _ if expected == found => Ok(()),
        _ => Err(format!("expected {expected}, found {found}")),
    }
}
