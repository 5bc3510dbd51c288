//! Why a firmware is not installed although its bytes may be whole.

use crate::{AgentVersion, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the job has no `release`, and this device installs signed firmware only")]
    Missing,
    #[error("none of the release's {found} signatures is by a key that this device trusts")]
    Signature { found: usize },
    #[error("the release is signed by {found} of this device's keys, expected at least {threshold}")]
    Threshold { found: usize, threshold: usize },
    #[error("the signed release is not understood: {0}")]
    Invalid(String),
    #[error("the release was signed for another {member} ({signed}) than the job asks for ({asked})")]
    Mismatch { member: &'static str, signed: String, asked: String },
    #[error("the release is for {signed:?}, and this device is {device:?}")]
    Incompatible { signed: Vec<String>, device: Vec<String> },
    #[error("the release needs an agent of version {needed}, and this is {found}")]
    AgentTooOld { needed: AgentVersion, found: String },
    #[error("the release expired on {0}")]
    Expired(Timestamp),
    #[error(
        "the release expires on {0}, and this device's clock has not been set: it is before this agent was made"
    )]
    ClockNotSet(Timestamp),
    #[error("the release has sequence {sequence}, and this device has had {floor} already{}", no_use(.permit))]
    SequenceTooLow { sequence: u64, floor: u64, permit: Option<u64> },
}

fn no_use(permit: &Option<u64>) -> String {
    permit.map_or_else(String::new, |permit| format!("; its permit to go back ends at {permit}"))
}

impl Refusal {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "release-missing",
            Self::Signature { .. } => "signature-invalid",
            Self::Threshold { .. } => "signature-threshold",
            Self::Invalid(_) => "release-invalid",
            Self::Mismatch { .. } => "release-mismatch",
            Self::Incompatible { .. } => "release-incompatible",
            Self::AgentTooOld { .. } => "agent-too-old",
            Self::Expired(_) => "release-expired",
            Self::ClockNotSet(_) => "clock-not-set",
            Self::SequenceTooLow { .. } => "release-sequence-too-low",
        }
    }
}
