//! What AWS would bill each client for, counted on this side of the wire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// Topic and payload are billed in units of 5 KiB, each message at least one.
const UNIT: usize = 5 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    FromDevice,
    ToDevice,
}

#[derive(Default)]
struct Count {
    messages: u64,
    units: u64,
    bytes: u64,
}

type Counts = BTreeMap<(&'static str, Direction), Count>;

/// By client id. The number of kinds is bounded; that of clients is that of those who were let in.
#[derive(Default)]
pub(super) struct Meter(Mutex<BTreeMap<Arc<str>, Counts>>);

impl Meter {
    pub(super) fn connect(&self, client: &Arc<str>, will_bytes: usize) {
        self.count(client, "connect", Direction::FromDevice, 12 + client.len() + will_bytes);
    }

    pub(super) fn subscribe<'a>(&self, client: &Arc<str>, filters: impl Iterator<Item = &'a str>) {
        self.count(client, "subscribe", Direction::FromDevice, filters.map(str::len).sum());
    }

    pub(super) fn acknowledgement(&self, client: &Arc<str>) {
        self.count(client, "acknowledgement", Direction::FromDevice, 4);
    }

    pub(super) fn publish(&self, client: &Arc<str>, direction: Direction, topic: &str, payload: usize) {
        self.count(client, class(topic), direction, topic.len() + payload);
    }

    fn count(&self, client: &Arc<str>, class: &'static str, direction: Direction, bytes: usize) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = match clients.get_mut(client) {
            Some(counts) => counts,
            None => clients.entry(Arc::clone(client)).or_default(),
        };
        let count = counts.entry((class, direction)).or_default();
        count.messages += 1;
        count.units += units(bytes);
        count.bytes += bytes as u64;
    }

    /// The body of `GET /_cloud/meter`.
    pub(super) fn report(&self) -> Value {
        let clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let clients: serde_json::Map<_, _> = clients
            .iter()
            .map(|(client, counts)| {
                let rows: Vec<_> = counts
                    .iter()
                    .map(|((class, direction), count)| {
                        total += count.units;
                        let direction = match direction {
                            Direction::FromDevice => "sent",
                            Direction::ToDevice => "received",
                        };
                        json!({
                            "class": class, "direction": direction,
                            "messages": count.messages, "units": count.units, "bytes": count.bytes,
                        })
                    })
                    .collect();
                (client.to_string(), rows.into())
            })
            .collect();
        json!({"units": total, "clients": clients})
    }
}

fn units(bytes: usize) -> u64 {
    bytes.div_ceil(UNIT).max(1) as u64
}

/// What a message is for, by its topic.
fn class(topic: &str) -> &'static str {
    let levels: Vec<_> = topic.splitn(7, '/').collect();
    match levels.as_slice() {
        ["$aws", "things", _, "jobs", "notify" | "notify-next"] => "jobs-notify",
        ["$aws", "things", _, "jobs", _, "update", ..] => "jobs-update",
        ["$aws", "things", _, "jobs", ..] => "jobs-ask",
        ["$aws", "things", _, "shadow", ..] => "shadow",
        ["$aws", "certificates" | "provisioning-templates", ..] => "provisioning",
        [customer, ..] if !customer.is_empty() && !customer.starts_with('$') => "publish",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_contract_cost_what_it_says() {
        let file = include_str!("../../../../test-fixtures/vectors/metering.json");
        let file: Value = serde_json::from_str(file).unwrap();
        let messages =
            file["cases"].as_array().unwrap().iter().filter(|case| case["input"]["unitKiB"].is_null());
        let sized: Vec<_> = messages.filter(|case| case["input"]["bytes"].is_u64()).collect();
        assert_eq!(sized.len(), 5);
        for case in sized {
            let bytes = case["input"]["bytes"].as_u64().unwrap();
            assert_eq!(case["expect"]["units"], units(bytes as usize), "{}", case["id"]);
        }
    }

    #[test]
    fn messages_are_rounded_up_and_kept_apart_by_client_class_and_direction() {
        let meter = Meter::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        meter.connect(&a, 0);
        meter.subscribe(&a, ["x/y", "z"].into_iter());
        meter.publish(&a, Direction::FromDevice, "$aws/things/a/jobs/j/update", 5120);
        meter.publish(&a, Direction::ToDevice, "$aws/things/a/jobs/j/update/accepted", 2);
        meter.acknowledgement(&b);
        let report = meter.report();
        assert_eq!(report["units"], 6);
        assert_eq!(
            report["clients"]["a"][1],
            json!({"class": "jobs-update", "direction": "sent", "messages": 1, "units": 2, "bytes": 5147})
        );
        assert_eq!(report["clients"]["b"].as_array().map(Vec::len), Some(1));
    }
}
