//! What can go wrong with RAUC.

use std::time::Duration;

use downloader::Digest;

use crate::CommandFailure;

#[derive(Debug, thiserror::Error)]
pub enum RaucError {
    #[error("RAUC cannot be reached over D-Bus: {0}")]
    Unreachable(String),
    #[error("RAUC is at work for somebody else")]
    Busy,
    #[error("RAUC did not {call}: {message}")]
    Refused { call: &'static str, message: String },
    #[error("RAUC's answer to {call} is not what its interface says: {message}")]
    Nonsense { call: &'static str, message: String },
    #[error("RAUC does not know which slot runs: {0}")]
    NoBooted(String),
    #[error("slot {found} runs, expected {expected}")]
    OtherBooted { found: String, expected: String },
    #[error("RAUC's system.conf has {found} bootable slots of class {class} beside {booted}, expected one")]
    NoOther { booted: String, class: String, found: usize },
    #[error("RAUC does not take the bundle: {0}")]
    BundleRefused(CommandFailure),
    #[error("what RAUC says of the bundle is not understood: {0}")]
    BundleUnknown(String),
    #[error("the bundle is for {found:?}, and this device is {expected:?}")]
    Incompatible { found: String, expected: String },
    #[error("the bundle has {size} bytes, and at most {most} are given to RAUC")]
    TooLarge { size: u64, most: u64 },
    #[error("image {file} has {size} bytes, and slot {slot} ({device}) {room}")]
    SlotTooSmall { file: String, size: u64, slot: String, device: String, room: u64 },
    #[error("RAUC could not install it: {0}")]
    Failed(String),
    #[error("RAUC went away before it said how the installation ended")]
    Vanished,
    #[error("RAUC did not end the installation within {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error(
        "slot {slot} does not hold {file}: expected {expected}, read back {found}; is `install-same=false` \
         in RAUC's system.conf, or is the slot resized after it is written?"
    )]
    NotWritten { slot: String, file: String, expected: Digest, found: Digest },
    #[error("slot {slot} runs, and it cannot be shown that it holds the bundle")]
    NotShown { slot: String },
}

impl RaucError {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Nonsense { .. } | Self::Vanished => "installer-unavailable",
            Self::Busy => "installer-busy",
            Self::Refused { .. } | Self::Failed(_) | Self::TooSlow(_) => "installer-failed",
            Self::NoBooted(_) | Self::OtherBooted { .. } => "booted-slot-unknown",
            Self::NoOther { .. } => "not-configured",
            Self::BundleRefused(CommandFailure::Exit { .. })
            | Self::BundleUnknown(_)
            | Self::Incompatible { .. } => "installer-refused",
            Self::BundleRefused(failure) => failure.reason(),
            Self::TooLarge { .. } => "too-large",
            Self::SlotTooSmall { .. } => "no-space",
            Self::NotWritten { .. } | Self::NotShown { .. } => "read-back-mismatch",
        }
    }
}

/// One line, and not for ever: it goes into logs and statuses.
pub(super) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ").trim().chars().take(400).collect()
}
