//! One file, and the shadow that says what is to be in it.

use std::collections::BTreeMap;
use std::time::Instant;

use ::shadow::{Members, Session};
use dispatcher::{ExecutionId, Mode, Operation, Outcome, UpdateConfig};
use downloader::Digest;
use serde_json::Value;

use super::memory::{Memory, Refusal};
use crate::config::ShadowFile;

/// The member of what is reported that says why what is desired is not in force. No file has it.
const REFUSED: &str = "_refused";

pub struct Follower {
    pub file: ShadowFile,
    pub session: Session,
    /// All of it, once it is known.
    desired: Option<Members>,
    /// What is in force may be something else than was reported.
    pub look: bool,
}

/// What is to be done about what is desired.
pub enum Wish {
    Nothing,
    Apply(ExecutionId, Operation),
    Refuse(ExecutionId, Outcome),
}

impl Follower {
    pub fn new(file: ShadowFile, session: Session) -> Self {
        Self { file, session, desired: None, look: true }
    }

    pub fn name(&self) -> &str {
        &self.file.shadow
    }

    pub fn desires(&mut self, desired: Members, memory: &mut Memory) {
        tracing::info!(shadow = self.name(), members = desired.len(), "what is desired is known");
        if desired.is_empty() {
            // The same may be desired again some day, and is then another wish.
            memory.forget(&self.file.shadow);
            self.look = true;
        }
        self.desired = Some(desired);
    }

    /// What is desired goes into force once. What was refused, and what somebody has edited since, is left alone until
    /// something else is desired.
    pub fn wish(&self, memory: &Memory) -> Wish {
        let Some(desired) = self.desired.as_ref().filter(|desired| !desired.is_empty()) else {
            return Wish::Nothing;
        };
        let number = number(desired);
        if memory.of(self.name()).is_some_and(|handled| handled.desired == number) {
            return Wish::Nothing;
        }
        let id = ExecutionId::of_shadow(self.name(), number);
        if desired.contains_key(REFUSED) {
            let message = format!("/{REFUSED}: this is where it is said why something is not in force");
            return Wish::Refuse(id, Outcome::rejected("config-invalid", message));
        }
        // What could not be reported could never be seen to be in force.
        if let Err(unfit) = self.session.fits(desired) {
            return Wish::Refuse(id, Outcome::rejected("shadow-unfit", unfit.to_string()));
        }
        let file = self.file.file.clone();
        let update = UpdateConfig { file, config: desired.clone(), mode: Mode::Replace };
        Wish::Apply(id, Operation::UpdateConfig(update))
    }

    /// What is in force, and why it is not what is desired.
    pub fn report(&mut self, now: Instant, found: Result<Option<Value>, String>, refused: Option<&Refusal>) {
        let mut is = match found {
            Ok(Some(Value::Object(members))) => members,
            Ok(None) => Members::new(),
            Ok(Some(_)) => {
                tracing::warn!(shadow = self.name(), "what is in force is no object, and cannot be reported");
                Members::new()
            }
            Err(error) => {
                tracing::warn!(shadow = self.name(), error, "what is in force cannot be read");
                Members::new()
            }
        };
        is.remove(REFUSED);
        let mut why = refused.map(Refusal::said);
        if let Err(unfit) = self.session.fits(&with(&is, why.clone())) {
            // The reason is more important than what it leaves in force.
            why = why
                .or_else(|| Some(Refusal::new(&Outcome::failed("shadow-unfit", unfit.to_string())).said()));
            is.clear();
        }
        self.session.report(now, &with(&is, why));
    }
}

fn with(is: &Members, why: Option<Value>) -> Members {
    let mut is = is.clone();
    is.extend(why.map(|why| (REFUSED.to_owned(), why)));
    is
}

/// Known by its content, however its members are ordered.
fn number(desired: &Members) -> u64 {
    let digest = Digest::of_bytes(sorted(&Value::Object(desired.clone())).as_bytes()).to_string();
    let digits = digest.rsplit(':').next().and_then(|digits| digits.get(..16));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().map(|(key, value)| (key, sorted(value))).collect();
            let member = |(key, value): (&String, String)| format!("{}:{value}", Value::from(key.as_str()));
            format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wish_is_known_by_what_it_says_and_not_by_how() {
        let of = |text: &str| number(&serde_json::from_str::<Members>(text).unwrap());
        assert_eq!(of(r#"{"a": {"x": 1, "y": [1, 2]}, "b": 2}"#), of(r#"{"b":2,"a":{"y":[1,2],"x":1}}"#));
        for other in [r#"{"a":1}"#, r#"{"a":"1"}"#, r#"{"a":[1]}"#, r#"{"b":1}"#, r#"{"a":{"b":1}}"#] {
            assert!(of(other) != of(r#"{"a":2}"#), "{other}");
        }
        assert_eq!(sorted(&json!({"b": "\"", "a": null})), r#"{"a":null,"b":"\""}"#);
    }
}
