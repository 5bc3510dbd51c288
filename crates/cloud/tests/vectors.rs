//! The contract's vectors of kind sequence, and ours in the same grammar, replayed over the control plane and the administration.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use serde_json::{Value, json};
use support::operations::encoded;
use support::{Cloud, EPOCH, vectors};

/// Cases that are believed to be wrong, each with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[];

#[test]
fn lifecycle() {
    replay("jobs-lifecycle.json");
}

#[test]
fn errors() {
    replay("jobs-errors.json");
}

#[test]
fn control() {
    replay("jobs-control.json");
}

#[test]
fn timers_retries_rollout() {
    replay("jobs-timers-retries-rollout.json");
}

#[test]
fn own_device_plane() {
    replay("own-device-plane.json");
}

#[test]
fn own_control_plane() {
    replay("own-control-plane.json");
}

#[test]
fn shadows() {
    replay("shadow.json");
}

#[test]
fn own_shadows() {
    replay("own-shadow.json");
}

/// The same conversations, with everything that is asked of a shadow sent over HTTPS: the answer is what would have come
/// over MQTT, a refusal too, and what an update says to everybody is the same.
#[test]
fn shadows_over_https() {
    for file in ["shadow.json", "own-shadow.json"] {
        let mut asked = 0;
        for case in &vectors(file) {
            let mut replay = Replay::new();
            replay.over_https = Some(Vec::new());
            let result = replay.run_counting(case["steps"].as_array().unwrap(), &mut asked);
            result.unwrap_or_else(|failure| panic!("{}: {failure}", case["id"]));
        }
        assert!(asked > 30, "{file}: {asked}");
    }
}

fn replay(file: &str) {
    let cases = vectors(file);
    assert!(!cases.is_empty());
    let mut failures = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let result = Replay::new().run(case["steps"].as_array().unwrap());
        let expected = EXCEPTIONS.iter().find(|(exception, _)| *exception == id);
        match (result, expected) {
            (Ok(()), Some(_)) => failures.push(format!("{id}: passes, and is no exception any more")),
            (Err(failure), None) => failures.push(format!("{id}: {failure}")),
            _ => {}
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// One conversation with a cloud of its own.
struct Replay {
    cloud: Cloud,
    now: i64,
    seen: u64,
    /// Not yet asked for: messages to devices, topics of events.
    service: Vec<Value>,
    events: Vec<String>,
    /// Answers that came over HTTPS instead of as messages, where shadows are asked that way.
    over_https: Option<Vec<Value>>,
}

impl Replay {
    fn new() -> Replay {
        let cloud = Cloud::manual(&[]);
        Replay { cloud, now: EPOCH, seen: 0, service: Vec::new(), events: Vec::new(), over_https: None }
    }

    fn run(self, steps: &[Value]) -> Result<(), String> {
        self.run_counting(steps, &mut 0)
    }

    fn run_counting(mut self, steps: &[Value], asked: &mut usize) -> Result<(), String> {
        for (at, step) in steps.iter().enumerate() {
            let topic = step["publish"]["topic"].as_str().unwrap_or_default();
            let shadow = topic.contains("/shadow/") && self.over_https.is_some();
            if shadow {
                *asked += 1;
                self.ask_shadow(&step["publish"]);
                continue;
            }
            self.step(step).map_err(|failure| format!("step {at}: {failure}"))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Value) -> Result<(), String> {
        if let Some(at) = step["at"].as_i64() {
            self.now = at;
            self.cloud.admin("POST", "clock", Some(json!({"at": at})));
        } else if let Some(seconds) = step["advance"].as_i64() {
            self.now += seconds;
            self.cloud.advance(seconds);
        } else if step.get("control").is_some() {
            return self.control(&step["control"], &step["expect"]);
        } else if let Some(thing) = step["device"].as_str() {
            let mut publish = step["publish"].clone();
            publish["thing"] = thing.into();
            self.cloud.admin("POST", "publish", Some(publish));
        } else if let Some(expected) = step["service"].as_array() {
            self.collect();
            let ordered = step["ordered"] != json!(false);
            let found = std::mem::take(&mut self.service);
            return self.compare(expected, found, ordered);
        } else if let Some(expected) = step["events"].as_array() {
            self.collect();
            let found = std::mem::take(&mut self.events);
            if json!(found) != json!(expected) {
                return Err(format!("events {found:?}, expected {expected:?}"));
            }
        } else {
            return Err(format!("not understood: {step}"));
        }
        Ok(())
    }

    /// An answer that is no message over HTTPS becomes one, to be compared with what would have come over MQTT.
    fn ask_shadow(&mut self, publish: &Value) {
        let topic = publish["topic"].as_str().unwrap();
        let levels: Vec<&str> = topic.split('/').collect();
        let (thing, operation) = (levels[2], *levels.last().unwrap());
        let query = if levels[4] == "name" { format!("?name={}", encoded(levels[5])) } else { String::new() };
        let path = format!("{}/things/{thing}/shadow{query}", self.cloud.api());
        let payload = publish["raw"].as_str().map_or_else(|| publish["payload"].to_string(), str::to_owned);
        let (method, status) = match operation {
            "get" => ("GET", 200),
            "update" => ("POST", 200),
            _ => ("DELETE", 200),
        };
        let answer = support::http(method, &path, &[], payload.as_bytes());
        let mut said = answer.json();
        if answer.status == status {
            // An update and a deletion are heard by everybody: what was answered is among that.
            if operation == "get" {
                self.answered(json!({"topic": format!("{topic}/accepted"), "payload": said}));
            }
            return;
        }
        let members = said.as_object_mut().unwrap();
        members.remove("__type");
        members.insert("code".to_owned(), answer.status.into());
        members.insert("timestamp".to_owned(), self.now.into());
        // HTTPS carries no token of a refused request.
        self.answered(json!({"topic": format!("{topic}/rejected"), "payload": said, "tokenless": true}));
    }

    fn answered(&mut self, message: Value) {
        self.collect();
        self.service.push(message);
    }

    fn control(&self, call: &Value, expect: &Value) -> Result<(), String> {
        let operation = call["op"].as_str().unwrap();
        let answer = self.cloud.control(operation, &call["params"], call.get("body"));
        let expected = expect["http"].as_u64().unwrap_or(200);
        if u64::from(answer.status) != expected {
            return Err(format!("{operation}: {} {}, expected {expected}", answer.status, answer.text()));
        }
        if let Some(kind) = expect["error"].as_str() {
            let found = answer.header("x-amzn-errortype").unwrap_or_default();
            if found.split(':').next() != Some(kind) || answer.json()["__type"] != kind {
                return Err(format!("{operation}: error {found}, expected {kind}"));
            }
        }
        match expect.get("body") {
            Some(body) if !matches(body, &answer.json(), self.now, true) => {
                Err(format!("{operation}: {}, expected {body}", answer.text()))
            }
            _ => Ok(()),
        }
    }

    fn collect(&mut self) {
        for message in self.cloud.messages(&mut self.seen) {
            match message["topic"].as_str().unwrap() {
                event if event.starts_with("$aws/events/") => self.events.push(event.to_owned()),
                topic => self.service.push(json!({"topic": topic, "payload": message["payload"]})),
            }
        }
    }

    fn compare(&self, expected: &[Value], mut found: Vec<Value>, ordered: bool) -> Result<(), String> {
        let failure = format!("sent\n  {}\nexpected\n  {}", lines(&found), lines(expected));
        if expected.len() != found.len() {
            return Err(failure);
        }
        for message in expected {
            let reach = if ordered { 1 } else { found.len() };
            let mut message = message.clone();
            let tokenless = |found: &Value| found["topic"] == message["topic"] && found["tokenless"] == true;
            if let Some(at) = found.iter().position(tokenless) {
                found[at].as_object_mut().unwrap().remove("tokenless");
                if let Some(payload) = message["payload"].as_object_mut() {
                    payload.remove("clientToken");
                }
            }
            let message = &message;
            let at =
                found.iter().take(reach).position(|candidate| matches(message, candidate, self.now, false));
            found.remove(at.ok_or_else(|| failure.clone())?);
        }
        Ok(())
    }
}

fn lines(messages: &[Value]) -> String {
    messages.iter().map(Value::to_string).collect::<Vec<_>>().join("\n  ")
}

/// Whether `found` is as `expected`; a `subset` may have more members.
fn matches(expected: &Value, found: &Value, now: i64, subset: bool) -> bool {
    match (expected, found) {
        (Value::String(matcher), found) => match matcher.as_str() {
            "$now" => found.as_f64() == Some(now as f64) && (subset || found.is_i64()),
            "$int" => found.is_i64(),
            "$str" => found.is_string(),
            "$any" => true,
            text => found == text,
        },
        (Value::Object(expected), Value::Object(found)) => {
            let name = |key: &String| key.strip_suffix('?').unwrap_or(key).to_owned();
            let all_there = expected.iter().all(|(key, value)| match found.get(&name(key)) {
                Some(found) => matches(value, found, now, subset),
                None => key.ends_with('?'),
            });
            let known: Vec<String> = expected.keys().map(name).collect();
            all_there && (subset || found.keys().all(|key| known.contains(key)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected.iter().zip(found).all(|(expected, found)| matches(expected, found, now, subset))
        }
        (Value::Number(expected), Value::Number(found)) => expected.as_f64() == found.as_f64(),
        (expected, found) => expected == found,
    }
}
