//! Two slots by their names, of which one runs: what is the same for every target that writes the other one and leaves
//! the choice to the bootloader.

use std::collections::BTreeSet;
use std::path::Path;

use crate::Target;
use crate::boot::{BootSettings, Bootloader};
use crate::device::{Before, Change, Effect, RolledBack};
use crate::error::DeviceError;

pub(crate) struct Pair {
    names: BTreeSet<String>,
    boot: BootSettings,
    pub(crate) bootloader: Box<dyn Bootloader>,
}

/// Which slot is which, at this moment.
pub(crate) struct Roles {
    pub(crate) running: String,
    pub(crate) inactive: String,
}

impl Pair {
    pub(crate) fn new<'n>(
        names: impl Iterator<Item = &'n String>,
        boot: BootSettings,
        scratch: &Path,
    ) -> Self {
        Self { names: names.cloned().collect(), bootloader: boot.bootloader(scratch), boot }
    }

    pub(crate) async fn running(&self) -> Result<String, DeviceError> {
        let running = self.boot.booted(self.bootloader.as_ref()).await?;
        if self.names.contains(&running) {
            return Ok(running);
        }
        let names = &self.names;
        Err(DeviceError::SlotUnknown(format!("slot {running:?} runs, and the configured ones are {names:?}")))
    }

    pub(crate) async fn roles(&self) -> Result<Roles, DeviceError> {
        let running = self.running().await?;
        match self.names.iter().find(|name| **name != running) {
            Some(inactive) => Ok(Roles { running, inactive: inactive.clone() }),
            None => Err(DeviceError::SlotUnknown("there is no slot but the one that runs".to_owned())),
        }
    }

    /// The slots of a change, the one before and the one written, if it is one of this configuration.
    pub(crate) fn slots_of<'c>(&self, change: &'c Change) -> Result<(&'c str, &'c str), DeviceError> {
        match &change.before {
            Before::Slot { booted, written }
                if self.names.contains(booted) && self.names.contains(written) =>
            {
                Ok((booted, written))
            }
            _ => Err(DeviceError::OtherConfiguration(Target::Firmware)),
        }
    }

    pub(crate) async fn mark_good(&self, change: &Change) -> Result<(), DeviceError> {
        let (_, written) = self.slots_of(change)?;
        let running = self.running().await?;
        if running != written {
            let why = format!("slot {running} runs, and slot {written} is to be marked good");
            return Err(DeviceError::SlotUnknown(why));
        }
        self.bootloader.mark_good(written).await
    }

    pub(crate) async fn roll_back(&self, change: &Change) -> Result<RolledBack, DeviceError> {
        let (booted, written) = self.slots_of(change)?;
        self.bootloader.mark_good(booted).await?;
        self.bootloader.mark_bad(written, booted).await?;
        // Where it cannot be told what runs, a reboot makes sure.
        let back = matches!(self.running().await, Ok(running) if running == booted);
        Ok(RolledBack { effect: if back { Effect::Now } else { Effect::Reboot }, remark: None })
    }
}
