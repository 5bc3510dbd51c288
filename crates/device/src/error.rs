//! What can go wrong on the device, and what each of it is called in a status.

use std::path::PathBuf;
use std::time::Duration;

use crate::command::CommandFailure;
use crate::device::{Compression, Target};

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("no file is configured for it: set `file` in {0} of the configuration")]
    NotConfigured(Target),
    #[error("{} is {found}, and only a regular file is replaced", path.display())]
    NotAFile { path: PathBuf, found: &'static str },
    #[error("cannot {doing} {}: {source}", path.display())]
    Storage { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Staging(#[from] downloader::SinkError),
    #[error(transparent)]
    Verification(#[from] downloader::VerifyError),
    #[error(transparent)]
    Command(#[from] CommandFailure),
    #[error("the installer refused it: {0}")]
    InstallerRefused(CommandFailure),
    #[error("the installer says that what was before runs: {0}")]
    FellBack(CommandFailure),
    #[error("{0} is in force at once: \"activate\" can only be \"now\" here")]
    NoReboot(Target),
    #[error("the hook did not allow it: {0}")]
    HookRefused(CommandFailure),
    #[error("cannot talk to the installer at {}: {source}", path.display())]
    InstallerUnreachable { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Installer(String),
    #[error("it was not well within {} s: {last}", within.as_secs())]
    Unhealthy { within: Duration, last: CommandFailure },
    #[error("the cloud was not reached within {} s", within.as_secs())]
    Unreachable { within: Duration },
    #[error(transparent)]
    Refused(#[from] release::Refusal),
    #[error("{} says how far back firmware may go, and cannot be read: {problem}", path.display())]
    Floor { path: PathBuf, problem: String },
    #[cfg(feature = "rauc")]
    #[error(transparent)]
    Rauc(#[from] crate::RaucError),
    #[error("{0} has neither the new bytes nor a copy of them beside it")]
    Lost(Target),
    #[error("the previous file of {0} is gone, or is not what it was")]
    PreviousLost(Target),
    #[error("nothing verified to activate for {0}")]
    NothingVerified(Target),
    #[error("{0}: this is not the change that was verified here, or it was committed before")]
    NotVerifiedHere(Target),
    #[error("more bytes arrived than the {expected} that were announced")]
    TooLong { expected: u64 },
    #[error("this was begun for another configuration of {0}, and nothing of it is touched")]
    OtherConfiguration(Target),
    #[error("it cannot be told which slot runs: {0}")]
    SlotUnknown(String),
    #[error("the slot {} {problem}", path.display())]
    SlotUnusable { path: PathBuf, problem: String },
    #[error("the firmware is compressed with {}, and this target takes it as it is", .0.name())]
    CompressionUnsupported(Compression),
    #[error("it cannot be decompressed as {}: {error}", compression.name())]
    Decompression { compression: Compression, error: std::io::Error },
    #[error("the image is empty")]
    EmptyImage,
    #[error("the bootloader: {0}")]
    Bootloader(String),
    #[error("the helper at {} cannot be used: {problem}", path.display())]
    HelperUnreachable { path: PathBuf, problem: String },
    #[error("the helper was lost: {0}")]
    HelperLost(String),
    #[error(transparent)]
    Helper(#[from] crate::Failure),
}

impl DeviceError {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotConfigured(_) => "not-configured",
            Self::NotAFile { .. } => "target-not-a-file",
            Self::Storage { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => "no-space",
            Self::Storage { .. } | Self::Lost(_) | Self::PreviousLost(_) | Self::NothingVerified(_) => {
                "storage-error"
            }
            Self::NotVerifiedHere(_) => "change-not-verified",
            Self::OtherConfiguration(_) => "other-configuration",
            Self::SlotUnknown(_) => "booted-slot-unknown",
            Self::SlotUnusable { .. } => "slot-unusable",
            Self::CompressionUnsupported(_) => "compression-unsupported",
            Self::EmptyImage | Self::TooLong { .. } => "size-mismatch",
            Self::Decompression { .. } => "decompression-failed",
            Self::Bootloader(_) => "bootloader-error",
            Self::HelperUnreachable { .. } => "helper-unreachable",
            Self::HelperLost(_) => "helper-lost",
            Self::Helper(failure) => failure.reason(),
            Self::Staging(error) => error.reason(),
            Self::Verification(error) => error.reason(),
            Self::Command(failure) => failure.reason(),
            Self::InstallerRefused(_) => "installer-refused",
            Self::InstallerUnreachable { .. } => "installer-unreachable",
            Self::Installer(_) => "installer-failed",
            Self::FellBack(_) => "bootloader-rolled-back",
            Self::NoReboot(_) => "activate-unsupported",
            Self::HookRefused(_) => "hook-refused",
            Self::Refused(refusal) => refusal.reason(),
            Self::Floor { .. } => "sequence-floor-unreadable",
            #[cfg(feature = "rauc")]
            Self::Rauc(error) => error.reason(),
            Self::Unhealthy { .. } => "health-check-failed",
            Self::Unreachable { .. } => "cloud-unreachable",
        }
    }

    /// It did not fail: it was told to stop.
    pub fn is_halt(&self) -> bool {
        match self {
            Self::Command(CommandFailure::Halted { .. }) => true,
            Self::Helper(failure) => failure.is_halt(),
            _ => false,
        }
    }

    /// May the same bytes, fetched from zero, do better?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Verification(error) => error.is_transient(),
            Self::Helper(failure) => failure.is_transient(),
            _ => false,
        }
    }

    /// The device is out of reach at the moment; what was received since `begin` is to be begun again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::HelperLost(_))
    }

    /// `what` was told to stop.
    pub fn halted(what: &str) -> Self {
        CommandFailure::Halted { program: what.to_owned() }.into()
    }

    pub(crate) fn storage(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Storage { doing, path, source }
    }
}
