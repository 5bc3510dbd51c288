//! Firmware that did not prove itself: not installed again by the same job, nor by a retry of it.

use std::io;
use std::path::{Path, PathBuf};

use device::{Durability, read_bounded, write_atomically};
use downloader::Digest;
use serde::{Deserialize, Serialize};

use crate::journal::ExecutionId;

/// The oldest are forgotten: a job that failed so many jobs ago is not retried any more.
const MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refused {
    execution: ExecutionId,
    digest: Digest,
    reason: String,
}

impl Refused {
    /// A retry has the job's id and a higher execution number. A job that was deleted and created anew begins at the
    /// first execution again: that is a new order.
    fn covers(&self, execution: &ExecutionId, digest: Digest) -> bool {
        self.digest == digest
            && self.execution.job_id == execution.job_id
            && (self.execution == *execution || self.execution.execution_number < execution.execution_number)
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

/// The earlier failure that forbids it.
pub(crate) fn look_up(folder: &Path, execution: &ExecutionId, digest: Digest) -> Option<Refused> {
    load(&path(folder)).into_iter().find(|refused| refused.covers(execution, digest))
}

/// On disk when this returns.
pub(crate) fn remember(
    folder: &Path,
    execution: &ExecutionId,
    digest: Digest,
    reason: &str,
) -> io::Result<()> {
    let path = path(folder);
    let mut all = load(&path);
    let new = Refused { execution: execution.clone(), digest, reason: reason.to_owned() };
    all.retain(|refused| *refused != new);
    all.push(new);
    all.drain(..all.len().saturating_sub(MAX));
    write_atomically(&path, &serde_json::to_vec(&all)?, Durability::PowerCut)
}

fn path(folder: &Path) -> PathBuf {
    folder.join("refused.json")
}

fn load(path: &Path) -> Vec<Refused> {
    match read_bounded(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "what failed before cannot be read, and is forgotten");
            Vec::new()
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what failed before cannot be read");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(job_id: &str, execution_number: u64, queued_at: u64) -> ExecutionId {
        ExecutionId { job_id: job_id.into(), execution_number, queued_at }
    }

    #[test]
    fn the_same_job_and_its_retries_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (bad, other) = (Digest::of_bytes(b"bad"), Digest::of_bytes(b"other"));
        let covered = |id: &ExecutionId, digest| look_up(folder.path(), id, digest).is_some();
        assert!(!covered(&id("a", 1, 7), bad));
        remember(folder.path(), &id("a", 1, 7), bad, "health-check-failed").unwrap();
        let cases = [
            (id("a", 1, 7), bad, true),
            (id("a", 2, 9), bad, true),
            (id("a", 1, 9), bad, false),
            (id("a", 1, 7), other, false),
            (id("b", 2, 9), bad, false),
        ];
        for (id, digest, expected) in cases {
            assert_eq!(covered(&id, digest), expected, "{id:?}");
        }
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of_bytes(b"bad");
        for number in 0..100 {
            remember(folder.path(), &id(&format!("job-{number}"), 1, 7), digest, "command-failed").unwrap();
        }
        assert_eq!(load(&path(folder.path())).len(), MAX);
        assert!(look_up(folder.path(), &id("job-99", 2, 8), digest).is_some());
    }
}
