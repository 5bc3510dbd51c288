//! The sink on disk. The side that writes is the side that verifies: the digest is that of what is read back from the
//! file, never of what went past on the network.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use nix::fcntl::OFlag;
use nix::sys::statvfs::{Statvfs, fstatvfs};

use crate::{Digest, Resume, Sink, SinkError, VerifiedArtifact, VerifyError, writeback::Writeback};

/// A file that is being received. Dropping it leaves what has been written, for a later
/// [`open_partial`](Self::open_partial); it waits for its threads first.
pub struct Staging {
    path: PathBuf,
    file: Arc<File>,
    /// Only absent in between: while a new one is started.
    writeback: Option<Writeback>,
    digest: Digest,
    size: Option<u64>,
    position: u64,
    resumed: bool,
}

impl Staging {
    /// An empty file at `path`, for its owner alone. A regular file that is there is emptied; anything else is refused.
    pub fn create(path: &Path, digest: Digest, size: Option<u64>) -> Result<Self, SinkError> {
        let file =
            open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600))?;
        file.set_len(0).map_err(|e| SinkError::storage("empty the staged file", e))?;
        Self::start(path, file, 0, digest, size)
    }

    /// Goes on with the file at `path`, or starts an empty one where there is none. The bytes that are there are read
    /// and hashed again from the first, so nothing about them needs to be remembered or believed.
    pub fn open_partial(path: &Path, digest: Digest, size: Option<u64>) -> Result<Self, SinkError> {
        let file =
            open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600))?;
        let existing =
            file.metadata().map_err(|e| SinkError::storage("read the staged file's length", e))?.len();
        Self::start(path, file, existing, digest, size)
    }

    fn start(
        path: &Path,
        file: File,
        existing: u64,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<Self, SinkError> {
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(|e| SinkError::storage("restrict the staged file's mode", e))?;
        let file = Arc::new(file);
        let writeback = Some(Writeback::start(&file, existing, u64::MAX)?);
        let path = path.to_owned();
        Ok(Self { path, file, writeback, digest, size, position: existing, resumed: existing > 0 })
    }

    /// All bytes were written: wait until they are on disk and read back, and check them. Whatever does not verify is
    /// deleted.
    pub async fn finish(mut self) -> Result<VerifiedArtifact, VerifyError> {
        let verified = self.check().await;
        if verified.is_err()
            && let Err(error) = self.discard()
        {
            tracing::warn!(%error, "bytes that do not verify are left over");
        }
        verified
    }

    async fn check(&mut self) -> Result<VerifiedArtifact, VerifyError> {
        let hashed = self.running()?.finish().await?;
        if hashed.len != self.position {
            let lost = format!("{} bytes were written, {} are there", self.position, hashed.len);
            return Err(SinkError::storage("write the artifact", io::Error::other(lost)).into());
        }
        VerifiedArtifact::check(&self.path, &hashed, self.digest, self.size, self.resumed)
    }

    /// Deletes the file.
    pub fn discard(mut self) -> Result<(), SinkError> {
        // First, so that the space is free when this returns, and no writer is left.
        self.writeback = None;
        fs::remove_file(&self.path).map_err(|e| SinkError::storage("delete the staged file", e))
    }

    fn running(&mut self) -> Result<Writeback, SinkError> {
        let stopped = || {
            SinkError::storage("write the artifact", io::Error::other("it was stopped by an earlier error"))
        };
        self.writeback.take().ok_or_else(stopped)
    }
}

/// How much can still be written where this is from.
#[allow(clippy::useless_conversion, reason = "both are 32 bits wide on some processors")]
#[must_use]
pub fn free_bytes(space: &Statvfs) -> u64 {
    u64::from(space.blocks_available()).saturating_mul(u64::from(space.fragment_size()))
}

impl Sink for Staging {
    async fn reserve(&mut self, object: &Resume) -> Result<(), SinkError> {
        let Some(total) = object.total else { return Ok(()) };
        let space =
            fstatvfs(&self.file).map_err(|e| SinkError::storage("ask for the free space", e.into()))?;
        let available = free_bytes(&space);
        let needed = total.saturating_sub(self.position);
        if needed > available { Err(SinkError::NoSpace { needed, available }) } else { Ok(()) }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), SinkError> {
        match &mut self.writeback {
            Some(writeback) => writeback.push(bytes, &mut self.position).await,
            None => self.running().map(drop),
        }
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.writeback = None; // waits: an old write must not land in the new object
        self.file.set_len(0).map_err(|e| SinkError::storage("empty the staged file", e))?;
        self.writeback = Some(Writeback::start(&self.file, 0, u64::MAX)?);
        (self.position, self.resumed) = (0, false);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }
}

/// Opens a regular file and nothing else: no link is followed, no FIFO waited for.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> Result<File, SinkError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = options.custom_flags(flags.bits()).open(path).map_err(|e| match e.raw_os_error() {
        Some(code) if [nix::libc::ELOOP, nix::libc::EISDIR, nix::libc::ENXIO].contains(&code) => {
            SinkError::NotAFile(path.to_owned())
        }
        _ => SinkError::storage("open the staged file", e),
    })?;
    let metadata = file.metadata().map_err(|e| SinkError::storage("open the staged file", e))?;
    if metadata.is_file() { Ok(file) } else { Err(SinkError::NotAFile(path.to_owned())) }
}
