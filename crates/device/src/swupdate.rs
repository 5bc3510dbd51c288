//! Two slots that SWUpdate writes: it is given the verified bundle through its socket, and the mode that means the slot
//! that does not run. What boots is decided here, through the bootloader, and only after SWUpdate has said that it is
//! done: it writes before it knows whether what it writes is whole.

mod client;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use self::client::Client;
use self::wire::Selection;
use crate::boot::BootSettings;
use crate::device::{Before, Change, Effect, Order, Percent, RolledBack, Step, Target};
use crate::error::DeviceError;
use crate::pair::{Pair, Roles};
use crate::place::{Place, Stage};
use crate::staged::StagedFile;
use crate::storage::free_space;
use crate::{Halt, Installed};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwupdateTarget {
    pub software_set: String,
    /// For each slot, by the name that the bootloader has for it: the mode of the set that writes it.
    pub modes: BTreeMap<String, String>,
    pub control: PathBuf,
    pub progress: PathBuf,
    pub staging: PathBuf,
    pub timeout: Duration,
    pub boot: BootSettings,
}

impl SwupdateTarget {
    /// What fits into SWUpdate's messages.
    pub const MAX_NAME: usize = wire::MAX_NAME - 1;
}

pub(crate) struct SwupdatePlace {
    pair: Pair,
    client: Client,
    staged: StagedFile,
    software_set: String,
    modes: BTreeMap<String, String>,
}

impl SwupdatePlace {
    pub(crate) fn new(settings: SwupdateTarget, state_directory: &Path) -> Self {
        let SwupdateTarget { software_set, modes, control, progress, staging, timeout, boot } = settings;
        Self {
            pair: Pair::new(modes.keys(), boot, state_directory),
            client: Client { control, progress, timeout },
            staged: StagedFile::in_private_folder(Target::Firmware, &staging),
            software_set,
            modes,
        }
    }

    fn selection(&self, slot: &str) -> Selection<'_> {
        let mode = self.modes.get(slot).map_or("", String::as_str);
        Selection { software_set: &self.software_set, mode }
    }
}

#[async_trait(?Send)]
impl Place for SwupdatePlace {
    fn stage(&mut self) -> &mut dyn Stage {
        &mut self.staged
    }

    async fn before(&mut self) -> Result<Before, DeviceError> {
        let Roles { running, inactive } = self.pair.roles().await?;
        Ok(Before::Slot { booted: running, written: inactive })
    }

    async fn admit(&mut self, _: &Order) -> Result<(), DeviceError> {
        self.pair.roles().await?;
        self.client.ask().await.map(drop)
    }

    async fn plan(&mut self, order: &Order) -> Result<Vec<Step>, DeviceError> {
        let free = free_space(self.staged.path())?;
        if let Some(needed) = order.size.filter(|size| *size > free) {
            return Err(downloader::SinkError::NoSpace { needed, available: free }.into());
        }
        let Roles { running, inactive } = self.pair.roles().await?;
        let Selection { software_set, mode } = self.selection(&inactive);
        let (staged, control) = (self.staged.path().display(), self.client.control.display());
        let try_next = self.pair.bootloader.describe(&inactive);
        Ok(vec![
            Step::new("verifying", format!("{staged} is read back and compared with {}", order.digest)),
            Step::new(
                "installing",
                format!("slot {running} runs: mark slot {inactive} bad in the bootloader"),
            ),
            Step::new("installing", format!("SWUpdate ({control}) installs {software_set},{mode}")),
            Step::new(
                "installing",
                format!("{try_next}: slot {inactive} boots on trial, slot {running} after that"),
            ),
            Step::new("rebooting", format!("reboot, and see that slot {inactive} runs")),
        ])
    }

    async fn holds(&mut self, _: &Installed, slot: Option<&str>) -> Result<bool, DeviceError> {
        Ok(slot == Some(self.pair.running().await?.as_str()))
    }

    async fn booted(&mut self) -> Result<Option<String>, DeviceError> {
        self.pair.running().await.map(Some)
    }

    async fn activate(
        &mut self,
        change: &Change,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<Effect, DeviceError> {
        let (booted, written) = self.pair.slots_of(change)?;
        // A power cut after the bootloader was told and before that was in the journal: the trial runs already, and what
        // runs is not written.
        if self.pair.running().await? == written {
            return Ok(Effect::Now);
        }
        let Some(artifact) = self.staged.take_verified(change.digest).await? else {
            return Err(DeviceError::Lost(Target::Firmware));
        };
        self.pair.bootloader.mark_bad(written, booted).await?;
        self.client.install(artifact.path(), self.selection(written), halt, percent).await?;
        self.pair.bootloader.try_next(written, booted).await?;
        Ok(Effect::Reboot)
    }

    async fn take_up(&mut self, _: &Change, _: &Halt) -> Result<(), DeviceError> {
        Ok(())
    }

    async fn mark_good(&mut self, change: &Change) -> Result<(), DeviceError> {
        self.pair.mark_good(change).await
    }

    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError> {
        // An installation that was begun before the agent ended may still be under way, and change what boots at its end.
        self.client.settled().await;
        self.pair.roll_back(change).await
    }
}
