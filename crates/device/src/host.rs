//! The device as it is: each target in its place, and the kernel.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use downloader::Digest;
use serde::{Deserialize, Serialize};

use crate::command::{self, CommandSpec};
use crate::device::{
    Admitted, Before, Boot, Change, Compression, Device, Effect, Installed, Order, Percent, Question,
    RolledBack, Step, Target,
};
use crate::error::DeviceError;
use crate::file::{FilePlace, FileTarget};
use crate::gate::{Gate, Trust};
use crate::installer::{InstallerPlace, InstallerTarget};
use crate::place::{Place, Stage};
use crate::slots::{SlotsPlace, SlotsTarget};
use crate::storage::{Durability, read_bounded, write_atomically};
use crate::swupdate::{SwupdatePlace, SwupdateTarget};
use crate::{Halt, Health, Holds, hold};

/// A configuration file beyond this is not one.
const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct HostSettings {
    /// Where `installed.json` is kept.
    pub state_directory: PathBuf,
    pub firmware: Option<Checked<FirmwareTarget>>,
    /// By name.
    pub configs: BTreeMap<String, Checked<FileTarget>>,
    pub reboot: RebootSpec,
    /// Asked before the device is disturbed.
    pub hook: Option<CommandSpec>,
    /// Who is asked besides.
    pub holds: Holds,
    /// Whose signature firmware needs. `None`: nobody's.
    pub trust: Option<Trust>,
    /// The names of this hardware, as a signed release may know it.
    pub compatible: Vec<String>,
}

/// A target, and what must hold for a change of it to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T> {
    pub target: T,
    pub health: Health,
}

/// What kind of target firmware goes to. The one place that tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirmwareTarget {
    File(FileTarget),
    Command(InstallerTarget),
    Slots(SlotsTarget),
    #[cfg(feature = "rauc")]
    Rauc(crate::RaucTarget),
    Swupdate(SwupdateTarget),
}

impl FirmwareTarget {
    fn place(self, state_directory: &Path) -> Box<dyn Place> {
        match self {
            Self::File(target) => Box::new(FilePlace::new(Target::Firmware, target)),
            Self::Command(target) => Box::new(InstallerPlace::new(target)),
            Self::Slots(target) => Box::new(SlotsPlace::new(target, state_directory)),
            #[cfg(feature = "rauc")]
            Self::Rauc(target) => Box::new(crate::rauc::RaucPlace::new(target, state_directory)),
            Self::Swupdate(target) => Box::new(SwupdatePlace::new(target, state_directory)),
        }
    }

    /// Where the bytes arrive, if that is a file and its folder is there.
    pub fn staging_folder(&self) -> Option<&Path> {
        match self {
            Self::File(target) => target.file.parent(),
            Self::Command(target) => Some(target.staging.as_path()),
            Self::Slots(_) => None,
            #[cfg(feature = "rauc")]
            Self::Rauc(target) => Some(target.staging.as_path()),
            Self::Swupdate(target) => Some(target.staging.as_path()),
        }
        .filter(|folder| folder.is_dir())
    }
}

#[derive(Debug, Clone)]
pub struct RebootSpec {
    pub command: CommandSpec,
    /// `/proc/sys/kernel/random/boot_id`, except where a device is simulated.
    pub boot_id_file: PathBuf,
}

pub struct HostDevice {
    settings: HostSettings,
    firmware: Option<Checked<Box<dyn Place>>>,
    configs: BTreeMap<String, Checked<FilePlace>>,
    gate: Gate,
    receiving: Option<Receiving>,
}

/// What bytes are being written to, as it was admitted.
struct Receiving {
    target: Target,
    digest: Digest,
    /// What a commit will record.
    commit: Option<Installed>,
    /// Of the whole artifact, where it was announced: a byte more is not taken.
    length: Option<u64>,
    left: u64,
}

impl Receiving {
    fn begin(order: &Order, sequence: Option<u64>, position: u64) -> Self {
        let commit = (order.target == Target::Firmware).then(|| Installed {
            version: order.version.clone().unwrap_or_default(),
            digest: order.digest,
            sequence,
        });
        let mut receiving =
            Self { target: order.target.clone(), digest: order.digest, commit, length: order.size, left: 0 };
        receiving.begin_at(position);
        receiving
    }

    fn begin_at(&mut self, position: u64) {
        self.left = self.length.unwrap_or(u64::MAX).saturating_sub(position);
    }

    fn take(&mut self, bytes: &Bytes) -> Result<(), DeviceError> {
        let expected = self.length.unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(DeviceError::TooLong { expected })?;
        Ok(())
    }
}

/// What was committed last.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    installed: Installed,
    /// The slot that was running then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slot: Option<String>,
}

impl HostDevice {
    pub fn new(settings: HostSettings) -> Self {
        let firmware = settings.firmware.clone();
        let firmware = firmware.map(|Checked { target, health }| Checked {
            target: target.place(&settings.state_directory),
            health,
        });
        let configs = settings.configs.iter().map(|(name, Checked { target, health })| {
            let place = FilePlace::new(Target::Config(name.clone()), target.clone());
            (name.clone(), Checked { target: place, health: health.clone() })
        });
        Self { firmware, configs: configs.collect(), gate: Gate::new(&settings), receiving: None, settings }
    }

    fn place(&mut self, target: &Target) -> Result<(&mut dyn Place, &Health), DeviceError> {
        let unknown = || DeviceError::NotConfigured(target.clone());
        match target {
            Target::Firmware => {
                let firmware = self.firmware.as_mut().ok_or_else(unknown)?;
                Ok((firmware.target.as_mut(), &firmware.health))
            }
            Target::Config(name) => {
                let config = self.configs.get_mut(name).ok_or_else(unknown)?;
                Ok((&mut config.target, &config.health))
            }
        }
    }

    /// The order, with the length that was signed in place of what the job says, and the sequence.
    async fn admitted(&mut self, order: &Order) -> Result<(Order, Option<u64>), DeviceError> {
        let Admitted { size, sequence } = self.admit(order).await?;
        Ok((Order { size, ..order.clone() }, sequence))
    }

    fn receiving(&mut self) -> Result<&mut Receiving, DeviceError> {
        self.receiving.as_mut().ok_or(DeviceError::NothingVerified(Target::Firmware))
    }

    fn stage(&mut self) -> Result<&mut dyn Stage, DeviceError> {
        let target = self.receiving()?.target.clone();
        Ok(self.place(&target)?.0.stage())
    }

    /// Is the device between `begin` and `finish`?
    pub fn is_receiving(&self) -> bool {
        self.receiving.is_some()
    }

    fn expect_verified(&self, change: &Change) -> Result<(), DeviceError> {
        if self.gate.knows(change)? {
            Ok(())
        } else {
            Err(DeviceError::NotVerifiedHere(change.target.clone()))
        }
    }

    /// A repetition: a restart came after the commit and before the journal had it.
    fn is_committed(&self, change: &Change) -> Result<bool, DeviceError> {
        let (Some(installed), Target::Firmware) = (&change.commit, &change.target) else { return Ok(false) };
        Ok(!self.gate.knows(change)? && self.record()?.is_some_and(|record| record.installed == *installed))
    }

    fn record_path(&self) -> PathBuf {
        self.settings.state_directory.join("installed.json")
    }

    fn record(&self) -> Result<Option<Record>, DeviceError> {
        let path = self.record_path();
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DeviceError::storage("read", path)(error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the record of what is installed cannot be read, and is ignored");
                Ok(None)
            }
        }
    }

    /// What this order would do, without doing it.
    pub async fn plan(&mut self, order: &Order) -> Result<Vec<Step>, DeviceError> {
        let (order, _) = &self.admitted(order).await?;
        let (place, health) = self.place(&order.target)?;
        admit(place, order).await?;
        let mut steps = place.plan(order).await?;
        steps.extend(health.checks.iter().map(|check| {
            let text = format!("check its health within {} s: {check}", health.within.as_secs());
            Step::new("confirming", text)
        }));
        Ok(steps)
    }

    async fn booted(&mut self) -> Result<Option<String>, DeviceError> {
        match &mut self.firmware {
            Some(firmware) => firmware.target.booted().await,
            None => Ok(None),
        }
    }
}

async fn admit(place: &mut dyn Place, order: &Order) -> Result<(), DeviceError> {
    if order.compression != Compression::None && !place.decompresses() {
        return Err(DeviceError::CompressionUnsupported(order.compression));
    }
    place.admit(order).await
}

impl Device for HostDevice {
    async fn boot(&mut self) -> Result<Boot, DeviceError> {
        let path = &self.settings.reboot.boot_id_file;
        let text = read_bounded(path).map_err(DeviceError::storage("read the boot id in", path))?;
        let id = String::from_utf8_lossy(&text).trim().to_owned();
        let slot = self.booted().await.unwrap_or_else(|error| {
            tracing::error!(%error, "it cannot be told which slot runs");
            None
        });
        let version = self.record().ok().flatten().map(|record| record.installed.version);
        Ok(Boot { id, slot, version })
    }

    async fn installed(&mut self) -> Result<Option<Installed>, DeviceError> {
        let record = self.record()?;
        let (Some(record), Some(firmware)) = (record, &mut self.firmware) else { return Ok(None) };
        let holds = firmware.target.holds(&record.installed, record.slot.as_deref()).await?;
        Ok(holds.then_some(record.installed))
    }

    async fn read_config(&mut self, name: &str) -> Result<Option<Vec<u8>>, DeviceError> {
        let target = || DeviceError::NotConfigured(Target::Config(name.to_owned()));
        let path = &self.settings.configs.get(name).ok_or_else(target)?.target.file;
        match std::fs::metadata(path) {
            Ok(found) if found.len() > MAX_CONFIG_BYTES => {
                let error = io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("more than {MAX_CONFIG_BYTES} bytes"),
                );
                Err(DeviceError::storage("read", path)(error))
            }
            Ok(_) => std::fs::read(path).map(Some).map_err(DeviceError::storage("read", path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DeviceError::storage("read", path)(error)),
        }
    }

    async fn admit(&mut self, order: &Order) -> Result<Admitted, DeviceError> {
        self.place(&order.target)?;
        self.gate.admit(order)
    }

    async fn begin(&mut self, order: &Order) -> Result<u64, DeviceError> {
        self.receiving = None;
        let (order, sequence) = &self.admitted(order).await?;
        if let (Target::Config(_), true) = (&order.target, order.size.is_none_or(|s| s > MAX_CONFIG_BYTES)) {
            return Err(DeviceError::TooLong { expected: MAX_CONFIG_BYTES });
        }
        let (place, _) = self.place(&order.target)?;
        admit(place, order).await?;
        let position = place.stage().begin(order).await?;
        self.receiving = Some(Receiving::begin(order, *sequence, position));
        Ok(position)
    }

    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError> {
        self.stage()?.reserve(total).await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError> {
        self.receiving()?.take(&bytes)?;
        self.stage()?.write(bytes).await
    }

    async fn restart(&mut self) -> Result<(), DeviceError> {
        self.stage()?.restart().await?;
        self.receiving()?.begin_at(0);
        Ok(())
    }

    async fn finish(&mut self) -> Result<Before, DeviceError> {
        let received = self.receiving.take().ok_or(DeviceError::NothingVerified(Target::Firmware))?;
        let Receiving { target, digest, commit, .. } = received;
        let (place, _) = self.place(&target)?;
        place.stage().finish().await?;
        let before = place.before().await?;
        self.gate.verified(&Change { target, digest, before: before.clone(), commit })?;
        Ok(before)
    }

    async fn discard(&mut self, target: &Target) -> Result<(), DeviceError> {
        self.receiving = None;
        match self.place(target) {
            Ok((place, _)) => place.stage().discard().await,
            // Of what is not configured there is nothing.
            Err(_) => Ok(()),
        }
    }

    async fn discard_all(&mut self) -> Result<(), DeviceError> {
        self.receiving = None;
        let mut result = Ok(());
        // One that cannot be cleaned does not keep the others dirty.
        if let Some(firmware) = &mut self.firmware {
            result = firmware.target.stage().discard().await;
        }
        for config in self.configs.values_mut() {
            result = config.target.stage().discard().await.and(result);
        }
        result
    }

    async fn may_disturb(&mut self, question: &Question, halt: &Halt) -> Result<bool, DeviceError> {
        hold::ask(&self.settings.holds, self.settings.hook.as_ref(), question, halt).await
    }

    async fn activate(
        &mut self,
        change: &Change,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<Effect, DeviceError> {
        self.expect_verified(change)?;
        self.place(&change.target)?.0.activate(change, halt, percent).await
    }

    async fn confirm(&mut self, change: &Change, halt: &Halt) -> Result<(), DeviceError> {
        if !self.is_committed(change)? {
            self.expect_verified(change)?;
        }
        let (place, health) = self.place(&change.target)?;
        place.take_up(change, halt).await?;
        health.check(halt).await
    }

    async fn commit(&mut self, change: &Change) -> Result<(), DeviceError> {
        if self.is_committed(change)? {
            return Ok(());
        }
        self.expect_verified(change)?;
        self.place(&change.target)?.0.mark_good(change).await?;
        let Some(installed) = change.commit.clone() else { return Ok(()) };
        let installed = self.gate.verified_part(installed);
        let (path, slot, sequence) = (self.record_path(), self.booted().await?, installed.sequence);
        serde_json::to_vec(&Record { installed, slot })
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&path, &bytes, Durability::PowerCut))
            .map_err(DeviceError::storage("write", path))?;
        // Last: what could still be undone must not have raised it.
        self.gate.committed(sequence)
    }

    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError> {
        self.expect_verified(change)?;
        self.place(&change.target)?.0.roll_back(change).await
    }

    async fn reboot(&mut self, halt: &Halt) -> Result<(), DeviceError> {
        Ok(command::run(&self.settings.reboot.command, halt).await?)
    }
}
