//! What crosses the engine's border: requests and times in, outputs and changed rows out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::compat::Compat;

/// A moment, in milliseconds since the epoch. The device plane shows whole seconds, the control plane
/// seconds with a fraction; a type of its own keeps the two units apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(i64);

impl Time {
    pub const fn from_millis(millis: i64) -> Time {
        Time(millis)
    }

    pub const fn from_secs(secs: i64) -> Time {
        Time(secs.saturating_mul(1000))
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds, as the device plane shows them.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub const fn plus_secs(self, secs: i64) -> Time {
        Time(self.0.saturating_add(secs.saturating_mul(1000)))
    }

    pub const fn plus_minutes(self, minutes: i64) -> Time {
        self.plus_secs(minutes.saturating_mul(60))
    }

    /// Seconds as a JSON number, with a fraction where there is one: the control plane's form.
    pub fn to_number(self) -> Value {
        if self.0 % 1000 == 0 { Value::from(self.secs()) } else { Value::from(self.0 as f64 / 1000.0) }
    }
}

/// Who and where this cloud is, and which of AWS's open questions it answers how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub region: String,
    pub account: String,
    pub compat: Compat,
    /// What DescribeEndpoint answers, for every endpoint type.
    pub endpoint: String,
    /// Off: `take_changes` is always empty, and nothing is paid for it.
    pub record_changes: bool,
}

/// One call of the control plane, or of the device plane over HTTPS.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// AWS's name of the operation, such as `CreateJob`.
    pub op: String,
    /// Members from the path and the query, by their names in the service model.
    pub params: BTreeMap<String, String>,
    /// The JSON body; `Value::Null` when there was none.
    pub body: Value,
}

/// An error as rest-json carries it: status, type, message, and further members of the body.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct ApiError {
    pub http: u16,
    pub kind: &'static str,
    pub message: String,
    pub extra: Map<String, Value>,
}

/// The broker's name for one MQTT connection.
pub type ConnectionId = u64;

/// A message of the service.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// An accepted or rejected: it goes to the requesting connection alone, subscribed or not.
    Answer { to: Option<ConnectionId>, thing: String, topic: String, payload: Value },
    /// notify, notify-next and `$aws/events`: ordinary messages for whoever subscribed.
    Publish { topic: String, payload: Value },
}

/// A job with destination package versions has succeeded on a thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployed {
    pub thing: String,
    /// ARNs of package versions.
    pub packages: Vec<String>,
}

/// A row for the store: what is now under (kind, key), or None when it is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub kind: &'static str,
    pub key: String,
    pub value: Option<Value>,
}

/// The object store, as far as jobs need it.
pub trait Objects {
    /// A signed GET URL; `now` in epoch seconds.
    fn presign_get(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        expires_in: u32,
        now: i64,
    ) -> String;
    /// A signed PUT URL; `now` in epoch seconds. Without a bucket it is one of the service's own.
    fn presign_put(&self, bucket: Option<&str>, key: &str, expires_in: u32, now: i64) -> String;
    /// The bytes of an object, for `documentSource`.
    fn read(&self, bucket: &str, key: &str) -> Option<Vec<u8>>;
}
