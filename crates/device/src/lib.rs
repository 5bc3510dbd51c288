//! The line between deciding and touching the device, and the device as it is.
//!
//! Read `device.rs` for the line, `place.rs` for what every kind of target must be able to do, and `host.rs` for how
//! the one is made of the other.

mod boot;
mod command;
mod device;
mod error;
mod file;
mod floor;
mod gate;
mod group;
mod halt;
mod health;
mod hold;
mod hook;
mod host;
mod installer;
mod ledger;
mod pair;
mod place;
#[cfg(feature = "rauc")]
mod rauc;
mod remote;
mod slots;
mod staged;
mod storage;
mod swap;
mod swupdate;

pub use boot::{BootSettings, Booted, BootloaderKind};
pub use command::{CommandFailure, CommandSpec, answer};
pub use device::{
    Admitted, Before, Boot, Change, Compression, Device, Disturbance, Effect, Installed, Order, Percent,
    Question, RolledBack, Step, Target, When,
};
pub use error::DeviceError;
pub use file::FileTarget;
pub use gate::Trust;
pub use halt::{Halt, HaltKind};
pub use health::Health;
pub use hold::Holds;
pub use host::{Checked, FirmwareTarget, HostDevice, HostSettings, RebootSpec};
pub use installer::InstallerTarget;
#[cfg(feature = "rauc")]
pub use rauc::{RaucError, RaucTarget};
pub use remote::{Failure, PROTOCOL, RemoteDevice, Service, serve};
pub use slots::SlotsTarget;
pub use storage::{Durability, beside, read_bounded, remove_if_there, write_atomically};
pub use swupdate::SwupdateTarget;

/// Long work on files goes to a thread of its own: the loop must go on answering the broker.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
) -> Result<T, DeviceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(DeviceError::storage("work on", "a file")(std::io::Error::other(error))),
    }
}
