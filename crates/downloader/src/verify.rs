//! What was verified.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use crate::{
    Digest, SinkError, VerifyError,
    staging::open,
    writeback::{Hashed, ReadBack},
};

/// A staged file whose length and digest hold. Made by [`Staging::finish`](crate::Staging::finish) and
/// [`reverify`](Self::reverify) alone: what is unverified cannot be installed.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifiedArtifact {
    path: PathBuf,
    digest: Digest,
    len: u64,
}

impl VerifiedArtifact {
    /// Reads a staged file again: what a restart must do before it trusts one. A file that differs is left for the
    /// caller to receive again.
    pub async fn reverify(path: &Path, digest: Digest) -> Result<Self, VerifyError> {
        let owned = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_all(&owned));
        let hashed =
            read.await.map_err(|e| SinkError::storage("read the artifact back", io::Error::other(e)))??;
        Self::check(path, &hashed, digest, None, true)
    }

    pub(crate) fn check(
        path: &Path,
        found: &Hashed,
        expected: Digest,
        size: Option<u64>,
        resumed: bool,
    ) -> Result<Self, VerifyError> {
        found.check(expected, size, resumed)?;
        Ok(Self { path: path.to_owned(), digest: expected, len: found.len })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    #[allow(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }
}

fn read_all(path: &Path) -> Result<Hashed, SinkError> {
    let file = open(path, OpenOptions::new().read(true))?;
    // Nothing says that the process which wrote it lived to see its sync.
    file.sync_all().map_err(|e| SinkError::storage("sync the artifact", e))?;
    let len = file.metadata().map_err(|e| SinkError::storage("read the staged file's length", e))?.len();
    let mut read_back = ReadBack::new(&file);
    read_back.read_to(len, &AtomicBool::new(false))?;
    Ok(read_back.finish())
}
