//! Bytes straight into the inactive slot, which no bootloader would boot meanwhile.

use std::rc::Rc;

use async_trait::async_trait;
use bytes::Bytes;
use downloader::{Digest, Writeback};

use super::partition::Partition;
use super::record::{Content, Record};
use super::{Layout, Roles};
use crate::device::{Order, Target};
use crate::error::DeviceError;
use crate::place::Stage;

/// Written and synced between two notes of how far it is: what a restart may have to fetch once more.
const NOTE_EVERY: u64 = 32 << 20;

pub(super) struct SlotStage {
    layout: Rc<Layout>,
    state: State,
}

/// Only `Verified` can be activated.
enum State {
    Nothing,
    Writing(Box<Writing>),
    Verified { slot: String, digest: Digest },
}

struct Writing {
    partition: Partition,
    slot: String,
    digest: Digest,
    size: Option<u64>,
    /// Only absent in between: while a new one is started.
    writeback: Option<Writeback>,
    position: u64,
    noted: u64,
    resumed: bool,
}

impl SlotStage {
    pub(super) fn new(layout: Rc<Layout>) -> Self {
        Self { layout, state: State::Nothing }
    }

    /// Lets go of the slot. Its threads have ended when this returns.
    pub(super) fn close(&mut self) {
        let State::Writing(writing) = std::mem::replace(&mut self.state, State::Nothing) else { return };
        let synced = writing.writeback.as_ref().map_or(0, Writeback::synced);
        if synced > writing.noted
            && let Err(error) = writing.record(synced, None).write(&self.layout.record_file())
        {
            tracing::warn!(%error, "how far the slot is written is not on disk: a restart begins further back");
        }
    }

    /// Was this what `finish` accepted? It is asked once.
    pub(super) fn take_verified(&mut self, slot: &str, digest: Digest) -> bool {
        let state = std::mem::replace(&mut self.state, State::Nothing);
        matches!(state, State::Verified { slot: s, digest: d } if s == slot && d == digest)
    }

    fn writing(&mut self) -> Result<&mut Writing, DeviceError> {
        match &mut self.state {
            State::Writing(writing) => Ok(writing),
            State::Nothing | State::Verified { .. } => Err(DeviceError::NothingVerified(Target::Firmware)),
        }
    }

    /// How much of this artifact is in the slot already. It is read again, so that nothing of it has to be believed.
    fn position(&self, roles: &Roles, order: &Order, partition: &Partition) -> Result<u64, DeviceError> {
        let record = Record::read(&self.layout.record_file())?;
        let ours = record.filter(|record| record.slot == roles.inactive && record.digest == order.digest);
        let most = order.size.unwrap_or(u64::MAX).min(partition.size);
        Ok(ours.map_or(0, |record| record.synced).min(most))
    }
}

/// An orderly stop in the middle of a transfer.
impl Drop for SlotStage {
    fn drop(&mut self) {
        self.close();
    }
}

impl Writing {
    fn record(&self, synced: u64, content: Option<Content>) -> Record {
        Record { slot: self.slot.clone(), digest: self.digest, synced, content }
    }
}

#[async_trait(?Send)]
impl Stage for SlotStage {
    async fn begin(&mut self, order: &Order) -> Result<u64, DeviceError> {
        self.close();
        let roles = self.layout.roles().await?;
        let partition = self.layout.open(&roles).await?;
        // Before the first byte: from here on only the running slot boots, whatever happens to this one.
        self.layout.pair.bootloader.mark_bad(&roles.inactive, &roles.running).await?;
        let position = self.position(&roles, order, &partition)?;
        let writeback = Writeback::start(&partition.file, position, partition.size)?;
        self.state = State::Writing(Box::new(Writing {
            partition,
            slot: roles.inactive,
            digest: order.digest,
            size: order.size,
            writeback: Some(writeback),
            position,
            noted: position,
            resumed: position > 0,
        }));
        Ok(position)
    }

    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError> {
        self.writing()?.partition.has_room_for(total)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError> {
        let file = self.layout.record_file();
        let writing = self.writing()?;
        let Some(writeback) = &mut writing.writeback else {
            return Err(DeviceError::NothingVerified(Target::Firmware));
        };
        writeback.push(bytes, &mut writing.position).await?;
        let synced = writeback.synced();
        if synced >= writing.noted + NOTE_EVERY {
            writing.noted = synced;
            writing.record(synced, None).write(&file)?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), DeviceError> {
        let file = self.layout.record_file();
        let writing = self.writing()?;
        writing.writeback = None; // waits: an old write must not land in the new object
        Record::remove(&file)?;
        writing.writeback = Some(Writeback::start(&writing.partition.file, 0, writing.partition.size)?);
        (writing.position, writing.noted, writing.resumed) = (0, 0, false);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), DeviceError> {
        let file = self.layout.record_file();
        let State::Writing(mut writing) = std::mem::replace(&mut self.state, State::Nothing) else {
            return Err(DeviceError::NothingVerified(Target::Firmware));
        };
        let Some(writeback) = writing.writeback.take() else {
            return Err(DeviceError::NothingVerified(Target::Firmware));
        };
        let hashed = writeback.finish().await?;
        hashed.check(writing.digest, writing.size, writing.resumed)?;
        writing.record(hashed.len, Some(hashed.into())).write(&file)?;
        self.state = State::Verified { slot: writing.slot, digest: writing.digest };
        Ok(())
    }

    /// The bytes stay where they are, in a slot that does not boot: there is nothing to remove but the record.
    async fn discard(&mut self) -> Result<(), DeviceError> {
        self.close();
        Record::remove(&self.layout.record_file())
    }
}
