//! What was verified here and may be put in force, on disk. Whoever asks for a change names it himself, and may be
//! wrong or lie; after a restart the bytes alone do not tell what they were signed as. One entry, because one change is
//! made at a time.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::device::Change;
use crate::error::DeviceError;
use crate::storage::{Durability, read_bounded, remove_if_there, write_atomically};

/// Raised when the meaning of a member changes. Another version is as good as none.
const FORMAT: u32 = 1;

#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    format: u32,
    change: Change,
}

impl Ledger {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("ledger.json") }
    }

    /// In the place of what was verified before it: that was not committed, and now never will be.
    pub(crate) fn enter(&self, change: &Change) -> Result<(), DeviceError> {
        serde_json::to_vec(&OnDisk { format: FORMAT, change: change.clone() })
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&self.path, &bytes, Durability::PowerCut))
            .map_err(DeviceError::storage("write", &self.path))
    }

    pub(crate) fn has(&self, change: &Change) -> Result<bool, DeviceError> {
        let bytes = match read_bounded(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(DeviceError::storage("read", &self.path)(error)),
        };
        match serde_json::from_slice::<OnDisk>(&bytes) {
            Ok(entry) if entry.format == FORMAT => Ok(entry.change == *change),
            Ok(OnDisk { format, .. }) => {
                tracing::warn!(path = %self.path.display(), format, expected = FORMAT, "the ledger is not understood, and is ignored");
                Ok(false)
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the ledger cannot be read, and is ignored");
                Ok(false)
            }
        }
    }

    /// It is committed. Not synced: an entry that a power cut brings back is committed once more.
    pub(crate) fn strike(&self) -> Result<(), DeviceError> {
        remove_if_there(&self.path).map(drop).map_err(DeviceError::storage("remove", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use downloader::Digest;

    use super::*;
    use crate::device::{Before, Installed, Target};

    fn change(sequence: u64) -> Change {
        let digest = Digest::of_bytes(b"firmware");
        let commit = Some(Installed { version: "2".into(), digest, sequence: Some(sequence) });
        Change { target: Target::Firmware, digest, before: Before::Absent, commit }
    }

    #[test]
    fn it_has_the_last_change_to_the_last_member_until_that_is_struck() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = || Ledger::in_folder(folder.path());
        assert!(!ledger().has(&change(7)).unwrap());
        ledger().enter(&change(6)).unwrap();
        ledger().enter(&change(7)).unwrap();
        let others = [
            change(6),
            change(u64::MAX),
            Change { before: Before::Installer, ..change(7) },
            Change { commit: None, ..change(7) },
            Change { digest: Digest::of_bytes(b"other"), ..change(7) },
            Change { target: Target::Config("c".into()), ..change(7) },
        ];
        for other in others {
            assert!(!ledger().has(&other).unwrap(), "{other:?}");
        }
        assert!(ledger().has(&change(7)).unwrap());
        for _ in 0..2 {
            ledger().strike().unwrap();
            assert!(!ledger().has(&change(7)).unwrap());
        }
    }

    #[test]
    fn a_torn_or_foreign_ledger_has_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::in_folder(folder.path());
        ledger.enter(&change(7)).unwrap();
        let whole = String::from_utf8(std::fs::read(&ledger.path).unwrap()).unwrap();
        let torn = (0..whole.len()).map(|length| whole[..length].to_owned());
        let foreign = [
            whole.replace("\"format\":1", "\"format\":2"),
            whole.replace("\"format\":1", "\"format\":1,\"more\":0"),
            whole.replace("\"format\":1", "\"format\":1,\"format\":1"),
            "\0".repeat(whole.len()),
        ];
        for content in torn.chain(foreign) {
            std::fs::write(&ledger.path, &content).unwrap();
            assert!(!ledger.has(&change(7)).unwrap(), "{content:?}");
        }
        std::fs::write(&ledger.path, whole).unwrap();
        assert!(ledger.has(&change(7)).unwrap());
    }
}
