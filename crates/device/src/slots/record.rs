//! What is known of the inactive slot's content, on disk: a slot has no length and no name of its own.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use downloader::{Digest, Hashed, ReadBack};
use serde::{Deserialize, Serialize};

use crate::error::DeviceError;
use crate::storage::{Durability, read_bounded, remove_if_there, write_atomically};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub slot: String,
    /// Of the artifact, as the document has it.
    pub digest: Digest,
    /// So many bytes of it are in the slot, and would survive a power cut.
    pub synced: u64,
    /// All of it is there, verified, and is this.
    pub content: Option<Content>,
}

/// The image itself, decompressed where the artifact was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub digest: Digest,
    pub length: u64,
}

impl Content {
    /// Reads the slot back.
    pub(super) fn of(slot: &File, length: u64) -> Result<Self, DeviceError> {
        slot.sync_all().map_err(DeviceError::storage("sync", "the slot"))?;
        let mut read_back = ReadBack::new(slot);
        read_back.read_to(length, &AtomicBool::new(false))?;
        Ok(read_back.finish().into())
    }
}

impl From<Hashed> for Content {
    fn from(hashed: Hashed) -> Self {
        Self { digest: hashed.digest, length: hashed.len }
    }
}

impl Record {
    /// What cannot be read is as good as none: the slot is written again.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, DeviceError> {
        match read_bounded(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DeviceError::storage("read", path)(error)),
        }
    }

    /// A position that a power cut takes back costs a transfer; a verified image that is to be activated must be known.
    pub(super) fn write(&self, path: &Path) -> Result<(), DeviceError> {
        let durability = if self.content.is_some() { Durability::PowerCut } else { Durability::Process };
        serde_json::to_vec(self)
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(path, &bytes, durability))
            .map_err(DeviceError::storage("write", path))
    }

    pub(super) fn remove(path: &Path) -> Result<(), DeviceError> {
        remove_if_there(path).map(drop).map_err(DeviceError::storage("remove", path))
    }
}
