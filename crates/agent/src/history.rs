//! The last executions that were settled. A late or repeated message that names one of them starts nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use device::{Durability, write_atomically};
use jobs::{ExecutionKey, StatusUpdate};
use serde::{Deserialize, Serialize};

/// As many as the session remembers.
const KEPT: usize = 32;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settled {
    pub execution: ExecutionKey,
    pub update: StatusUpdate,
    /// By the wall clock, in seconds; absent in what an older agent wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

impl Settled {
    pub fn now(execution: ExecutionKey, update: StatusUpdate) -> Self {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
        Self { execution, update, at: at.map(|at| at.as_secs()) }
    }
}

#[derive(Debug)]
pub struct History {
    path: PathBuf,
    settled: Vec<Settled>,
}

impl History {
    /// A history that cannot be read is begun anew: it protects against repetition, and nothing depends on it.
    pub fn open(state_directory: &Path) -> Self {
        let path = state_directory.join("history.json");
        let settled = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the history cannot be read, and is begun anew");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the history cannot be read");
                Vec::new()
            }
        };
        Self { path, settled }
    }

    pub fn settled(&self) -> &[Settled] {
        &self.settled
    }

    pub fn add(&mut self, settled: Settled) {
        self.settled.retain(|other| other.execution != settled.execution);
        self.settled.push(settled);
        let surplus = self.settled.len().saturating_sub(KEPT);
        self.settled.drain(..surplus);
        let written = serde_json::to_vec(&self.settled)
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&self.path, &bytes, Durability::PowerCut));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "the history cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use jobs::{JobId, StatusDetails, UpdateStatus};

    use super::*;

    fn settled(number: u64) -> Settled {
        let execution =
            ExecutionKey { job_id: JobId::new("job").unwrap(), execution_number: number, queued_at: 1 };
        Settled::now(execution, StatusUpdate::new(UpdateStatus::Succeeded, StatusDetails::new()))
    }

    #[test]
    fn the_last_ones_survive_a_restart_and_the_file_does_not_grow() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::open(folder.path());
        for number in 0..100 {
            history.add(settled(number));
            history.add(settled(number));
        }
        let again = History::open(folder.path());
        let numbers: Vec<_> = again.settled().iter().map(|s| s.execution.execution_number).collect();
        assert_eq!(numbers, (68..100).collect::<Vec<_>>());
        // What an older agent wrote had no time.
        let old = std::fs::read_to_string(folder.path().join("history.json")).unwrap();
        let at = format!(",\"at\":{}", again.settled()[0].at.unwrap());
        std::fs::write(folder.path().join("history.json"), old.replace(&at, "")).unwrap();
        assert_eq!((History::open(folder.path()).settled().len(), again.settled().len()), (KEPT, KEPT));
        assert_eq!(History::open(folder.path()).settled()[0].at, None);
        std::fs::write(folder.path().join("history.json"), b"{torn").unwrap();
        assert!(History::open(folder.path()).settled().is_empty());
    }
}
