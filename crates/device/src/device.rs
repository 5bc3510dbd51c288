//! The line between deciding and touching the device. Every call is a plain message: no callbacks, no borrowed
//! state, so that the other side can be another process. The side that writes is the side that verifies: only
//! `finish` and `activate`, there, make bytes a thing that can be in force.

use bytes::Bytes;
use downloader::Digest;
use release::Envelope;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Halt;
use crate::error::DeviceError;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Firmware,
    /// A configuration file, by its configured name.
    Config(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Firmware => f.write_str("[firmware]"),
            Self::Config(name) => write!(f, "[config] {name}"),
        }
    }
}

/// How the artifact is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// As a document has it.
    pub fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Xz, Self::Zstd].into_iter().find(|known| known.name() == name)
    }

    /// As a signed release has it, which names none where there is none.
    pub fn signed(self) -> Option<&'static str> {
        (self != Self::None).then_some(self.name())
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

/// What is to be staged, as far as it is known before the first byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub target: Target,
    /// Of the bytes as they arrive.
    pub digest: Digest,
    pub size: Option<u64>,
    /// What has to be undone on the way into the target.
    pub compression: Compression,
    /// Absent for a configuration.
    pub version: Option<String>,
    /// What the maker signed. Worth nothing until the device has verified it.
    pub release: Option<Envelope>,
    pub activate: When,
}

/// When what takes a reboot comes into force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    #[default]
    Now,
    /// Whoever orders that reboot.
    NextReboot,
}

/// What the device has verified of an order. Where no signatures are asked for, what the order says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    pub sequence: Option<u64>,
    pub size: Option<u64>,
}

/// What an activation replaces, and so what a rollback must bring back. Made by the target, and read by it alone but for
/// the slots, which tell after a start where the bootloader went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Before {
    Absent,
    File {
        digest: Digest,
    },
    /// The slot that runs, and the one that is written.
    Slot {
        booted: String,
        written: String,
    },
    /// Only the installer knows.
    Installer,
}

/// Firmware as an order names it and as a commit records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub version: String,
    pub digest: Digest,
    /// Of the signed release, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

impl Installed {
    /// Is there nothing to do for `wanted`? The same bytes under a higher sequence still have a floor to raise.
    pub fn covers(&self, wanted: &Self) -> bool {
        (&self.version, self.digest) == (&wanted.version, wanted.digest) && self.sequence >= wanted.sequence
    }
}

/// One change of what is in force, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub target: Target,
    pub digest: Digest,
    pub before: Before,
    /// Absent for a configuration.
    pub commit: Option<Installed>,
}

/// When a change is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    Now,
    Reboot,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    pub effect: Effect,
    /// What of it did not go well although what was before is back.
    pub remark: Option<String>,
}

/// What is known of the running system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's id of this boot: what proves a reboot.
    pub id: String,
    /// Where the target has slots and it can be told: the one that runs.
    pub slot: Option<String>,
    /// Of the firmware that was committed last, as recorded.
    pub version: Option<String>,
}

/// A part of what would happen, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// As the status updates would name it.
    pub phase: &'static str,
    pub text: String,
}

impl Step {
    pub fn new(phase: &'static str, text: impl Into<String>) -> Self {
        Self { phase, text: text.into() }
    }
}

/// What disturbs a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disturbance {
    UpdateFirmware,
    Reboot,
}

impl Disturbance {
    /// The operation, as a document has it.
    pub fn operation(self) -> &'static str {
        match self {
            Self::UpdateFirmware => "update-firmware",
            Self::Reboot => "reboot",
        }
    }
}

/// What the hook is told when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub operation: Disturbance,
    /// Absent for a reboot.
    pub version: Option<String>,
    pub job_id: String,
}

/// How far an activation is, 0 to 100, where the target knows. Latest wins.
pub type Percent = watch::Sender<u8>;

#[allow(async_fn_in_trait, reason = "used with static dispatch on one thread only")]
pub trait Device {
    async fn boot(&mut self) -> Result<Boot, DeviceError>;
    /// What was committed last, if that still is in force.
    async fn installed(&mut self) -> Result<Option<Installed>, DeviceError>;
    /// The configuration in force; `None` when there is none yet.
    async fn read_config(&mut self, name: &str) -> Result<Option<Vec<u8>>, DeviceError>;
    /// May this be installed here at all? Asked first: who signed it, for which hardware, and how far back it goes.
    async fn admit(&mut self, order: &Order) -> Result<Admitted, DeviceError>;

    /// Opens the place where the bytes go, and goes on with what of this digest is already there. Returns how many
    /// bytes that is. What the device will not take, or `admit` does not, is refused here, before a byte is fetched.
    async fn begin(&mut self, order: &Order) -> Result<u64, DeviceError>;
    /// The whole length is known: is there space for it?
    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError>;
    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError>;
    /// Forget what was written since `begin`: the object has changed.
    async fn restart(&mut self) -> Result<(), DeviceError>;
    /// Synced, read back, checked; returns what it would replace.
    async fn finish(&mut self) -> Result<Before, DeviceError>;
    /// What was staged and is not in force goes.
    async fn discard(&mut self, target: &Target) -> Result<(), DeviceError>;
    /// The same for every target.
    async fn discard_all(&mut self) -> Result<(), DeviceError>;

    /// Asks the configured hook, and everybody else who has a say. `false`: not now.
    async fn may_disturb(&mut self, question: &Question, halt: &Halt) -> Result<bool, DeviceError>;

    /// Puts what `finish` accepted in force. After a restart what was staged is read again first; what is in force
    /// already stays so. An activation that is halted has done nothing, or can be rolled back.
    async fn activate(
        &mut self,
        change: &Change,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<Effect, DeviceError>;
    /// Makes a running system take it up, and checks that it is well with it. Can be repeated.
    async fn confirm(&mut self, change: &Change, halt: &Halt) -> Result<(), DeviceError>;
    /// It stays: good in the bootloader's eyes, and recorded as installed. Can be repeated.
    async fn commit(&mut self, change: &Change) -> Result<(), DeviceError>;
    /// Brings back what was in force before. Can be repeated.
    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError>;

    async fn reboot(&mut self, halt: &Halt) -> Result<(), DeviceError>;
}
