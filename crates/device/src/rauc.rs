//! Firmware that RAUC installs: the bundle is fetched and verified here, given to RAUC's service over D-Bus, and what
//! RAUC wrote is read back before it may boot. RAUC knows the slots and the bootloader.

mod bundle;
mod bus;
mod error;
mod slots;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use downloader::{Digest, ReadBack};
use tokio::time::Instant;

use crate::device::{Before, Change, Effect, Order, Percent, RolledBack, Step, Target};
use crate::error::DeviceError;
use crate::place::{Place, Stage};
use crate::staged::StagedFile;
use crate::storage::{Durability, free_space, read_bounded, write_atomically};
use crate::{CommandSpec, Halt, Installed, blocking};
use bundle::{Manifest, Raw};
use bus::{Mark, Rauc};
pub use error::RaucError;
use slots::{Slot, Slots};

/// How long a RAUC that is not there, or at work, is waited for where no halt could end the wait. After a boot it may
/// come up later than the agent.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaucTarget {
    /// The folder where the bundle is received; nobody else may write to it.
    pub staging: PathBuf,
    /// RAUC's program and its options, for `rauc info`. Its time limit is that of an installation, too.
    pub command: CommandSpec,
    /// RAUC 1.8 misbehaves with bundles of 2 GiB and more.
    pub max_bundle: u64,
    /// Off where a slot does not keep the bytes of its image: `resize=true`.
    pub read_back: bool,
}

pub(crate) struct RaucPlace {
    settings: RaucTarget,
    staged: StagedFile,
    /// The file that says what was in the slot when it was committed.
    stamp: PathBuf,
    /// Does not change while this process lives.
    booted: Option<String>,
    /// What `before` accepted, for the `activate` that follows it. Nothing has been written as long as it is here.
    accepted: Option<Manifest>,
}

impl RaucPlace {
    pub(crate) fn new(settings: RaucTarget, state_directory: &Path) -> Self {
        let staged = StagedFile::in_private_folder(Target::Firmware, &settings.staging);
        let stamp = state_directory.join("rauc-installed");
        Self { settings, staged, stamp, booted: None, accepted: None }
    }

    async fn inspect(&self) -> Result<Manifest, RaucError> {
        bundle::inspect(&self.settings.command, self.staged.path()).await
    }

    /// Everything about the bundle that must hold before RAUC overwrites a slot: it finds out too late by itself.
    async fn accept(&self, rauc: &Rauc, slots: &Slots) -> Result<Manifest, DeviceError> {
        let size = std::fs::metadata(self.staged.path())
            .map_err(DeviceError::storage("look at", self.staged.path()))?;
        self.fits(size.len())?;
        let manifest = self.inspect().await?;
        let compatible = rauc.property("Compatible").await?;
        if manifest.compatible != compatible {
            return Err(RaucError::Incompatible { found: manifest.compatible, expected: compatible }.into());
        }
        let written = &slots.other()?.name;
        for raw in manifest.raw(&rauc.property("Variant").await?)? {
            let Some(slot) = slots.receives(&raw.class, written) else { continue };
            let room = room(slot).await?;
            if room < raw.size {
                return Err(RaucError::SlotTooSmall {
                    file: raw.file,
                    size: raw.size,
                    slot: slot.name.clone(),
                    device: slot.device.clone(),
                    room,
                }
                .into());
            }
        }
        Ok(manifest)
    }

    fn fits(&self, size: u64) -> Result<(), RaucError> {
        let most = self.settings.max_bundle;
        if size > most { Err(RaucError::TooLarge { size, most }) } else { Ok(()) }
    }

    /// Does every image that is written byte for byte stand in its slot?
    async fn read_back(
        &self,
        images: &[Raw],
        slots: &Slots,
        written: &str,
        halt: &Halt,
    ) -> Result<(), DeviceError> {
        for raw in images.iter().filter(|_| self.settings.read_back) {
            let Some(slot) = slots.receives(&raw.class, written) else { continue };
            let found = digest_of(slot, raw.size, halt).await?;
            if found != raw.digest {
                let (slot, file) = (slot.name.clone(), raw.file.clone());
                return Err(RaucError::NotWritten { slot, file, expected: raw.digest, found }.into());
            }
        }
        Ok(())
    }

    /// RAUC had made it boot next, and a reboot that nobody here ordered came in between: is it what was ordered? A
    /// slot that is mounted writable has other bytes by now, and then RAUC's record must do.
    async fn shown(
        &self,
        images: &[Raw],
        slots: &Slots,
        written: &str,
        halt: &Halt,
    ) -> Result<(), DeviceError> {
        let recorded = |raw: &&Raw| {
            let slot = slots.receives(&raw.class, written);
            let sum = slot.and_then(|slot| slot.sha256.as_ref());
            sum.is_some_and(|sum| format!("sha256:{sum}") == raw.digest.to_string())
        };
        let rest: Vec<_> = images.iter().filter(|raw| !recorded(raw)).cloned().collect();
        if images.is_empty() || (!rest.is_empty() && !self.settings.read_back) {
            return Err(RaucError::NotShown { slot: written.to_owned() }.into());
        }
        self.read_back(&rest, slots, written, halt).await
    }

    async fn boots_next(&self, rauc: &Rauc, slot: &str) -> Result<(), RaucError> {
        rauc.mark(Mark::Active, slot).await?;
        let primary = rauc.primary().await?;
        if primary == slot {
            return Ok(());
        }
        let message = format!("{primary} boots next");
        Err(RaucError::Refused { call: "make the slot boot next", message })
    }
}

#[async_trait(?Send)]
impl Place for RaucPlace {
    fn stage(&mut self) -> &mut dyn Stage {
        &mut self.staged
    }

    async fn before(&mut self) -> Result<Before, DeviceError> {
        self.accepted = None;
        let (rauc, slots) = idle(PATIENCE).await?;
        self.accepted = Some(self.accept(&rauc, &slots).await?);
        Ok(Before::Slot { booted: slots.booted()?.name.clone(), written: slots.other()?.name.clone() })
    }

    async fn admit(&mut self, order: &Order) -> Result<(), DeviceError> {
        self.fits(order.size.unwrap_or(0))?;
        let (_, slots) = idle(Duration::ZERO).await?;
        Ok(slots.other().map(drop)?)
    }

    async fn plan(&mut self, order: &Order) -> Result<Vec<Step>, DeviceError> {
        let (_, slots) = idle(Duration::ZERO).await?;
        let (booted, written) = (&slots.booted()?.name, &slots.other()?.name);
        let staged = self.staged.path();
        let free = free_space(staged)?;
        if let Some(needed) = order.size.filter(|size| *size > free) {
            return Err(downloader::SinkError::NoSpace { needed, available: free }.into());
        }
        Ok(vec![
            Step::new(
                "verifying",
                format!("{} is read back and compared with {}", staged.display(), order.digest),
            ),
            Step::new(
                "verifying",
                "RAUC checks the bundle's signature; its images must fit into their slots",
            ),
            Step::new(
                "installing",
                format!("RAUC installs it into {written}; {booted} runs and is left alone"),
            ),
            Step::new("installing", format!("read {written} back, and make it boot next")),
            Step::new("rebooting", format!("reboot; if {written} does not come up, {booted} does again")),
        ])
    }

    async fn holds(&mut self, _: &Installed, slot: Option<&str>) -> Result<bool, DeviceError> {
        let (_, slots) = idle(PATIENCE).await?;
        let booted = slots.booted()?;
        let stamp = read_bounded(&self.stamp).unwrap_or_default();
        Ok(slot == Some(&booted.name) && stamp == booted.stamp().as_bytes())
    }

    async fn booted(&mut self) -> Result<Option<String>, DeviceError> {
        if self.booted.is_none() {
            self.booted = Some(idle(PATIENCE).await?.1.booted()?.name.clone());
        }
        Ok(self.booted.clone())
    }

    async fn activate(
        &mut self,
        change: &Change,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<Effect, DeviceError> {
        let (booted, written) = of(change)?;
        let lost = || DeviceError::Lost(Target::Firmware);
        let staged = self.staged.take_verified(change.digest).await?.ok_or_else(lost)?;
        // Also for what an agent before this one began, and RAUC has not ended yet.
        let (rauc, slots) = tokio::select! {
            idle = idle(self.settings.command.timeout) => idle?,
            () = halt.stopped() => return Err(DeviceError::halted("the wait for RAUC")),
        };
        let variant = rauc.property("Variant").await?;
        let runs = &slots.booted()?.name;
        if runs == written {
            let images = self.inspect().await?.raw(&variant)?;
            self.shown(&images, &slots, written, halt).await?;
            return Ok(Effect::Now);
        }
        if runs != booted {
            return Err(RaucError::OtherBooted { found: runs.clone(), expected: booted.to_owned() }.into());
        }
        let images = match &self.accepted {
            Some(manifest) => manifest.raw(&variant)?,
            None => self.accept(&rauc, &slots).await?.raw(&variant)?,
        };
        let accepted = self.accepted.take();
        let installed = rauc.install(staged.path(), self.settings.command.timeout, halt, percent).await;
        if let Err(DeviceError::Rauc(RaucError::Busy)) = installed {
            self.accepted = accepted;
        }
        installed?;
        // RAUC has made it boot next already, unless its configuration says otherwise: not before it is read back.
        rauc.mark(Mark::Bad, written).await?;
        self.read_back(&images, &rauc.slots().await?, written, halt).await?;
        self.boots_next(&rauc, written).await?;
        Ok(Effect::Reboot)
    }

    async fn take_up(&mut self, _: &Change, _: &Halt) -> Result<(), DeviceError> {
        Ok(())
    }

    async fn mark_good(&mut self, change: &Change) -> Result<(), DeviceError> {
        let (_, written) = of(change)?;
        let (rauc, slots) = idle(PATIENCE).await?;
        let booted = slots.booted()?;
        if booted.name != written {
            let (found, expected) = (booted.name.clone(), written.to_owned());
            return Err(RaucError::OtherBooted { found, expected }.into());
        }
        rauc.mark(Mark::Good, written).await?;
        let path = &self.stamp;
        // Without it the same firmware would be installed once more, and that is all.
        if let Err(error) = write_atomically(path, booted.stamp().as_bytes(), Durability::PowerCut) {
            tracing::warn!(path = %path.display(), %error, "what the slot holds is not recorded");
        }
        Ok(())
    }

    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError> {
        let (booted, written) = of(change)?;
        // The other slot is what it was, and may be the system that this one falls back to.
        if self.accepted.take().is_some() {
            return Ok(RolledBack { effect: Effect::Now, remark: None });
        }
        let (rauc, slots) = idle(self.settings.command.timeout).await?;
        let bad = rauc.mark(Mark::Bad, written).await;
        self.boots_next(&rauc, booted).await?;
        bad?;
        let runs = slots.booted().is_ok_and(|slot| slot.name == booted);
        Ok(RolledBack { effect: if runs { Effect::Now } else { Effect::Reboot }, remark: None })
    }
}

fn of(change: &Change) -> Result<(&str, &str), DeviceError> {
    match &change.before {
        Before::Slot { booted, written } => Ok((booted, written)),
        _ => Err(DeviceError::OtherConfiguration(Target::Firmware)),
    }
}

/// RAUC and its slots, as soon as it is there and has nothing to do.
async fn idle(patience: Duration) -> Result<(Rauc, Slots), RaucError> {
    let start = Instant::now();
    loop {
        let error = match ask().await {
            Err(error @ RaucError::Busy) if start.elapsed() < patience => error,
            Err(error @ RaucError::Unreachable(_)) if start.elapsed() < patience.min(PATIENCE) => error,
            answered => return answered,
        };
        tracing::debug!(%error, "waiting for RAUC");
        tokio::time::sleep(POLL).await;
    }
}

async fn ask() -> Result<(Rauc, Slots), RaucError> {
    let rauc = Rauc::connect().await?;
    let slots = rauc.slots().await?;
    Ok((rauc, slots))
}

/// What a slot takes; no limit where its device does not tell.
async fn room(slot: &Slot) -> Result<u64, DeviceError> {
    let device = PathBuf::from(&slot.device);
    blocking(move || {
        use std::io::{Seek, SeekFrom};
        let end = File::open(&device).and_then(|mut file| file.seek(SeekFrom::End(0)));
        // A flash volume is a character device: it has no end to seek to.
        end.map(|end| if end == 0 { u64::MAX } else { end }).map_err(DeviceError::storage("look at", device))
    })
    .await
}

/// Of the first `size` bytes of the slot, as its storage has them. A stop ends it early.
async fn digest_of(slot: &Slot, size: u64, halt: &Halt) -> Result<Digest, DeviceError> {
    let (device, stop) = (PathBuf::from(&slot.device), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let reading = blocking(move || {
        let file = File::open(&device).map_err(DeviceError::storage("read back", device))?;
        let mut read_back = ReadBack::new(&file);
        read_back.read_to(size, &stopped)?;
        Ok(read_back.finish().digest)
    });
    tokio::select! {
        digest = reading => digest,
        () = halt.stopped() => {
            stop.store(true, Ordering::Relaxed);
            Err(DeviceError::halted("the slot's reading"))
        }
    }
}
