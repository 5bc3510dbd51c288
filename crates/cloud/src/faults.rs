//! Faults on purpose: what to do to the next messages, calls and downloads that match.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many may be in place at once.
const MAX_FAULTS: usize = 1000;

/// What goes wrong. The README of this crate says which members each takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Messages of the service that do not arrive.
    Drop,
    /// Messages of the service that come `milliseconds` late.
    Delay,
    /// Messages of the service that come twice.
    Duplicate,
    /// Requests that are refused with `code`, without being carried out.
    Reject,
    /// Requests that are refused for their rate, without being carried out.
    Throttle,
    /// The connections of `thing` are closed, now.
    Cut,
    /// The next connections of `thing` are refused.
    Refuse,
    /// Downloads that end with `status`.
    ObjectStatus,
    /// Downloads that break off after `bytes`.
    ObjectTruncate,
    /// Downloads with one bit wrong, in the middle.
    ObjectCorrupt,
    /// Downloads at `bytes` a second.
    ObjectSlow,
    /// Downloads whose presigned URL has expired.
    ObjectExpired,
    /// The clock jumps by `seconds`, now.
    Clock,
}

/// One fault, as it is ordered and as it is listed.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// What goes wrong
    #[arg(value_enum)]
    pub(crate) fault: Kind,
    /// How many times; 0 is until it is cleared
    #[serde(default = "once")]
    #[arg(long, default_value_t = 1)]
    pub(crate) count: u32,
    /// Only this thing
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) thing: Option<String>,
    /// Only topics that match this MQTT filter
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Only this operation over HTTP, such as CreateJob
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) operation: Option<String>,
    /// Error code of `reject`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Delay of `delay`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) milliseconds: Option<u64>,
    /// Only objects of this bucket
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) bucket: Option<String>,
    /// Only the object with this key
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// HTTP status of `object-status`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) status: Option<u16>,
    /// Length of `object-truncate`, bytes a second of `object-slow`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub(crate) bytes: Option<u64>,
    /// Jump of `clock`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) seconds: Option<i64>,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// What is missing or out of place in this order.
    pub(crate) fn check(&self) -> Result<(), String> {
        let needed = match self.fault {
            Kind::Delay => ("milliseconds", self.milliseconds.is_some()),
            Kind::Reject => ("code", self.code.is_some()),
            Kind::Cut | Kind::Refuse => ("thing", self.thing.is_some()),
            Kind::ObjectStatus => ("status", self.status.is_some_and(|status| (400..600).contains(&status))),
            Kind::ObjectTruncate => ("bytes", self.bytes.is_some()),
            Kind::ObjectSlow => ("bytes", self.bytes.is_some_and(|bytes| bytes > 0)),
            Kind::Clock => ("seconds", self.seconds.is_some()),
            _ => return Ok(()),
        };
        match needed {
            (_, true) => Ok(()),
            ("status", false) => Err("object-status needs a `status` from 400 to 599".to_owned()),
            (member, false) => Err(format!("this fault needs `{member}`")),
        }
    }

    fn is(&self, kinds: &[Kind]) -> bool {
        kinds.contains(&self.fault)
    }

    fn matches_thing(&self, thing: Option<&str>) -> bool {
        self.thing.is_none() || self.thing.as_deref() == thing
    }

    fn matches_object(&self, bucket: &str, key: &str) -> bool {
        self.bucket.as_deref().is_none_or(|wanted| wanted == bucket)
            && self.key.as_deref().is_none_or(|wanted| wanted == key)
    }
}

/// What becomes of one message of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Deliver,
    Drop,
    Delay(Duration),
    Duplicate,
}

#[derive(Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pending: Vec<Entry>,
    next_id: u64,
}

#[derive(Clone, Serialize)]
pub(crate) struct Entry {
    id: u64,
    #[serde(flatten)]
    fault: Fault,
}

impl Faults {
    /// The fault's id; none when there are too many already.
    pub(crate) fn add(&self, fault: Fault) -> Option<u64> {
        let mut state = self.lock();
        if state.pending.len() >= MAX_FAULTS {
            return None;
        }
        state.next_id += 1;
        let id = state.next_id;
        state.pending.push(Entry { id, fault });
        Some(id)
    }

    /// `count` of each is what is left of it.
    pub(crate) fn list(&self) -> Vec<Entry> {
        self.lock().pending.clone()
    }

    /// Removes one, or all of them; how many there were.
    pub(crate) fn clear(&self, id: Option<u64>) -> usize {
        let mut state = self.lock();
        let before = state.pending.len();
        state.pending.retain(|entry| id.is_some_and(|id| id != entry.id));
        before - state.pending.len()
    }

    /// For a message that the service is about to send. Without a `topic` of its own a fault concerns answers alone.
    pub(crate) fn on_message(&self, thing: Option<&str>, topic: &str, is_answer: bool) -> Fate {
        let taken = self.take(|fault| {
            fault.is(&[Kind::Drop, Kind::Delay, Kind::Duplicate])
                && fault.matches_thing(thing)
                && fault.topic.as_deref().map_or(is_answer, |filter| topic_matches(filter, topic))
        });
        match taken {
            None => Fate::Deliver,
            Some(Fault { fault: Kind::Drop, .. }) => Fate::Drop,
            Some(Fault { fault: Kind::Delay, milliseconds, .. }) => {
                Fate::Delay(Duration::from_millis(milliseconds.unwrap_or_default()))
            }
            Some(_) => Fate::Duplicate,
        }
    }

    /// For a device's request: the code with which it is refused. A filter may name the request's topic or its answer's.
    pub(crate) fn on_request(&self, thing: &str, topic: &str) -> Option<String> {
        let taken = self.take(|fault| {
            fault.is(&[Kind::Reject, Kind::Throttle])
                && fault.operation.is_none()
                && fault.matches_thing(Some(thing))
                && fault.topic.as_deref().is_none_or(|filter| {
                    ["", "/accepted", "/rejected"]
                        .iter()
                        .any(|end| topic_matches(filter, &format!("{topic}{end}")))
                })
        })?;
        Some(match taken.fault {
            Kind::Throttle => "RequestThrottled".to_owned(),
            _ => taken.code.unwrap_or_default(),
        })
    }

    /// For a call over HTTP, which a fault has to name: the code with which it is refused; none is its rate.
    pub(crate) fn on_call(&self, operation: &str, thing: Option<&str>) -> Option<Option<String>> {
        let taken = self.take(|fault| {
            fault.is(&[Kind::Reject, Kind::Throttle])
                && fault.operation.as_deref() == Some(operation)
                && fault.matches_thing(thing)
        })?;
        Some(taken.code.filter(|_| taken.fault == Kind::Reject))
    }

    /// For a download.
    pub(crate) fn on_download(&self, bucket: &str, key: &str) -> Option<Fault> {
        use Kind::{ObjectCorrupt, ObjectExpired, ObjectSlow, ObjectStatus, ObjectTruncate};
        let kinds = [ObjectStatus, ObjectTruncate, ObjectCorrupt, ObjectSlow, ObjectExpired];
        self.take(|fault| fault.is(&kinds) && fault.matches_object(bucket, key))
    }

    /// The first that matches, counted down.
    fn take(&self, matches: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut state = self.lock();
        let index = state.pending.iter().position(|entry| matches(&entry.fault))?;
        let entry = state.pending.get_mut(index)?;
        let fault = entry.fault.clone();
        match entry.fault.count {
            0 => {}
            1 => drop(state.pending.remove(index)),
            _ => entry.fault.count -= 1,
        }
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// MQTT's rule for `+` and `#`; unlike a subscription, a filter here may begin with a wildcard and match `$aws`.
fn topic_matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> Fault {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn filters_match_as_mqtt_says() {
        for (filter, topic, expected) in [
            ("$aws/things/+/jobs/+/update/accepted", "$aws/things/a/jobs/j/update/accepted", true),
            ("$aws/things/+/jobs/#", "$aws/things/a/jobs/notify-next", true),
            ("#", "$aws/x", true),
            ("a/+", "a", false),
            ("a/#", "a", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(topic_matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_fault_is_used_up_after_its_count_and_only_by_what_matches() {
        let faults = Faults::default();
        faults.add(fault(r#"{"fault":"drop","thing":"a","count":2}"#));
        assert_eq!(faults.on_message(Some("b"), "t/accepted", true), Fate::Deliver);
        assert_eq!(faults.on_message(Some("a"), "t/notify", false), Fate::Deliver);
        assert_eq!(faults.on_message(Some("a"), "t/accepted", true), Fate::Drop);
        assert_eq!(faults.on_message(Some("a"), "t/accepted", true), Fate::Drop);
        assert_eq!(faults.on_message(Some("a"), "t/accepted", true), Fate::Deliver);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn a_count_of_zero_stays_until_it_is_cleared() {
        let faults = Faults::default();
        let id = faults.add(fault(r#"{"fault":"throttle","count":0}"#));
        assert!(id.is_some());
        for _ in 0..3 {
            assert_eq!(faults.on_request("a", "x/get").as_deref(), Some("RequestThrottled"));
        }
        assert_eq!(faults.clear(id), 1);
        assert_eq!(faults.on_request("a", "x/get"), None);
    }

    #[test]
    fn members_that_are_missing_or_unknown_are_named() {
        assert!(fault(r#"{"fault":"delay"}"#).check().unwrap_err().contains("milliseconds"));
        assert!(fault(r#"{"fault":"object-status","status":200}"#).check().unwrap_err().contains("400"));
        let unknown = serde_json::from_str::<Fault>(r#"{"fault":"drop","things":"a"}"#).unwrap_err();
        assert!(unknown.to_string().contains("things"), "{unknown}");
    }
}
