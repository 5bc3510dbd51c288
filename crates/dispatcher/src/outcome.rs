//! How an operation goes and how it ended, in our terms. The agent turns both into AWS's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Where an operation is. Latest wins: nobody needs every value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: &'static str,
    pub done: u64,
    /// Absent while nobody knows how much there is to do.
    pub total: Option<u64>,
    /// It waits on purpose.
    pub wait: Option<Wait>,
}

/// What an operation waits for before it disturbs the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub until: Until,
    /// From now on; absent where nobody knows.
    pub lasts: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// By the device's clock.
    Time(SystemTime),
    /// The device's clock was never set.
    ClockSet,
    NextReboot,
    Unknown,
}

impl Wait {
    /// Where nobody knows how long it lasts, the time is that of the next look, and not worth a message.
    pub(crate) fn tells_as_much_as(&self, other: &Self) -> bool {
        match (self.lasts, other.lasts) {
            (Some(_), Some(_)) => self.until == other.until,
            (None, None) => std::mem::discriminant(&self.until) == std::mem::discriminant(&other.until),
            _ => false,
        }
    }
}

/// As it is reported: RFC 3339 in UTC, or a word.
impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = match self {
            Self::Time(time) => time.duration_since(UNIX_EPOCH).unwrap_or_default(),
            Self::ClockSet => return f.write_str("clock-set"),
            Self::NextReboot => return f.write_str("next-reboot"),
            Self::Unknown => return f.write_str("unknown"),
        };
        let seconds = i64::try_from(time.as_secs()).map_err(|_| std::fmt::Error)?;
        let t = tz::UtcDateTime::from_timespec(seconds, 0).map_err(|_| std::fmt::Error)?;
        let (year, month, day) = (t.year(), t.month(), t.month_day());
        write!(f, "{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t.hour(), t.minute(), t.second())
    }
}

impl Progress {
    pub fn phase(phase: &'static str) -> Self {
        Self { phase, done: 0, total: None, wait: None }
    }

    pub fn waiting(wait: Wait) -> Self {
        Self { wait: Some(wait), ..Self::phase("waiting") }
    }

    /// Whole percent, once the total is known.
    pub fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((u128::from(self.done) * 100 / u128::from(total)).min(100) as u64)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Succeeded,
    Failed,
    /// The order itself is wrong: trying again on this device cannot help, and AWS never retries it.
    Rejected,
}

/// How an operation ended. Written to the journal before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub verdict: Verdict,
    /// A code from `docs/reasons.md`: public, added to, never renamed.
    pub reason: String,
    pub message: String,
}

impl Outcome {
    pub fn succeeded(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Verdict::Succeeded, reason, message)
    }

    pub fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Verdict::Failed, reason, message)
    }

    pub fn rejected(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Verdict::Rejected, reason, message)
    }

    fn new(verdict: Verdict, reason: &str, message: impl Into<String>) -> Self {
        Self { verdict, reason: reason.to_owned(), message: message.into() }
    }
}

impl From<&crate::DocumentError> for Outcome {
    /// What this device does not have FAILED, a document that breaks its schema REJECTED: see `docs/decisions/`.
    fn from(error: &crate::DocumentError) -> Self {
        match error {
            crate::DocumentError::UnknownOperation(_) | crate::DocumentError::UnknownFile { .. } => {
                Self::failed(error.reason(), error.to_string())
            }
            crate::DocumentError::Invalid { .. } => Self::rejected(error.reason(), error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_rfc_3339_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_792_889_105, "2026-10-25T00:45:05Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(Until::Time(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), expected);
        }
    }
}
