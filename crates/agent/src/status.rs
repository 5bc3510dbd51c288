//! What `fleethand status` shows: one document, made by the agent, told to whoever may open its socket.

mod client;
mod server;
mod text;

use meter::{Month, Tally};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use client::{Options, ask, run, socket};
pub use server::{Wanted, serve};

/// Raised when the meaning of a member changes. Members are added without it.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub format: u32,
    pub agent: About,
    pub connection: Connection,
    pub execution: Option<Execution>,
    /// The latest first.
    pub outcomes: Vec<Outcome>,
    pub firmware: Firmware,
    pub certificate: Option<Certificate>,
    /// Absent in what agents before 0.2 say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<Metered>,
    /// Absent where nobody but the agent publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publishing: Option<Publishing>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<Shadow>,
}

/// As the agent knows it: nothing is asked of the cloud for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// Absent for the classic one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Absent while the cloud has not been asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    pub desired: Value,
    pub reported: Value,
    /// Why what was desired last is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    pub version: String,
    pub thing_name: String,
    pub endpoint: String,
    pub runs_for_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    pub state: State,
    /// By the wall clock, which may have been set meanwhile.
    pub since: String,
    /// By one that nobody sets.
    pub for_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Connecting,
    Connected,
    NotConnected,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Execution {
    /// Absent for what was ordered on the device itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// `IN_PROGRESS`, or how it has ended while the cloud does not know it yet.
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
    /// Of a download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub job_id: String,
    pub execution_number: u64,
    pub status: String,
    pub reason: String,
    pub message: String,
    /// When the cloud had taken it, by the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<String>,
}

/// As recorded; whether its bytes are still in force is looked at when a job asks for them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Firmware {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    pub expires: String,
    /// Negative once it has.
    pub days_left: i64,
    pub expires_soon: bool,
}

/// What the link costs, in AWS's metered units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metered {
    /// In UTC, as the bill is.
    pub month: Month,
    pub units: u64,
    pub lines: Tally,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_month: Option<LastMonth>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastMonth {
    pub month: Month,
    pub units: u64,
}

/// What other programs publish through the agent, since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Publishing {
    /// Taken, and lines that were not.
    pub readings: u64,
    pub refused: u64,
    /// Delivered.
    pub batches: u64,
    pub lost_batches: u64,
    /// Of files.
    pub waiting_bytes: u64,
}
