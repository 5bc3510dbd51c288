//! A shadow's document: how an update is merged into it, and what differs between its two sections.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

type Members = Map<String, Value>;

/// `desired` or `reported`, with the time of every leaf. Without members there is no section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Section {
    state: Members,
    metadata: Members,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    #[serde(default)]
    desired: Section,
    #[serde(default)]
    reported: Section,
}

/// The `state` of an update: null, or what becomes of each section that it names, of which null removes one.
#[derive(Clone, Debug)]
pub enum Patch {
    Nothing,
    Sections { desired: Option<Option<Members>>, reported: Option<Option<Members>> },
}

impl Patch {
    fn sections(&self) -> [(&'static str, Option<&Option<Members>>); 2] {
        match self {
            Patch::Nothing => [("desired", None), ("reported", None)],
            Patch::Sections { desired, reported } => {
                [("desired", desired.as_ref()), ("reported", reported.as_ref())]
            }
        }
    }

    /// What was asked for, as it was asked for.
    pub fn echo(&self) -> Value {
        self.each(|members| Value::Object(members.clone()), Value::Null)
    }

    /// The time, once for each leaf that was named.
    pub fn stamps(&self, now: i64) -> Value {
        self.each(|members| stamps_of(members, now).into(), stamp(now))
    }

    fn each(&self, some: impl Fn(&Members) -> Value, none: Value) -> Value {
        if matches!(self, Patch::Nothing) {
            return none;
        }
        let named = self.sections().into_iter().filter_map(|(name, section)| Some((name, section?)));
        let shown =
            named.map(|(name, section)| (name.to_owned(), section.as_ref().map_or(none.clone(), &some)));
        Value::Object(shown.collect())
    }
}

impl Document {
    pub fn merge(&mut self, patch: &Patch, now: i64, empty_objects_stay: bool) {
        if matches!(patch, Patch::Nothing) {
            *self = Document::default();
        }
        let sections = [&mut self.desired, &mut self.reported];
        for (section, (_, patch)) in sections.into_iter().zip(patch.sections()) {
            match patch {
                None => {}
                Some(None) => *section = Section::default(),
                Some(Some(patch)) => {
                    merge(&mut section.state, &mut section.metadata, patch, now, empty_objects_stay);
                }
            }
        }
    }

    /// What counts against the limit.
    pub fn bytes(&self) -> usize {
        self.state().to_string().len()
    }

    fn state(&self) -> Value {
        self.shown_of(|section| &section.state)
    }

    fn shown_of(&self, part: impl Fn(&Section) -> &Members) -> Value {
        let sections = [("desired", &self.desired), ("reported", &self.reported)];
        let there = sections.into_iter().filter(|(_, section)| !section.state.is_empty());
        Value::Object(there.map(|(name, section)| (name.to_owned(), part(section).clone().into())).collect())
    }

    /// `state` and `metadata` with the delta, as a get shows them.
    pub fn shown(&self) -> Members {
        let (mut state, mut metadata) = (self.state(), self.shown_of(|section| &section.metadata));
        if let (Some((differs, since)), Some(state), Some(metadata)) =
            (self.delta(), state.as_object_mut(), metadata.as_object_mut())
        {
            state.insert("delta".to_owned(), differs.into());
            metadata.insert("delta".to_owned(), since.into());
        }
        Map::from_iter([("state".to_owned(), state), ("metadata".to_owned(), metadata)])
    }

    /// `state`, `metadata` and `version` without the delta, as `documents` shows them.
    pub fn versioned(&self, version: u64) -> Value {
        json!({"state": self.state(), "metadata": self.shown_of(|section| &section.metadata), "version": version})
    }

    /// What is desired and not so reported, with the times at which it was desired.
    pub fn delta(&self) -> Option<(Members, Members)> {
        differences(&self.desired.state, &self.desired.metadata, &self.reported.state)
    }
}

fn merge(state: &mut Members, metadata: &mut Members, patch: &Members, now: i64, empty_objects_stay: bool) {
    for (key, value) in patch {
        match (value, state.get_mut(key), metadata.get_mut(key)) {
            (Value::Null, ..) => {
                state.remove(key);
                metadata.remove(key);
            }
            (Value::Object(patch), Some(Value::Object(inner)), Some(Value::Object(times))) => {
                let had = !inner.is_empty();
                merge(inner, times, patch, now, empty_objects_stay);
                if had && inner.is_empty() && !empty_objects_stay {
                    state.remove(key);
                    metadata.remove(key);
                }
            }
            (value, ..) => {
                let value = without_nulls(value);
                metadata.insert(key.clone(), stamps(&value, now));
                state.insert(key.clone(), value);
            }
        }
    }
}

/// A new value: there is nothing that its nulls could remove.
fn without_nulls(value: &Value) -> Value {
    let Value::Object(members) = value else { return value.clone() };
    let kept = members.iter().filter(|(_, value)| !value.is_null());
    Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
}

fn stamp(now: i64) -> Value {
    json!({"timestamp": now})
}

fn stamps(value: &Value, now: i64) -> Value {
    match value {
        Value::Object(members) => stamps_of(members, now).into(),
        Value::Array(items) => items.iter().map(|item| stamps(item, now)).collect(),
        _ => stamp(now),
    }
}

fn stamps_of(members: &Members, now: i64) -> Members {
    members.iter().map(|(key, value)| (key.clone(), stamps(value, now))).collect()
}

fn differences(desired: &Members, metadata: &Members, reported: &Members) -> Option<(Members, Members)> {
    let (mut state, mut times) = (Members::new(), Members::new());
    for (key, wanted) in desired {
        let since = metadata.get(key).cloned().unwrap_or_default();
        let differs = match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(found))) => {
                let since = since.as_object().cloned().unwrap_or_default();
                differences(wanted, &since, found).map(|(state, times)| (state.into(), times.into()))
            }
            (wanted, Some(found)) if wanted == found => None,
            (wanted, _) => Some((wanted.clone(), since)),
        };
        if let Some((wanted, since)) = differs {
            state.insert(key.clone(), wanted);
            times.insert(key.clone(), since);
        }
    }
    (!state.is_empty()).then_some((state, times))
}
