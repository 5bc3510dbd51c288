//! What is signed. Everything in here is about one file and the devices that it is for.

use serde::{Deserialize, Serialize};

use crate::envelope::PAYLOAD_TYPE;
use crate::{AgentVersion, Refusal, Timestamp};

/// Raised when the meaning of a member changes. Another format is refused, never guessed at.
const FORMAT: u32 = 1;
/// The largest number that every JSON tool reads exactly. A sequence beyond it would end all updates for good.
const MAX_SEQUENCE: u64 = (1 << 53) - 1;
const MAX_NAMES: usize = 64;
const MAX_CHARACTERS: usize = 128;

/// Members that are not known are refused: an older agent must not pass over a condition that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Of this payload.
    pub format: u32,
    /// Of the file, as it is fetched.
    #[serde(with = "hex::serde")]
    pub sha256: [u8; 32],
    /// Bytes of the file, as it is fetched.
    pub length: u64,
    pub version: String,
    /// Never falls from one release to the next: what the floor against rollbacks is made of.
    pub sequence: u64,
    /// The hardware that this is for. One of these names must be one of the device's.
    pub compatible: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_agent_version: Option<AgentVersion>,
    /// How the file is compressed; a device that is told otherwise by the job does not install it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// The permit to go back: a device takes this release although its floor is above `sequence`, as long as the floor
    /// is not above this. Any later release voids it, because a floor never falls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit_floor: Option<u64>,
}

impl Statement {
    /// The necessary members. The others are added by name.
    pub fn new(sha256: [u8; 32], length: u64, version: &str, sequence: u64, compatible: &[String]) -> Self {
        Self {
            format: FORMAT,
            sha256,
            length,
            version: version.to_owned(),
            sequence,
            compatible: compatible.to_vec(),
            expires: None,
            min_agent_version: None,
            compression: None,
            permit_floor: None,
        }
    }

    pub(crate) fn parse(payload_type: &str, payload: &[u8]) -> Result<Self, Refusal> {
        if payload_type != PAYLOAD_TYPE {
            let found: String = payload_type.chars().take(MAX_CHARACTERS).collect();
            return Err(Refusal::Invalid(format!(
                "its payload type is {found:?}, expected {PAYLOAD_TYPE:?}"
            )));
        }
        // serde takes an array for a struct, too, and nobody means that.
        if !payload.trim_ascii_start().starts_with(b"{") {
            return Err(Refusal::Invalid("its payload is not a JSON object".to_owned()));
        }
        let statement: Self = serde_json::from_slice(payload)
            .map_err(|error| Refusal::Invalid(error.to_string().chars().take(300).collect()))?;
        statement.check()?;
        Ok(statement)
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, Refusal> {
        self.check()?;
        serde_json::to_vec(self).map_err(|error| Refusal::Invalid(error.to_string()))
    }

    fn check(&self) -> Result<(), Refusal> {
        let wrong = |member: &str, expected: &str| {
            Err(Refusal::Invalid(format!("{member} is not usable, expected {expected}")))
        };
        let name = |text: &String| {
            !text.is_empty() && text.chars().count() <= MAX_CHARACTERS && !text.chars().any(char::is_control)
        };
        if self.format != FORMAT {
            return Err(Refusal::Invalid(format!("its format is {}, expected {FORMAT}", self.format)));
        }
        if self.length == 0 {
            return wrong("length", "a number of bytes above zero");
        }
        if !name(&self.version) {
            return wrong("version", "1 to 128 characters without control characters");
        }
        if self.sequence > MAX_SEQUENCE {
            return wrong("sequence", "at most 9007199254740991");
        }
        if self.compatible.is_empty()
            || self.compatible.len() > MAX_NAMES
            || !self.compatible.iter().all(name)
        {
            return wrong("compatible", "1 to 64 names of 1 to 128 characters");
        }
        if self.compression.as_ref().is_some_and(|text| !name(text)) {
            return wrong("compression", "the name of a compression, or no such member");
        }
        if self.permit_floor.is_some_and(|floor| floor <= self.sequence || floor > MAX_SEQUENCE) {
            return wrong("permit_floor", "more than the sequence, and at most 9007199254740991");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "format": 1, "sha256": "ab".repeat(32), "length": 7, "version": "2.0", "sequence": 3,
            "compatible": ["board-1"], "expires": "2030-01-01T00:00:00Z", "min_agent_version": "0.1.0",
            "compression": "zstd", "permit_floor": 9,
        })
    }

    fn parse(text: &str) -> Result<Statement, Refusal> {
        Statement::parse(PAYLOAD_TYPE, text.as_bytes())
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        let statement = parse(&good().to_string()).unwrap();
        let written: Value = serde_json::from_slice(&statement.to_json().unwrap()).unwrap();
        assert_eq!(written, good());
        let upper = good().to_string().replace(&"ab".repeat(32), &"AB".repeat(32));
        assert_eq!(parse(&upper).unwrap(), statement);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let cases = [
            ("format", json!(2), "format is 2"),
            ("format", json!("1"), "invalid type"),
            ("sha256", json!("ab".repeat(31)), "Invalid string length"),
            ("sha256", json!("zz".repeat(32)), "Invalid character"),
            ("length", json!(0), "length is not usable"),
            ("length", json!(-1), "invalid value"),
            ("length", json!(1.5), "invalid type"),
            ("version", json!(""), "version is not usable"),
            ("version", json!("2\n"), "version is not usable"),
            ("version", json!("2".repeat(129)), "version is not usable"),
            ("sequence", json!(1u64 << 53), "sequence is not usable"),
            ("sequence", json!("3"), "invalid type"),
            ("compatible", json!([]), "compatible is not usable"),
            ("compatible", json!([""]), "compatible is not usable"),
            ("compatible", json!(vec!["b"; 65]), "compatible is not usable"),
            ("compatible", json!("board-1"), "invalid type"),
            ("expires", json!("tomorrow"), "expected a time like"),
            ("min_agent_version", json!("one"), "expected a version like"),
            ("compression", json!(""), "compression is not usable"),
            ("permit_floor", json!(3), "permit_floor is not usable"),
            ("permit_floor", json!(1u64 << 53), "permit_floor is not usable"),
            ("only_on_sundays", json!(true), "unknown field `only_on_sundays`"),
        ];
        for (member, value, expected) in cases {
            let mut statement = good();
            statement[member] = value;
            let error = parse(&statement.to_string()).unwrap_err();
            assert_eq!(error.reason(), "release-invalid");
            assert!(error.to_string().contains(expected), "{error}, expected {expected}");
        }
        for member in ["format", "sha256", "length", "version", "sequence", "compatible"] {
            let mut statement = good();
            statement.as_object_mut().unwrap().remove(member);
            assert!(parse(&statement.to_string()).unwrap_err().to_string().contains(member));
        }
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused() {
        let twice = good().to_string().replacen('{', r#"{"sequence": 4, "#, 1);
        assert!(parse(&twice).unwrap_err().to_string().contains("duplicate field `sequence`"));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        let fields = format!(r#"[1, "{}", 7, "2.0", 3, ["b"]]"#, "ab".repeat(32));
        for text in ["", "null", "{", &fields, &format!("{} {{}}", good())] {
            assert_eq!(parse(text).unwrap_err().reason(), "release-invalid", "{text}");
        }
        let other = Statement::parse("application/json", good().to_string().as_bytes()).unwrap_err();
        assert!(other.to_string().contains("application/json"), "{other}");
    }
}
