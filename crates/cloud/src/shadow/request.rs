//! What is asked for, by topic and by payload, checked in the service's order: size, encoding, JSON, client token,
//! state, types, names of nodes, depth and nulls. The version comes last, and is not known here.

use serde_json::{Map, Value};

use super::MOST_BYTES;
use super::document::Patch;
use super::rejection::{Rejection, bad, too_large};

const MOST_TOKEN_BYTES: usize = 64;
const MOST_NAME: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Get,
    Update,
    Delete,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

/// A request's topic. By position, because a shadow may be called `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    pub thing: &'a str,
    pub name: Option<&'a str>,
    pub operation: Operation,
}

impl<'a> Topic<'a> {
    /// None for what asks for nothing, such as the service's own messages.
    pub fn parse(topic: &'a str) -> Option<Topic<'a>> {
        let levels: Vec<&str> = topic.strip_prefix("$aws/things/")?.splitn(6, '/').collect();
        let (thing, name, operation) = match levels.as_slice() {
            [thing, "shadow", operation] => (thing, None, operation),
            [thing, "shadow", "name", name, operation] => (thing, Some(*name), operation),
            _ => return None,
        };
        let operation = match *operation {
            "get" => Operation::Get,
            "update" => Operation::Update,
            "delete" => Operation::Delete,
            _ => return None,
        };
        (!thing.is_empty()).then_some(Topic { thing, name, operation })
    }
}

impl std::fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Topic { thing, name, operation } = self;
        let name = name.map(|name| format!("name/{name}/")).unwrap_or_default();
        write!(f, "$aws/things/{thing}/shadow/{name}{}", operation.name())
    }
}

/// An update that keeps the rules.
#[derive(Clone, Debug)]
pub struct Update {
    pub state: Patch,
    pub version: Option<u64>,
    pub token: Option<String>,
}

pub fn check_name(name: Option<&str>) -> Result<(), Rejection> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "$:_-".contains(c);
    match name {
        Some(name) if name.is_empty() || name.len() > MOST_NAME || !name.chars().all(allowed) => {
            Err(bad("Invalid shadow name"))
        }
        _ => Ok(()),
    }
}

/// The token of a get or delete, all else of whose payload is ignored.
pub fn token(payload: &[u8]) -> Result<Option<String>, Rejection> {
    match serde_json::from_slice(payload) {
        Ok(Value::Object(members)) => token_of(&members),
        _ => Ok(None),
    }
}

fn token_of(members: &Map<String, Value>) -> Result<Option<String>, Rejection> {
    match members.get("clientToken") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(token)) if token.len() <= MOST_TOKEN_BYTES => Ok(Some(token.clone())),
        Some(_) => Err(bad("Invalid clientToken")),
    }
}

pub fn update(payload: &[u8], depth: usize) -> Result<Update, Rejection> {
    let parsed: Result<Value, _> = serde_json::from_slice(payload);
    if payload.len() > MOST_BYTES {
        // The client token does not count, nor does the white space of who writes it nicely.
        let state = parsed.as_ref().ok().and_then(|request| request.get("state"));
        if state.is_none_or(|state| state.to_string().len() > MOST_BYTES) {
            return Err(too_large());
        }
    }
    if std::str::from_utf8(payload).is_err() {
        return Err(Rejection::new(415, "Unsupported documented encoding; supported encoding is UTF-8"));
    }
    let request = parsed.map_err(|error| {
        // Deeper than a parser goes is deeper than the service takes.
        if error.to_string().starts_with("recursion limit") { too_deep(depth) } else { bad("Invalid JSON") }
    })?;
    let none = Map::new();
    let members = request.as_object().unwrap_or(&none);
    let token = token_of(members)?;
    let read = || {
        let state = members.get("state").ok_or_else(|| bad("Missing required node: state"))?;
        let sections = match state {
            Value::Null => None,
            Value::Object(sections) => Some(sections),
            _ => return Err(bad("State node must be an object")),
        };
        let section = |name: &str, refusal: &str| match sections.and_then(|sections| sections.get(name)) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::Object(members)) => Ok(Some(Some(members.clone()))),
            Some(_) => Err(bad(refusal)),
        };
        let desired = section("desired", "Desired node must be an object")?;
        let reported = section("reported", "Reported node must be an object")?;
        let version = match members.get("version") {
            None | Some(Value::Null) => None,
            Some(version) => Some(version.as_u64().ok_or_else(|| bad("Invalid version"))?),
        };
        let names = sections.into_iter().flat_map(Map::keys);
        if let Some(other) = names.into_iter().find(|name| !["desired", "reported"].contains(&name.as_str()))
        {
            return Err(bad(format!("State contains an invalid node: '{other}'")));
        }
        for members in [&desired, &reported].into_iter().flatten().flatten() {
            if levels(members) > depth {
                return Err(too_deep(depth));
            }
            if members.values().any(null_in_array) {
                return Err(bad("Arrays may not contain null"));
            }
        }
        let state = match sections {
            None => Patch::Nothing,
            Some(_) => Patch::Sections { desired, reported },
        };
        Ok(Update { state, version, token: token.clone() })
    };
    read().map_err(|rejection: Rejection| rejection.with(token.clone()))
}

fn too_deep(depth: usize) -> Rejection {
    bad(format!("JSON contains too many levels of nesting; maximum is {depth}"))
}

/// Levels of keys below a section.
fn levels(members: &Map<String, Value>) -> usize {
    members.values().map(|value| 1 + below(value)).max().unwrap_or(0)
}

fn below(value: &Value) -> usize {
    match value {
        Value::Object(members) => levels(members),
        Value::Array(items) => items.iter().map(below).max().unwrap_or(0),
        _ => 0,
    }
}

fn null_in_array(value: &Value) -> bool {
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.iter().any(has_null),
            Value::Object(members) => members.values().any(has_null),
            _ => false,
        }
    }
    match value {
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(members) => members.values().any(null_in_array),
        _ => false,
    }
}
