//! A device's request: which operation its topic means, and whether its members keep the rules.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::compat::Compat;
use super::errors::{Code, Rejection, Violation};
use super::model::Status;
use super::names::Named;
use super::validate::{DETAIL_KEY, Input, JOB_ID, Text, broken};

/// Most minutes of a step timer.
const MOST_MINUTES: i64 = 10080;
const MOST_DETAILS: usize = 10;

/// An operation, by topic or by path.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation<'a> {
    GetPending,
    StartNext,
    Describe(&'a str),
    Update(&'a str),
}

impl<'a> Operation<'a> {
    /// By position, because `get` and `start-next` are job ids too. None: the topic is no operation.
    pub fn of_topic(thing: &str, topic: &'a str) -> Option<Operation<'a>> {
        let rest = topic.strip_prefix("$aws/things/")?.strip_prefix(thing)?.strip_prefix("/jobs/")?;
        let levels: Vec<&str> = rest.split('/').collect();
        match levels.as_slice() {
            ["get"] => Some(Operation::GetPending),
            ["start-next"] => Some(Operation::StartNext),
            [job, "get"] => Some(Operation::Describe(job)),
            [job, "update"] => Some(Operation::Update(job)),
            _ => None,
        }
    }
}

/// A request that keeps the rules.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    GetPending,
    StartNext {
        details: Option<BTreeMap<String, String>>,
        step: Option<i64>,
    },
    /// No job: `$next`.
    Describe {
        job: Option<String>,
        number: Option<i64>,
        document: bool,
    },
    Update(Update),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub job: String,
    pub status: Status,
    pub details: Option<BTreeMap<String, String>>,
    pub expected_version: Option<i64>,
    pub number: Option<i64>,
    pub step: Option<i64>,
    pub show_state: bool,
    pub show_document: bool,
}

/// The members of a payload. Nothing at all is an object without members.
pub fn members(payload: &[u8]) -> Result<Map<String, Value>, Rejection> {
    if payload.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Rejection::new(Code::InvalidJson, "The payload must be a JSON object")),
        Err(error) => {
            Err(Rejection::new(Code::InvalidJson, format!("The payload is not valid JSON: {error}")))
        }
    }
}

pub fn call(operation: &Operation, input: &Input, compat: &Compat) -> Result<Call, Violation> {
    if compat.client_token_max > 0 {
        input.text("clientToken", &Text::any(0..=compat.client_token_max as usize))?;
    } else {
        input.text("clientToken", &Text::any(0..=usize::MAX))?;
    }
    match operation {
        Operation::GetPending => Ok(Call::GetPending),
        Operation::StartNext => Ok(Call::StartNext {
            details: details(input, compat)?,
            step: input.integer("stepTimeoutInMinutes", 1..=MOST_MINUTES)?,
        }),
        Operation::Describe(job) => {
            let next = *job == "$next";
            if !next {
                JOB_ID.check("jobId", job)?;
            }
            Ok(Call::Describe {
                job: (!next).then(|| (*job).to_owned()),
                number: input.integer("executionNumber", i64::MIN..=i64::MAX)?,
                document: input.flag("includeJobDocument")?.unwrap_or(true),
            })
        }
        Operation::Update(job) => {
            JOB_ID.check("jobId", job)?;
            let status = input.need("status", input.choice::<Status>("status")?)?;
            if matches!(status, Status::Canceled | Status::TimedOut | Status::Removed) {
                let rule = "satisfy enum value set: [IN_PROGRESS, SUCCEEDED, FAILED, REJECTED]";
                return Err(broken("status", status.name(), rule));
            }
            let step = input.integer("stepTimeoutInMinutes", -1..=MOST_MINUTES)?;
            if step == Some(0) {
                return Err(broken(
                    "stepTimeoutInMinutes",
                    "0",
                    "have value greater than or equal to 1, or be -1",
                ));
            }
            Ok(Call::Update(Update {
                job: (*job).to_owned(),
                status,
                details: details(input, compat)?,
                expected_version: expected_version(input)?,
                number: input.integer("executionNumber", i64::MIN..=i64::MAX)?,
                step,
                show_state: input.flag("includeJobExecutionState")?.unwrap_or(false),
                show_document: input.flag("includeJobDocument")?.unwrap_or(false),
            }))
        }
    }
}

/// `statusDetails`, as devices and operators send them.
pub fn details(input: &Input, compat: &Compat) -> Result<Option<BTreeMap<String, String>>, Violation> {
    let length = 1..=compat.status_details_value_max as usize;
    if compat.status_details_strict.on() {
        input.map("statusDetails", &DETAIL_KEY, &Text::printable(length), MOST_DETAILS)
    } else {
        input.map("statusDetails", &DETAIL_KEY, &Text::any(length), usize::MAX)
    }
}

/// An integer, or the same as a decimal string: AWS's embedded SDK sends a string.
fn expected_version(input: &Input) -> Result<Option<i64>, Violation> {
    if let Ok(Some(text)) = input.text("expectedVersion", &Text::any(0..=usize::MAX)) {
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let decimal = digits.chars().all(|c| c.is_ascii_digit());
        let number = text.parse().ok().filter(|_| decimal);
        return number.ok_or_else(|| broken("expectedVersion", &text, "be an integer")).map(Some);
    }
    input.integer("expectedVersion", i64::MIN..=i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(operation: Operation, body: Value) -> Result<Call, String> {
        let body = body.as_object().unwrap().clone();
        call(&operation, &Input::object(&body), &Compat::default()).map_err(|Violation(message)| message)
    }

    fn update(body: Value) -> Result<Update, String> {
        match read(Operation::Update("job1"), body)? {
            Call::Update(update) => Ok(update),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn topics_by_position() {
        let of = |topic| Operation::of_topic("edge-01", topic);
        assert_eq!(of("$aws/things/edge-01/jobs/get"), Some(Operation::GetPending));
        assert_eq!(of("$aws/things/edge-01/jobs/get/get"), Some(Operation::Describe("get")));
        assert_eq!(of("$aws/things/edge-01/jobs/start-next/update"), Some(Operation::Update("start-next")));
        assert_eq!(of("$aws/things/edge-01/jobs/$next/get"), Some(Operation::Describe("$next")));
        for topic in
            ["notify", "notify-next", "get/accepted", "a/b/c", "", "job1", "job1/get/accepted", "a/update/"]
        {
            let topic = format!("$aws/things/edge-01/jobs/{topic}");
            assert_eq!(Operation::of_topic("edge-01", &topic), None, "{topic}");
        }
        assert_eq!(of("$aws/things/edge-011/jobs/get"), None);
    }

    #[test]
    fn the_sentence_for_a_missing_status_is_as_captured() {
        let message = "Value null at 'status' failed to satisfy constraint: Member must not be null";
        assert_eq!(update(json!({})).unwrap_err(), message);
        assert_eq!(update(json!({"status": null})).unwrap_err(), message);
    }

    #[test]
    fn expected_version_is_a_number_in_either_form() {
        let version = |value: Value| {
            update(json!({"status": "FAILED", "expectedVersion": value})).map(|u| u.expected_version)
        };
        assert_eq!(version(json!(7)), Ok(Some(7)));
        assert_eq!(version(json!(7.0)), Ok(Some(7)));
        assert_eq!(version(json!("7")), Ok(Some(7)));
        assert_eq!(version(json!("-1")), Ok(Some(-1)));
        assert_eq!(version(Value::Null), Ok(None));
        for wrong in [
            json!("seven"),
            json!("7.0"),
            json!("+7"),
            json!(""),
            json!("-"),
            json!(7.5),
            json!(true),
            json!([7]),
            json!("99999999999999999999"),
        ] {
            assert!(version(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn members_of_the_wrong_kind_are_named() {
        for (body, member) in [
            (json!({"status": 5}), "status"),
            (json!({"status": "DONE"}), "status"),
            (json!({"status": "REMOVED"}), "status"),
            (json!({"status": "FAILED", "statusDetails": []}), "statusDetails"),
            (json!({"status": "FAILED", "statusDetails": {"k": 1}}), "statusDetails.k"),
            (json!({"status": "FAILED", "statusDetails": {"k": ""}}), "statusDetails.k"),
            (json!({"status": "FAILED", "statusDetails": {"": "v"}}), "statusDetails.key"),
            (json!({"status": "FAILED", "statusDetails": {"k": "\u{7f}"}}), "statusDetails.k"),
            (json!({"status": "FAILED", "includeJobDocument": "true"}), "includeJobDocument"),
            (json!({"status": "FAILED", "stepTimeoutInMinutes": 0}), "stepTimeoutInMinutes"),
            (json!({"status": "FAILED", "stepTimeoutInMinutes": -2}), "stepTimeoutInMinutes"),
            (json!({"status": "FAILED", "stepTimeoutInMinutes": 10081}), "stepTimeoutInMinutes"),
            (json!({"status": "FAILED", "executionNumber": "x"}), "executionNumber"),
            (json!({"status": "FAILED", "clientToken": 1}), "clientToken"),
        ] {
            let message = update(body.clone()).unwrap_err();
            assert!(message.contains(&format!("'{member}'")), "{body}: {message}");
        }
        assert!(read(Operation::StartNext, json!({"stepTimeoutInMinutes": -1})).is_err());
        assert!(read(Operation::StartNext, json!({"stepTimeoutInMinutes": 10080})).is_ok());
        assert!(
            read(Operation::Update("$next"), json!({"status": "FAILED"})).unwrap_err().contains("'jobId'")
        );
        assert!(read(Operation::Describe("a.b"), json!({})).is_err());
    }

    #[test]
    fn payloads() {
        assert_eq!(members(b"").unwrap(), Map::new());
        for wrong in [&b"{"[..], b"[]", b"1", b"\"x\"", b"null", b"\xff\xfe", b"{} {}", b" "] {
            assert_eq!(members(wrong).unwrap_err().code, Code::InvalidJson, "{wrong:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(members(deep.as_bytes()).unwrap_err().code, Code::InvalidJson);
    }
}
