//! What the service says, as it says it. The job document stays opaque here.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::details::UpdateStatus;

/// AWS IoT delivers nothing longer.
pub const MAX_PAYLOAD: usize = 128 * 1024;

/// Why a message or a name was not understood. Says where, never what: payloads carry presigned URLs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("a payload of {len} bytes, where the service sends at most {MAX_PAYLOAD}")]
    TooLong { len: usize },
    #[error("{what} at line {line}, column {column}, where the contract has a JSON object of this kind")]
    Json { what: &'static str, line: usize, column: usize },
    #[error("a job id is 1 to 64 of a-z, A-Z, 0-9, _ and -; this one of {len} bytes is not")]
    JobId { len: usize },
}

pub(crate) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Error> {
    if payload.len() > MAX_PAYLOAD {
        return Err(Error::TooLong { len: payload.len() });
    }
    serde_json::from_slice(payload).map_err(|error| Error::Json {
        what: match error.classify() {
            serde_json::error::Category::Data => "a member of the wrong type or a missing one",
            serde_json::error::Category::Eof => "an early end",
            _ => "not JSON, or nested too deep,",
        },
        line: error.line(),
        column: error.column(),
    })
}

/// A job's id, checked once: it becomes a level of a topic and, elsewhere, a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct JobId(String);

impl JobId {
    pub fn new(id: impl Into<String>) -> Result<Self, Error> {
        let id = id.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=64).contains(&id.len()) && id.bytes().all(allowed) {
            Ok(Self(id))
        } else {
            Err(Error::JobId { len: id.len() })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobId {
    type Error = Error;
    fn try_from(id: String) -> Result<Self, Error> {
        Self::new(id)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which execution this is, for ever. A deleted job's id may be given to a new job, whose executions count
/// from 1 again; the time it was queued tells the two apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecutionKey {
    pub job_id: JobId,
    pub execution_number: u64,
    /// Seconds since the epoch.
    pub queued_at: u64,
}

impl fmt::Display for ExecutionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}@{}", self.job_id, self.execution_number, self.queued_at)
    }
}

/// The state of an execution, as the service names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Queued,
    InProgress,
    Succeeded,
    Failed,
    TimedOut,
    Rejected,
    Removed,
    Canceled,
    /// One that the service has learned since: neither pending nor terminal, so nothing is concluded from it.
    #[serde(other)]
    Unknown,
}

impl Status {
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Queued | Self::InProgress)
    }

    pub fn is_terminal(self) -> bool {
        !self.is_pending() && self != Self::Unknown
    }
}

/// One execution of a job on this thing, with its envelope understood and its document not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobExecution {
    pub job_id: JobId,
    pub execution_number: u64,
    pub version_number: u64,
    pub status: Status,
    #[serde(default, deserialize_with = "null_is_default")]
    pub status_details: BTreeMap<String, String>,
    /// Times are seconds since the epoch, whichever of seconds and milliseconds was sent.
    #[serde(deserialize_with = "seconds")]
    pub queued_at: u64,
    #[serde(default, deserialize_with = "optional_seconds")]
    pub started_at: Option<u64>,
    #[serde(default, deserialize_with = "optional_seconds")]
    pub last_updated_at: Option<u64>,
    /// An estimate; the service adds it only while a timer runs.
    #[serde(default)]
    pub approximate_seconds_before_timed_out: Option<u64>,
    #[serde(default, rename = "jobDocument")]
    pub document: Option<serde_json::Value>,
}

impl JobExecution {
    pub fn key(&self) -> ExecutionKey {
        ExecutionKey {
            job_id: self.job_id.clone(),
            execution_number: self.execution_number,
            queued_at: self.queued_at,
        }
    }
}

/// What an answer to an update may say of the execution.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionState {
    pub status: Status,
    #[serde(default, deserialize_with = "null_is_default")]
    pub status_details: BTreeMap<String, String>,
    pub version_number: u64,
}

/// `notify-next`: the new head of the queue, or that there is none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct NextNotification {
    #[serde(default, deserialize_with = "optional_seconds")]
    pub timestamp: Option<u64>,
    #[serde(default)]
    pub execution: Option<JobExecution>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribeAccepted {
    #[serde(default)]
    pub client_token: Option<String>,
    #[serde(default)]
    pub execution: Option<JobExecution>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateAccepted {
    #[serde(default)]
    pub client_token: Option<String>,
    #[serde(default)]
    pub execution_state: Option<ExecutionState>,
}

/// Any `…/rejected`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    pub code: RejectionCode,
    #[serde(default, deserialize_with = "null_is_default")]
    pub message: String,
    #[serde(default)]
    pub client_token: Option<String>,
    #[serde(default)]
    pub execution_state: Option<ExecutionState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum RejectionCode {
    InvalidTopic,
    InvalidJson,
    InvalidRequest,
    InvalidStateTransition,
    ResourceNotFound,
    VersionMismatch,
    InternalError,
    RequestThrottled,
    TerminalStateReached,
    Other(String),
}

impl RejectionCode {
    /// Asking again later may help. A code nobody has heard of is taken for one of these: it costs a few
    /// retries, where the other guess would cost a job.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::InternalError | Self::RequestThrottled | Self::Other(_))
    }

    /// The request itself was at fault, whatever the execution's state.
    pub fn is_invalid_request(&self) -> bool {
        matches!(self, Self::InvalidTopic | Self::InvalidJson | Self::InvalidRequest)
    }
}

impl From<String> for RejectionCode {
    fn from(code: String) -> Self {
        match code.as_str() {
            "InvalidTopic" => Self::InvalidTopic,
            "InvalidJson" => Self::InvalidJson,
            "InvalidRequest" => Self::InvalidRequest,
            "InvalidStateTransition" => Self::InvalidStateTransition,
            "ResourceNotFound" => Self::ResourceNotFound,
            "VersionMismatch" => Self::VersionMismatch,
            "InternalError" => Self::InternalError,
            "RequestThrottled" => Self::RequestThrottled,
            "TerminalStateReached" => Self::TerminalStateReached,
            _ => Self::Other(code.chars().take(64).collect()),
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => f.write_str(code),
            known => write!(f, "{known:?}"),
        }
    }
}

/// Asks for one execution, document included. The number picks one of several executions of the same job.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execution_number: Option<u64>,
    pub(crate) client_token: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpdateRequest<'a> {
    pub(crate) status: UpdateStatus,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) status_details: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected_version: Option<u64>,
    pub(crate) execution_number: u64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) include_job_execution_state: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step_timeout_in_minutes: Option<i32>,
    pub(crate) client_token: &'a str,
}

/// Strings, numbers and maps of strings always have a JSON form.
pub(crate) fn body(request: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(request).unwrap_or_default()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The guide's prose and every capture say seconds, some of its examples have milliseconds.
const FIRST_MILLISECONDS: f64 = 1e11;

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let time = f64::deserialize(deserializer)?;
    // A float's cast saturates: a negative or absurd time is a wrong time, and no reason to end anything.
    Ok(if time > FIRST_MILLISECONDS { time / 1000.0 } else { time } as u64)
}

fn optional_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Seconds(#[serde(deserialize_with = "seconds")] u64);
    Ok(Option::<Seconds>::deserialize(deserializer)?.map(|Seconds(time)| time))
}
