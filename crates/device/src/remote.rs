//! The line as a socket: [`RemoteDevice`] is the device for the process that has the network, and [`serve`] answers it
//! in the process that has the privileges.
//!
//! ```text
//! client                               server
//!   hello {protocol}            ──►
//!                               ◄──    hello {protocol}, or refused
//!   call                        ──►
//!   halt (may come meanwhile)   ──►
//!                               ◄──    percent (any number)
//!                               ◄──    done or failed (and the bytes of a configuration behind it)
//! ```
//!
//! Between `begin` and `finish` the artifact's bytes are frames of their own, each answered like a call. A connection is
//! a life of the device: what is not on disk is forgotten with it, as after a restart.

mod client;
mod frame;
mod server;

pub use client::RemoteDevice;
pub use server::{Service, serve};

use serde::{Deserialize, Serialize};

use crate::device::{Change, Order, Question, Target};
use crate::{DeviceError, HaltKind};

/// Raised with every change of what is said here: both processes are of one package.
pub const PROTOCOL: u32 = 1;
/// A message of an error is for a person.
const MAX_TEXT: usize = 2000;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum ToServer<C> {
    Hello { protocol: u32 },
    Call(C),
    Halt(HaltKind),
}

/// `T` is what the call is answered with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum ToClient<T> {
    Hello { protocol: u32 },
    Refused(String),
    Percent(u8),
    Done(T),
    Failed(Failure),
}

/// The methods of [`Device`](crate::Device), but for `write`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Call {
    Boot,
    Installed,
    ReadConfig { name: String },
    Admit { order: Order },
    Begin { order: Order },
    Reserve { total: u64 },
    Restart,
    Finish,
    Discard { target: Target },
    DiscardAll,
    MayDisturb { question: Question },
    Activate { change: Change },
    Confirm { change: Change },
    Commit { change: Change },
    RollBack { change: Change },
    Reboot,
}

/// What of a [`DeviceError`] crosses the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Failure {
    reason: String,
    message: String,
    halt: bool,
    transient: bool,
}

impl Failure {
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn is_halt(&self) -> bool {
        self.halt
    }

    pub(crate) fn is_transient(&self) -> bool {
        self.transient
    }
}

impl From<&DeviceError> for Failure {
    fn from(error: &DeviceError) -> Self {
        Self {
            reason: error.reason().to_owned(),
            message: error.to_string().chars().take(MAX_TEXT).collect(),
            halt: error.is_halt(),
            transient: error.is_transient(),
        }
    }
}
