//! What to do next in a transfer. Pure: no sockets, no files, no clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What bounds a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest artifact that is taken, in bytes.
    pub max_size: u64,
    /// The slowest transfer that is kept up: bytes a second over `rate_window`.
    pub min_rate: u64,
    pub rate_window: Duration,
    /// For the whole transfer, with every attempt and every pause.
    pub deadline: Duration,
    /// Attempts in a row that brought nothing, before the transfer fails.
    pub max_attempts: u32,
    /// The pause after the first failed attempt; it doubles up to `backoff_max`, with jitter.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_size: 4 << 30,
            min_rate: 1024,
            rate_window: Duration::from_secs(60),
            deadline: Duration::from_secs(6 * 3600),
            max_attempts: 60,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }
    }
}

/// What ties the bytes that are there to the object they came from. Kept by the caller: in memory to go on with a
/// fresh URL, in its journal to go on after a restart. The default knows nothing, so the transfer starts from zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    pub validator: Option<Validator>,
    pub total: Option<u64>,
}

/// What `If-Range` can be asked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validator {
    /// A strong one; a weak one says nothing about bytes.
    Etag(String),
    LastModified(String),
}
