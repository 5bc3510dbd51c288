//! What a kind of target must be able to do. `file.rs` is the simplest one.

use async_trait::async_trait;
use bytes::Bytes;

use crate::device::{Before, Change, Effect, Order, Percent, RolledBack, Step};
use crate::error::DeviceError;
use crate::{Halt, Installed};

/// Where bytes arrive until they are verified: a file beside the target, or an inactive slot.
#[async_trait(?Send)]
pub(crate) trait Stage {
    /// See [`Device::begin`](crate::Device::begin), and so on.
    async fn begin(&mut self, order: &Order) -> Result<u64, DeviceError>;
    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError>;
    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError>;
    async fn restart(&mut self) -> Result<(), DeviceError>;
    async fn finish(&mut self) -> Result<(), DeviceError>;
    async fn discard(&mut self) -> Result<(), DeviceError>;
}

/// Where what was verified comes into force.
#[async_trait(?Send)]
pub(crate) trait Place {
    fn stage(&mut self) -> &mut dyn Stage;
    /// Does its stage take compressed bytes?
    fn decompresses(&self) -> bool {
        false
    }
    /// What an activation would replace now. Says no to what must not be replaced.
    async fn before(&mut self) -> Result<Before, DeviceError>;
    /// The same without reading it all: asked before a byte is fetched.
    async fn admit(&mut self, order: &Order) -> Result<(), DeviceError>;
    /// In words: from the verified bytes to the change in force.
    async fn plan(&mut self, order: &Order) -> Result<Vec<Step>, DeviceError>;
    /// Is this, which was committed while `slot` was running, in force now?
    async fn holds(&mut self, installed: &Installed, slot: Option<&str>) -> Result<bool, DeviceError>;
    /// The slot that runs. Told by the kernel or the bootloader, never remembered; `None` where there are none.
    async fn booted(&mut self) -> Result<Option<String>, DeviceError> {
        Ok(None)
    }
    async fn activate(
        &mut self,
        change: &Change,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<Effect, DeviceError>;
    /// Makes a running system take it up, where that is more than the reboot was.
    async fn take_up(&mut self, change: &Change, halt: &Halt) -> Result<(), DeviceError>;
    /// Good in the bootloader's eyes, where there is one.
    async fn mark_good(&mut self, change: &Change) -> Result<(), DeviceError>;
    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError>;
}
