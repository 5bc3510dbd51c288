//! The line between deciding and touching the device. Every call is a plain message: no callbacks, no borrowed
//! state, so that the other side can be another process. The side that writes is the side that verifies: only
//! `finish` and `recover`, there, make bytes a thing that can be activated.

use std::path::PathBuf;

use bytes::Bytes;
use downloader::Digest;
use serde::{Deserialize, Serialize};

use crate::Halt;
use crate::command::CommandFailure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Firmware,
    Config,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Firmware => "[firmware]",
            Self::Config => "[config]",
        })
    }
}

/// What an activation replaces, and so what a rollback must bring back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Before {
    Absent,
    File { digest: Digest },
}

/// The firmware that this agent committed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub version: String,
    pub digest: Digest,
}

#[allow(async_fn_in_trait, reason = "used with static dispatch on one thread only")]
pub trait Device {
    /// The kernel's id of this boot: what proves a reboot.
    async fn boot_id(&mut self) -> Result<String, DeviceError>;
    /// What was committed last, if the file in force still is that.
    async fn installed(&mut self) -> Result<Option<Installed>, DeviceError>;
    /// The configuration in force; `None` when there is none yet.
    async fn read_config(&mut self) -> Result<Option<Vec<u8>>, DeviceError>;

    /// Opens the place beside the target, and goes on with what of this digest is already there.
    /// Returns how many bytes that is.
    async fn begin(&mut self, target: Target, digest: Digest, size: Option<u64>) -> Result<u64, DeviceError>;
    /// The whole length is known: is there space for it?
    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError>;
    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError>;
    /// Forget what was written since `begin`: the object has changed.
    async fn restart(&mut self) -> Result<(), DeviceError>;
    /// Synced, read back, checked; returns what it would replace.
    async fn finish(&mut self) -> Result<Before, DeviceError>;
    /// After a restart: reads the bytes beside the target again. `false`: they are in force already.
    async fn recover(&mut self, target: Target, digest: Digest) -> Result<bool, DeviceError>;
    /// Removes what lies beside the target.
    async fn discard(&mut self, target: Target) -> Result<(), DeviceError>;

    /// Puts what `finish` or `recover` accepted in force; the previous file is kept.
    async fn activate(&mut self, target: Target) -> Result<(), DeviceError>;
    /// The configured command that makes a running system take it up, if there is one.
    async fn run_command(&mut self, target: Target, halt: &Halt) -> Result<(), DeviceError>;
    /// Brings back what was in force before. Can be repeated.
    async fn roll_back(&mut self, target: Target, before: Before) -> Result<(), DeviceError>;
    /// Records what is in force now.
    async fn commit(&mut self, installed: &Installed) -> Result<(), DeviceError>;

    async fn reboot(&mut self, halt: &Halt) -> Result<(), DeviceError>;
}

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
    #[error("{0} has neither the new bytes nor a copy of them beside it")]
    Lost(Target),
    #[error("the previous file of {0} is gone, or is not what it was")]
    PreviousLost(Target),
    #[error("nothing verified to activate for {0}")]
    NothingVerified(Target),
}

impl DeviceError {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotConfigured(_) => "not-configured",
            Self::NotAFile { .. } => "target-not-a-file",
            Self::Storage { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => "no-space",
            Self::Storage { .. } | Self::Lost(_) | Self::PreviousLost(_) | Self::NothingVerified(_) => {
                "storage-error"
            }
            Self::Staging(error) => error.reason(),
            Self::Verification(error) => error.reason(),
            Self::Command(failure) => failure.reason(),
        }
    }

    pub(crate) fn storage(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Storage { doing, path, source }
    }
}
