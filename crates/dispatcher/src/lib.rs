//! A job document becomes an [`Operation`], and an operation becomes an [`Outcome`].
//!
//! Read `operation.rs` for what is understood, `dispatcher.rs` for the order in which it is done, `resume.rs` for
//! what happens after a restart, and `device.rs` for the line between deciding and touching the device.

mod command;
mod config;
mod device;
mod dispatcher;
mod firmware;
mod group;
mod host;
mod journal;
mod operation;
mod outcome;
mod plan;
mod reboot;
mod resume;
mod storage;
mod swap;

pub use command::{CommandFailure, CommandSpec};
pub use device::{Before, Device, DeviceError, Installed, Target};
pub use dispatcher::{Context, Dispatcher, Ended, Halt, HaltKind};
pub use host::{FileTarget, HostDevice, HostSettings, RebootSpec};
pub use journal::{Entry, ExecutionId, Journal, JournalError, Phase};
pub use operation::{DocumentError, Mode, Operation, Parsed, Reboot, Rules, UpdateConfig, UpdateFirmware};
pub use outcome::{Outcome, Progress, Verdict};
pub use plan::{Step, describe};
pub use resume::{AfterStart, OnOffer, after_start, on_offer};
pub use storage::{Durability, write_atomically};
