//! The sink on disk.
use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{Digest, Sink, SinkError, VerifiedArtifact, VerifyError};

/// A file that is being received.
pub struct Staging {
    path: PathBuf,
}

impl Staging {
    /// An empty file at `path`. What is there already is emptied.
    pub fn create(path: &Path, _digest: Digest, _size: Option<u64>) -> Result<Self, SinkError> {
        Ok(Self { path: path.to_owned() })
    }

    /// Goes on with the file at `path`, or starts an empty one where there is none.
    pub fn open_partial(path: &Path, _digest: Digest, _size: Option<u64>) -> Result<Self, SinkError> {
        Ok(Self { path: path.to_owned() })
    }

    /// All bytes were written: on disk, read back, checked. Bytes with another digest or length are deleted.
    pub async fn finish(self) -> Result<VerifiedArtifact, VerifyError> {
        Err(SinkError::storage("skeleton", io::Error::other("skeleton")).into())
    }

    /// Deletes the file. (Dropping leaves it, for a later `open_partial`.)
    pub fn discard(self) -> Result<(), SinkError> {
        std::fs::remove_file(&self.path).map_err(|e| SinkError::storage("delete the staged file", e))
    }
}

impl Sink for Staging {
    async fn reserve(&mut self, _total: u64) -> Result<(), SinkError> {
        Ok(())
    }
    async fn write(&mut self, _bytes: Bytes) -> Result<(), SinkError> {
        Ok(())
    }
    async fn restart(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    fn position(&self) -> u64 {
        0
    }
}
