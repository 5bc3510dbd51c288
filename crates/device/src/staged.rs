//! A file beside the target, for every target that takes whole files.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use downloader::{Digest, Resume, Sink, Staging, VerifiedArtifact};

use crate::device::{Order, Target};
use crate::error::DeviceError;
use crate::place::Stage;
use crate::storage::{remove_if_there, sync_folder_of};

pub(crate) struct StagedFile {
    target: Target,
    path: PathBuf,
    state: State,
}

/// Only `Verified` can be activated.
enum State {
    Nothing,
    Writing(Staging),
    Verified(VerifiedArtifact),
}

impl StagedFile {
    pub(crate) fn new(target: Target, path: PathBuf) -> Self {
        Self { target, path, state: State::Nothing }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What `finish` accepted, or after a restart what is there, read again. `None`: no file is there.
    pub(crate) async fn take_verified(
        &mut self,
        digest: Digest,
    ) -> Result<Option<VerifiedArtifact>, DeviceError> {
        match std::mem::replace(&mut self.state, State::Nothing) {
            State::Verified(artifact) if artifact.digest() == digest => Ok(Some(artifact)),
            State::Verified(_) | State::Writing(_) => Err(DeviceError::NothingVerified(self.target.clone())),
            State::Nothing if self.path.exists() => {
                Ok(Some(VerifiedArtifact::reverify(&self.path, digest).await?))
            }
            State::Nothing => Ok(None),
        }
    }

    fn writing(&mut self) -> Result<&mut Staging, DeviceError> {
        match &mut self.state {
            State::Writing(staging) => Ok(staging),
            State::Nothing | State::Verified(_) => Err(DeviceError::NothingVerified(self.target.clone())),
        }
    }
}

#[async_trait(?Send)]
impl Stage for StagedFile {
    async fn begin(&mut self, order: &Order) -> Result<u64, DeviceError> {
        // Dropped first: its threads may still be writing to the same file.
        self.state = State::Nothing;
        let staging = Staging::open_partial(&self.path, order.digest, order.size)?;
        let position = staging.position();
        self.state = State::Writing(staging);
        Ok(position)
    }

    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError> {
        let object = Resume { validator: None, total: Some(total) };
        Ok(self.writing()?.reserve(&object).await?)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError> {
        Ok(self.writing()?.write(bytes).await?)
    }

    async fn restart(&mut self) -> Result<(), DeviceError> {
        Ok(self.writing()?.restart().await?)
    }

    async fn finish(&mut self) -> Result<(), DeviceError> {
        let State::Writing(staging) = std::mem::replace(&mut self.state, State::Nothing) else {
            return Err(DeviceError::NothingVerified(self.target.clone()));
        };
        self.state = State::Verified(staging.finish().await?);
        Ok(())
    }

    async fn discard(&mut self) -> Result<(), DeviceError> {
        self.state = State::Nothing;
        let removed = remove_if_there(&self.path).map_err(DeviceError::storage("remove", &self.path))?;
        if removed {
            sync_folder_of(&self.path).map_err(DeviceError::storage("sync the folder of", &self.path))?;
        }
        Ok(())
    }
}
