//! The Device Shadow service as a pure machine: what devices publish and what comes over HTTPS goes in, messages and
//! answers come out. `request` reads and checks, `document` merges and compares, `api` is the side of HTTPS.
#![allow(unreachable_pub)] // a binary: `pub` here means "for the rest of the cloud"

mod api;
mod document;
mod packages;
mod rejection;
mod request;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::{Change, Compat, DeleteVersion, FirstPrevious, Output, Time};
use document::Document;
use rejection::Rejection;
pub use request::{Operation, Topic};

/// The kind of a row of ours.
pub const ROWS: &str = "shadow";
/// How long the version of a deleted shadow is remembered.
const MEMORY_SECONDS: i64 = 48 * 3600;
/// Bytes of a document, without metadata.
const MOST_BYTES: usize = 8 * 1024;

/// (thing, name); the classic shadow has no name.
type Id = (String, Option<String>);

/// One shadow: its document, or what is left of one that was deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Shadow {
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted_at: Option<Time>,
}

#[derive(Debug)]
pub struct Shadows {
    compat: Compat,
    shadows: BTreeMap<Id, Shadow>,
    dirty: BTreeSet<Id>,
}

/// What a request led to: the answer to who asked, and what everybody may hear.
struct Done {
    answer: Value,
    messages: Vec<Output>,
}

impl Shadows {
    pub fn load(
        compat: Compat,
        rows: impl IntoIterator<Item = (String, String, Value)>,
    ) -> Result<Shadows, String> {
        let mut shadows = BTreeMap::new();
        for (kind, key, value) in rows {
            let shadow = serde_json::from_value(value).map_err(|error| format!("{kind} {key:?}: {error}"))?;
            let (thing, name) = match key.split_once('/') {
                Some((thing, name)) => (thing.to_owned(), Some(name.to_owned())),
                None => (key, None),
            };
            shadows.insert((thing, name), shadow);
        }
        Ok(Shadows { compat, shadows, dirty: BTreeSet::new() })
    }

    /// The rows that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.dirty).into_iter();
        let change = |id: Id| {
            let value = self.shadows.get(&id).and_then(|shadow| serde_json::to_value(shadow).ok());
            let key = match id {
                (thing, Some(name)) => format!("{thing}/{name}"),
                (thing, None) => thing,
            };
            Change { kind: ROWS, key, value }
        };
        changed.map(change).collect()
    }

    /// A PUBLISH to a shadow's topic. `known`: the thing is in the registry.
    pub fn device(&mut self, now: Time, known: bool, topic: &Topic, payload: &[u8]) -> Vec<Output> {
        let id = (topic.thing.to_owned(), topic.name.map(str::to_owned));
        match self.call(now, known, topic.operation, &id, payload) {
            Ok(Done { answer, mut messages }) => {
                if topic.operation == Operation::Get {
                    messages.push(published(&id, "get/accepted", answer));
                }
                messages
            }
            Err(rejection) => vec![refused(now, topic, rejection)],
        }
    }

    fn call(
        &mut self,
        now: Time,
        known: bool,
        operation: Operation,
        id: &Id,
        payload: &[u8],
    ) -> Result<Done, Rejection> {
        request::check_name(id.1.as_deref())?;
        if !known && self.compat.shadow_needs_thing.on() {
            let token = request::token(payload)?;
            return Err(Rejection::new(404, "Thing not found").with(token));
        }
        match operation {
            Operation::Get => {
                let token = request::token(payload)?;
                let shadow = self.there(id).map_err(|rejection| rejection.with(token.clone()))?;
                let mut answer = shadow.0.shown();
                answer.insert("version".to_owned(), shadow.1.into());
                Ok(Done { answer: stamped(now, answer, token), messages: Vec::new() })
            }
            Operation::Update => self.update(now, id, payload),
            Operation::Delete => self.delete(now, id, payload),
        }
    }

    fn there(&self, id: &Id) -> Result<(&Document, u64), Rejection> {
        let shadow =
            self.shadows.get(id).and_then(|shadow| Some((shadow.document.as_ref()?, shadow.version)));
        let (thing, name) = id;
        let name = name.as_ref().unwrap_or(thing);
        shadow.ok_or_else(|| Rejection::new(404, format!("No shadow exists with name: '{name}'")))
    }

    fn update(&mut self, now: Time, id: &Id, payload: &[u8]) -> Result<Done, Rejection> {
        let update = request::update(payload, self.compat.shadow_depth as usize)?;
        let token = update.token.clone();
        let before = self.shadows.get(id).filter(|shadow| shadow.document.is_some());
        let current = before.map_or(0, |shadow| shadow.version);
        if update.version.is_some_and(|version| version != current) {
            return Err(Rejection::new(409, "Version conflict").with(token));
        }
        let old = before.and_then(|shadow| shadow.document.clone());
        let mut document = old.clone().unwrap_or_default();
        document.merge(&update.state, now.secs(), self.compat.shadow_empty_object_stays.on());
        if document.bytes() > MOST_BYTES {
            return Err(rejection::too_large());
        }
        let version = self.next_version(now, id);

        let answer = json!({
            "state": update.state.echo(),
            "metadata": update.state.stamps(now.secs()),
            "version": version,
        });
        let answer = stamped(now, object(answer), token.clone());
        let mut messages = vec![published(id, "update/accepted", answer.clone())];
        if let Some((state, metadata)) = document.delta() {
            let delta = json!({"state": state, "metadata": metadata, "version": version});
            messages.push(published(id, "update/delta", stamped(now, object(delta), token.clone())));
        }
        let mut documents = object(json!({"current": document.versioned(version)}));
        let empty = || json!({"state": {}, "metadata": {}});
        let previous = old
            .map(|old| old.versioned(current))
            .or_else(|| (self.compat.shadow_first_previous == FirstPrevious::Empty).then(empty));
        documents.extend(previous.map(|previous| ("previous".to_owned(), previous)));
        messages.push(published(id, "update/documents", stamped(now, documents, token)));

        self.put(id, Shadow { version, document: Some(document), deleted_at: None });
        Ok(Done { answer, messages })
    }

    /// Goes on from that of a shadow which was deleted not long ago.
    fn next_version(&self, now: Time, id: &Id) -> u64 {
        match self.shadows.get(id) {
            Some(Shadow { deleted_at: Some(at), .. }) if at.plus_secs(MEMORY_SECONDS) < now => 1,
            Some(shadow) => shadow.version + 1,
            None => 1,
        }
    }

    fn delete(&mut self, now: Time, id: &Id, payload: &[u8]) -> Result<Done, Rejection> {
        let token = request::token(payload)?;
        let (_, version) = self.there(id).map_err(|rejection| rejection.with(token.clone()))?;
        let version = match self.compat.shadow_delete_version {
            DeleteVersion::Deleted => version,
            DeleteVersion::Next => version + 1,
        };
        self.put(id, Shadow { version, document: None, deleted_at: Some(now) });
        let answer = stamped(now, object(json!({"version": version})), token);
        Ok(Done { messages: vec![published(id, "delete/accepted", answer.clone())], answer })
    }

    fn put(&mut self, id: &Id, shadow: Shadow) {
        self.dirty.insert(id.clone());
        self.shadows.insert(id.clone(), shadow);
    }
}

/// What refuses a request on its topic.
pub fn refused(now: Time, topic: &Topic, rejection: Rejection) -> Output {
    let answer = object(json!({"code": rejection.code, "message": rejection.message}));
    Output::Publish { topic: format!("{topic}/rejected"), payload: stamped(now, answer, rejection.token) }
}

/// A request that a fault refuses without its being looked at.
pub fn refused_on_purpose(now: Time, topic: &Topic, code: &str, payload: &[u8]) -> Output {
    let rejection = match code.parse() {
        Ok(code) => Rejection::new(code, "Refused on purpose"),
        Err(_) if code == "RequestThrottled" => Rejection::new(429, "Too Many Requests"),
        Err(_) => Rejection::new(500, "Internal service failure"),
    };
    refused(now, topic, rejection.with(request::token(payload).ok().flatten()))
}

fn published(id: &Id, what: &str, payload: Value) -> Output {
    let topic = match id {
        (thing, None) => format!("$aws/things/{thing}/shadow/{what}"),
        (thing, Some(name)) => format!("$aws/things/{thing}/shadow/name/{name}/{what}"),
    };
    Output::Publish { topic, payload }
}

fn stamped(now: Time, mut members: Map<String, Value>, token: Option<String>) -> Value {
    members.insert("timestamp".to_owned(), now.secs().into());
    members.extend(token.map(|token| ("clientToken".to_owned(), token.into())));
    members.into()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
