//! Two slots, block devices or files, of which one runs. Images are written straight into the other one; the bootloader
//! boots it on trial.

mod decode;
mod partition;
mod record;
mod stage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use async_trait::async_trait;

use self::partition::Partition;
use self::record::{Content, Record};
use self::stage::SlotStage;
use crate::boot::BootSettings;
use crate::device::{Before, Change, Compression, Effect, Order, Percent, RolledBack, Step};
use crate::error::DeviceError;
use crate::pair::{self, Pair};
use crate::place::{Place, Stage};
use crate::{Halt, Installed, Target, blocking};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotsTarget {
    /// Two, by the names that the bootloader has for them.
    pub slots: BTreeMap<String, PathBuf>,
    pub boot: BootSettings,
}

pub(crate) struct SlotsPlace {
    layout: Rc<Layout>,
    stage: SlotStage,
}

/// What the stage and the place both ask.
struct Layout {
    slots: BTreeMap<String, PathBuf>,
    pair: Pair,
    state_directory: PathBuf,
}

/// Which slot is which, at this moment.
struct Roles {
    running: String,
    inactive: String,
    path: PathBuf,
}

impl Layout {
    async fn roles(&self) -> Result<Roles, DeviceError> {
        let pair::Roles { running, inactive } = self.pair.roles().await?;
        let path = self.path(&inactive);
        Ok(Roles { running, inactive, path })
    }

    fn path(&self, slot: &str) -> PathBuf {
        self.slots.get(slot).cloned().unwrap_or_default()
    }

    /// Opens the inactive slot, if it may be written. Takes nothing for granted: what it was at the start of the agent
    /// may be mounted now.
    async fn open(&self, roles: &Roles) -> Result<Partition, DeviceError> {
        let running = self.path(&roles.running);
        let (path, state) = (roles.path.clone(), self.state_directory.clone());
        blocking(move || {
            let partition = Partition::open(&path)?;
            partition.refuse_if_used(&running, &state)?;
            Ok(partition)
        })
        .await
    }

    fn record_file(&self) -> PathBuf {
        self.state_directory.join("slot.json")
    }
}

impl SlotsPlace {
    pub(crate) fn new(settings: SlotsTarget, state_directory: &Path) -> Self {
        let SlotsTarget { slots, boot } = settings;
        let pair = Pair::new(slots.keys(), boot, state_directory);
        let layout = Rc::new(Layout { slots, pair, state_directory: state_directory.to_owned() });
        Self { stage: SlotStage::new(Rc::clone(&layout)), layout }
    }

    /// What is in the slot is what was verified. After a restart it is read again.
    async fn is_written(&mut self, change: &Change, slot: &str) -> Result<bool, DeviceError> {
        if self.stage.take_verified(slot, change.digest) {
            return Ok(true);
        }
        let Some(record) = Record::read(&self.layout.record_file())? else { return Ok(false) };
        let Some(content) = record.content.filter(|_| record.slot == slot && record.digest == change.digest)
        else {
            return Ok(false);
        };
        let partition = self.layout.open(&self.layout.roles().await?).await?;
        blocking(move || Ok(Content::of(&partition.file, content.length)? == content)).await
    }
}

#[async_trait(?Send)]
impl Place for SlotsPlace {
    fn stage(&mut self) -> &mut dyn Stage {
        &mut self.stage
    }

    fn decompresses(&self) -> bool {
        true
    }

    async fn before(&mut self) -> Result<Before, DeviceError> {
        let roles = self.layout.roles().await?;
        Ok(Before::Slot { booted: roles.running, written: roles.inactive })
    }

    async fn admit(&mut self, order: &Order) -> Result<(), DeviceError> {
        // Over a restart of the stage: what is open for writing cannot be opened once more.
        self.stage.close();
        let partition = self.layout.open(&self.layout.roles().await?).await?;
        match order.size {
            Some(size) if order.compression == Compression::None => partition.has_room_for(size),
            _ => Ok(()),
        }
    }

    async fn plan(&mut self, order: &Order) -> Result<Vec<Step>, DeviceError> {
        let roles = self.layout.roles().await?;
        let (slot, running, path) = (&roles.inactive, &roles.running, roles.path.display());
        let size = self.layout.open(&roles).await?.size;
        let image = match order.compression {
            Compression::None => "the image".to_owned(),
            packed => format!("the image, decompressed from {},", packed.name()),
        };
        let try_next = self.layout.pair.bootloader.describe(slot);
        Ok(vec![
            Step::new("downloading", format!("slot {running} runs: mark slot {slot} bad in the bootloader")),
            Step::new(
                "downloading",
                format!("write {image} straight into slot {slot}, {path}: {size} bytes"),
            ),
            Step::new(
                "verifying",
                format!("{path} is read back and compared with {image}, {}", order.digest),
            ),
            Step::new(
                "installing",
                format!("{try_next}: slot {slot} boots on trial, slot {running} after that"),
            ),
            Step::new("rebooting", format!("reboot, and see that slot {slot} runs")),
        ])
    }

    async fn holds(&mut self, _: &Installed, slot: Option<&str>) -> Result<bool, DeviceError> {
        Ok(slot == Some(self.layout.pair.running().await?.as_str()))
    }

    async fn booted(&mut self) -> Result<Option<String>, DeviceError> {
        self.layout.pair.running().await.map(Some)
    }

    async fn activate(&mut self, change: &Change, _: &Halt, _: &Percent) -> Result<Effect, DeviceError> {
        let (booted, written) = self.layout.pair.slots_of(change)?;
        let running = self.layout.pair.running().await?;
        // A power cut after the bootloader was told and before that was in the journal: the trial runs already.
        if running == written {
            return Ok(Effect::Now);
        }
        if !self.is_written(change, written).await? {
            return Err(DeviceError::Lost(Target::Firmware));
        }
        self.layout.pair.bootloader.try_next(written, booted).await?;
        Ok(Effect::Reboot)
    }

    async fn take_up(&mut self, _: &Change, _: &Halt) -> Result<(), DeviceError> {
        Ok(())
    }

    async fn mark_good(&mut self, change: &Change) -> Result<(), DeviceError> {
        self.layout.pair.mark_good(change).await
    }

    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError> {
        self.layout.pair.roll_back(change).await
    }
}
