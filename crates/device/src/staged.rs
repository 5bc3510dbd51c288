//! A file that is received whole: beside the target, or in a folder of ours for what somebody else installs.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use downloader::{Digest, Resume, Sink, Staging, VerifiedArtifact};

use crate::device::{Order, Target};
use crate::error::DeviceError;
use crate::place::Stage;
use crate::storage::{folder_of, remove_if_there, sync_folder_of};

pub(crate) struct StagedFile {
    target: Target,
    path: PathBuf,
    /// Nobody else may write to the folder: what is verified there is what will be installed.
    private: bool,
    state: State,
}

/// Only `Verified` can be activated.
enum State {
    Nothing,
    Writing(Staging),
    Verified(VerifiedArtifact),
}

impl StagedFile {
    /// `path` is beside the target.
    pub(crate) fn new(target: Target, path: PathBuf) -> Self {
        Self { target, path, private: false, state: State::Nothing }
    }

    /// In a folder that is made when it is needed, and that nobody else may write to.
    pub(crate) fn in_private_folder(target: Target, folder: &Path) -> Self {
        Self { target, path: folder.join("firmware.staged"), private: true, state: State::Nothing }
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
        if self.private {
            let folder = folder_of(&self.path);
            make_private(folder).map_err(DeviceError::storage("use the folder", folder))?;
        }
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

fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = std::fs::metadata(folder)?;
    if found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        let problem = format!(
            "user {} owns it and its mode is {:o}: expected a folder that only the agent can write to",
            found.uid(),
            found.mode() & 0o7777
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_folder_is_made_and_one_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("a/b");
        make_private(&new).unwrap();
        assert_eq!(std::fs::metadata(&new).unwrap().mode() & 0o777, 0o700);
        make_private(&new).unwrap();
        std::fs::set_permissions(&new, Permissions::from_mode(0o777)).unwrap();
        let refused = make_private(&new).unwrap_err().to_string();
        assert!(refused.contains("mode is 777"), "{refused}");
    }
}
