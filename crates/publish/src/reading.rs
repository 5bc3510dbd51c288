//! One line of a local program, understood or refused.

use serde_json::{Map, Value};

/// A longer line is nobody's reading. It bounds what a client can make the agent hold.
pub const MAX_LINE: usize = 16 * 1024;
/// AWS's limits, in bytes and in slashes.
const MAX_TOPIC: usize = 256;
const MAX_SLASHES: usize = 7;

/// What is to be published where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub topic: String,
    /// JSON, in one line.
    pub payload: String,
}

/// Where local programs may publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Each ends with `/`, so that `dt/pump-1/` does not allow `dt/pump-10/…`.
    pub prefixes: Vec<String>,
    /// What is appended to the topic of a batch that is compressed.
    pub suffix: String,
}

/// Why a line is not taken. Its `code` is public API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a line has more than {MAX_LINE} bytes")]
    LineTooLong,
    #[error("not JSON: {0}")]
    NotJson(String),
    #[error("expected {{\"topic\": \"…\", \"payload\": …}} and nothing else: {0}")]
    NotAReading(&'static str),
    #[error("the topic {0}")]
    Topic(#[from] TopicProblem),
    #[error("the topic begins with none of {}", .0.join(", "))]
    TopicNotAllowed(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicProblem {
    #[error("begins with `$`, which is AWS's")]
    Reserved,
    #[error("has a `+`, `#` or control character")]
    Character,
    #[error("is longer than {MAX_TOPIC} bytes")]
    TooLong,
    #[error("has more than {MAX_SLASHES} slashes")]
    TooDeep,
    #[error("does not end with a slash, and so would allow other names that begin alike")]
    OpenEnd,
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::LineTooLong => "line-too-long",
            Self::NotJson(_) => "not-json",
            Self::NotAReading(_) => "not-a-reading",
            Self::Topic(_) => "invalid-topic",
            Self::TopicNotAllowed(_) => "topic-not-allowed",
        }
    }
}

impl Rules {
    pub fn read(&self, line: &[u8]) -> Result<Reading, Refusal> {
        if line.len() > MAX_LINE {
            return Err(Refusal::LineTooLong);
        }
        let mut members: Map<String, Value> = match serde_json::from_slice(line) {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err(Refusal::NotAReading("it is no object")),
            Err(error) => return Err(Refusal::NotJson(error.to_string())),
        };
        let Some(Value::String(topic)) = members.remove("topic") else {
            return Err(Refusal::NotAReading("`topic` is no string"));
        };
        let Some(payload) = members.remove("payload") else {
            return Err(Refusal::NotAReading("there is no `payload`"));
        };
        // A member that is not understood may have been meant to change what happens.
        if !members.is_empty() {
            return Err(Refusal::NotAReading("there is another member"));
        }
        check_topic(&topic, &self.suffix)?;
        if !self.prefixes.iter().any(|prefix| topic.len() > prefix.len() && topic.starts_with(prefix)) {
            return Err(Refusal::TopicNotAllowed(self.prefixes.clone()));
        }
        Ok(Reading { topic, payload: payload.to_string() })
    }
}

/// Can this be an allowed prefix?
pub fn check_prefix(prefix: &str) -> Result<(), TopicProblem> {
    check_topic(prefix, "")?;
    if prefix.ends_with('/') { Ok(()) } else { Err(TopicProblem::OpenEnd) }
}

fn check_topic(topic: &str, suffix: &str) -> Result<(), TopicProblem> {
    let slashes = |text: &str| text.matches('/').count();
    if topic.starts_with('$') {
        Err(TopicProblem::Reserved)
    } else if topic.contains(|c: char| c == '+' || c == '#' || c.is_control()) {
        Err(TopicProblem::Character)
    } else if topic.len() + suffix.len() > MAX_TOPIC {
        Err(TopicProblem::TooLong)
    } else if slashes(topic) + slashes(suffix) > MAX_SLASHES {
        Err(TopicProblem::TooDeep)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules { prefixes: vec!["dt/pump-1/".to_owned(), "alarms/".to_owned()], suffix: "/gzip".to_owned() }
    }

    #[test]
    fn a_line_is_a_reading_or_is_refused_with_a_code() {
        let long = format!(r#"{{"topic":"alarms/{}","payload":1}}"#, "x".repeat(250));
        let deep = r#"{"topic":"alarms/1/2/3/4/5/6/7","payload":1}"#;
        let many = "x".repeat(MAX_LINE + 1);
        let cases = [
            (
                r#"{"topic":"alarms/heat","payload":{"b": 2, "a": [1.50, null]}}"#,
                Ok(r#"{"a":[1.5,null],"b":2}"#),
            ),
            (r#" {"payload":"Zeile\n2","topic":"dt/pump-1/text"} "#, Ok(r#""Zeile\n2""#)),
            (r#"{"topic":"alarms/heat","payload":null}"#, Ok("null")),
            ("", Err("not-json")),
            ("{", Err("not-json")),
            (r#"{"topic":"alarms/a","payload":1}{"#, Err("not-json")),
            ("[]", Err("not-a-reading")),
            (r#"{"topic":7,"payload":1}"#, Err("not-a-reading")),
            (r#"{"topic":"alarms/heat"}"#, Err("not-a-reading")),
            (r#"{"topic":"alarms/heat","payload":1,"qos":1}"#, Err("not-a-reading")),
            (r#"{"topic":"$aws/things/pump-1/jobs/x/update","payload":{}}"#, Err("invalid-topic")),
            (r#"{"topic":"alarms/+","payload":1}"#, Err("invalid-topic")),
            (r#"{"topic":"alarms/\u0000","payload":1}"#, Err("invalid-topic")),
            (&long, Err("invalid-topic")),
            (deep, Err("invalid-topic")),
            (r#"{"topic":"alarms/","payload":1}"#, Err("topic-not-allowed")),
            (r#"{"topic":"dt/pump-10/x","payload":1}"#, Err("topic-not-allowed")),
            (r#"{"topic":"other","payload":1}"#, Err("topic-not-allowed")),
            (&many, Err("line-too-long")),
        ];
        for (line, expected) in cases {
            let found = rules().read(line.as_bytes());
            let found = found.as_ref().map(|r| r.payload.as_str()).map_err(Refusal::code);
            assert_eq!(found, expected, "{line:.80}");
        }
        assert!(rules().read(b"\xff\xfe").is_err());
    }

    #[test]
    fn a_prefix_ends_where_a_name_ends() {
        let cases = [
            ("dt/pump-1/", Ok(())),
            ("dt/pump-1", Err(TopicProblem::OpenEnd)),
            ("", Err(TopicProblem::OpenEnd)),
            ("$aws/things/", Err(TopicProblem::Reserved)),
            ("dt/#/", Err(TopicProblem::Character)),
            ("1/2/3/4/5/6/7/8/", Err(TopicProblem::TooDeep)),
        ];
        for (prefix, expected) in cases {
            assert_eq!(check_prefix(prefix), expected, "{prefix}");
        }
    }
}
