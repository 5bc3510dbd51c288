//! `$aws/events/presence/…` and `$aws/events/subscriptions/…`: what AWS tells of the life of connections.

use std::net::IpAddr;

use bytes::Bytes;
use serde_json::{Value, json};

use super::close::Close;
use super::packet::Message;
use super::session::Link;

pub(super) struct Event {
    pub(super) topic: String,
    payload: Value,
}

impl Event {
    pub(super) fn into_message(self) -> Message {
        Message::new(&self.topic, Bytes::from(self.payload.to_string()))
    }
}

pub(super) fn connected(client_id: &str, link: &Link, address: IpAddr, now: u64) -> Option<Event> {
    event(client_id, link, "presence", "connected", now, json!({ "ipAddress": address.to_string() }))
}

pub(super) fn disconnected(client_id: &str, link: &Link, close: Close, now: u64) -> Option<Event> {
    let more = json!({
        "clientInitiatedDisconnect": close.by_client(),
        "disconnectReason": close.reason(),
    });
    event(client_id, link, "presence", "disconnected", now, more)
}

/// `what`: subscribed or unsubscribed.
pub(super) fn subscriptions(
    client_id: &str,
    link: &Link,
    what: &'static str,
    topics: &[&str],
    now: u64,
) -> Option<Event> {
    let some = !topics.is_empty();
    some.then(|| event(client_id, link, "subscriptions", what, now, json!({ "topics": topics })))?
}

/// None for ids that cannot be part of a topic.
fn event(client_id: &str, link: &Link, kind: &str, what: &str, now: u64, more: Value) -> Option<Event> {
    if client_id.contains(['#', '+']) {
        return None;
    }
    let mut payload = json!({
        "clientId": client_id,
        "timestamp": now,
        "eventType": what,
        "sessionIdentifier": link.session_identifier,
        "principalIdentifier": link.principal,
    });
    // The version rises with every connection of a client, which is all that its readers may rely on.
    let presence = match (kind, &link.thing) {
        ("presence", Some(thing)) => json!({ "versionNumber": link.id, "thingName": **thing }),
        ("presence", None) => json!({ "versionNumber": link.id }),
        _ => Value::Null,
    };
    for more in [presence, more] {
        if let (Some(members), Value::Object(more)) = (payload.as_object_mut(), more) {
            members.extend(more);
        }
    }
    Some(Event { topic: format!("$aws/events/{kind}/{what}/{client_id}"), payload })
}
