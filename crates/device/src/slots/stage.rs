//! Bytes straight into the inactive slot, which no bootloader would boot meanwhile.

use std::rc::Rc;

use async_trait::async_trait;
use bytes::Bytes;
use downloader::{Digest, SinkError, Writeback};

use super::decode::Decoder;
use super::partition::Partition;
use super::record::{Content, Record};
use super::{Layout, Roles};
use crate::device::{Compression, Order, Target};
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

/// On their way into the slot, bytes are taken as they are, or decompressed.
enum Engine {
    Plain(Writeback),
    Decoding(Decoder),
}

struct Writing {
    partition: Partition,
    slot: String,
    digest: Digest,
    size: Option<u64>,
    compression: Compression,
    /// Only absent in between: while a new one is started.
    engine: Option<Engine>,
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
        let synced = writing.engine.as_ref().map_or(0, Engine::synced);
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
        if order.compression != Compression::None {
            return Ok(0);
        }
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

impl Engine {
    fn start(partition: &Partition, position: u64, compression: Compression) -> Result<Self, DeviceError> {
        let writeback = Writeback::start(&partition.file, position, partition.size)?;
        Ok(match compression {
            Compression::None => Self::Plain(writeback),
            packed => Self::Decoding(Decoder::start(packed, writeback)?),
        })
    }

    async fn push(&mut self, bytes: Bytes, taken: &mut u64) -> Result<(), DeviceError> {
        match self {
            Self::Plain(writeback) => Ok(writeback.push(bytes, taken).await?),
            Self::Decoding(decoder) => decoder.push(bytes, taken).await,
        }
    }

    /// How much of the artifact is in the slot for good. A decoder cannot go on in the middle: nothing.
    fn synced(&self) -> u64 {
        match self {
            Self::Plain(writeback) => writeback.synced(),
            Self::Decoding(_) => 0,
        }
    }
}

impl Writing {
    /// Is it what was asked for, and does the slot have it?
    async fn check(&mut self) -> Result<Content, DeviceError> {
        let (arrived, written) = match self.engine.take() {
            None => return Err(DeviceError::NothingVerified(Target::Firmware)),
            Some(Engine::Plain(writeback)) => {
                let written = writeback.finish().await?;
                (written, written)
            }
            Some(Engine::Decoding(decoder)) => {
                let decoded = decoder.finish().await?;
                let written = decoded.writeback.finish().await?;
                if written != decoded.image {
                    let error = std::io::Error::other("the slot does not give back what was written to it");
                    return Err(SinkError::storage("read the image back", error).into());
                }
                (decoded.arrived, written)
            }
        };
        arrived.check(self.digest, self.size, self.resumed)?;
        if written.len == 0 {
            return Err(DeviceError::EmptyImage);
        }
        Ok(written.into())
    }

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
        let engine = Some(Engine::start(&partition, position, order.compression)?);
        self.state = State::Writing(Box::new(Writing {
            partition,
            slot: roles.inactive,
            digest: order.digest,
            size: order.size,
            compression: order.compression,
            engine,
            position,
            noted: position,
            resumed: position > 0,
        }));
        Ok(position)
    }

    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError> {
        let writing = self.writing()?;
        // How long the image is shows when it is decompressed.
        if writing.compression == Compression::None { writing.partition.has_room_for(total) } else { Ok(()) }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError> {
        let file = self.layout.record_file();
        let writing = self.writing()?;
        let Some(engine) = &mut writing.engine else {
            return Err(DeviceError::NothingVerified(Target::Firmware));
        };
        engine.push(bytes, &mut writing.position).await?;
        let synced = engine.synced();
        if synced >= writing.noted + NOTE_EVERY {
            writing.noted = synced;
            writing.record(synced, None).write(&file)?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), DeviceError> {
        let file = self.layout.record_file();
        let writing = self.writing()?;
        writing.engine = None; // waits: an old write must not land in the new object
        Record::remove(&file)?;
        writing.engine = Some(Engine::start(&writing.partition, 0, writing.compression)?);
        (writing.position, writing.noted, writing.resumed) = (0, 0, false);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), DeviceError> {
        let file = self.layout.record_file();
        let State::Writing(mut writing) = std::mem::replace(&mut self.state, State::Nothing) else {
            return Err(DeviceError::NothingVerified(Target::Firmware));
        };
        let content = writing.check().await?;
        writing.record(writing.position, Some(content)).write(&file)?;
        self.state = State::Verified { slot: writing.slot, digest: writing.digest };
        Ok(())
    }

    /// The bytes stay where they are, in a slot that does not boot: there is nothing to remove but the record.
    async fn discard(&mut self) -> Result<(), DeviceError> {
        self.close();
        Record::remove(&self.layout.record_file())
    }
}
