//! What was begun and not yet settled, on disk. One entry, because one execution runs at a time. An entry is
//! written before the effect it announces.

use std::io;
use std::path::{Path, PathBuf};

use device::{Change, Durability, When, beside, read_bounded, remove_if_there, write_atomically};
use downloader::{Digest, Resume};
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// Raised when the meaning of a member changes. Another version is set aside, never guessed at.
const FORMAT: u32 = 2;
const LOCAL: &str = "(local)";
const SHADOW: &str = "(shadow ";

/// Which run of which job. Job ids and execution numbers may be reused after a deletion, so the time of
/// queueing belongs to the identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExecutionId {
    pub job_id: String,
    pub execution_number: u64,
    pub queued_at: u64,
}

impl ExecutionId {
    /// An order given on the device itself. The name is no legal job id, so that no job has it.
    pub fn local(ordered_at: u64) -> Self {
        Self { job_id: LOCAL.to_owned(), execution_number: 1, queued_at: ordered_at }
    }

    /// What a shadow desires, known by a number of its content. The name is no legal job id.
    pub fn of_shadow(name: &str, desired: u64) -> Self {
        Self { job_id: format!("{SHADOW}{name})"), execution_number: 1, queued_at: desired }
    }

    /// The shadow whose wish this is.
    pub fn shadow(&self) -> Option<&str> {
        self.job_id.strip_prefix(SHADOW)?.strip_suffix(')')
    }

    pub fn is_local(&self) -> bool {
        self.job_id == LOCAL
    }
}

impl std::fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (execution {})", self.job_id, self.execution_number)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub execution: ExecutionId,
    /// How often an agent took this up without ending it or being stopped in an orderly way.
    pub attempts: u32,
    /// What the order says of the reboot that an activation may need.
    #[serde(default)]
    pub activate: When,
    pub phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Taken up; nothing on the device has changed.
    Accepted,
    /// Bytes are arriving beside the target. What is verified of them is found by reading them again.
    Downloading { digest: Digest, resume: Resume },
    /// What is staged is written, read back and checked; putting it in force can be repeated.
    Activating { change: Change },
    /// It is in force; whether it stays is found by asking the system how it is, and that can be repeated.
    Confirming { change: Change },
    /// It must not stay, and the operation ends with this outcome; what was before is coming back.
    RollingBack { change: Change, outcome: Outcome },
    /// The order to reboot was given so often while the kernel had this boot id; never, where somebody else's is waited
    /// for.
    Rebooting { boot_id: String, attempts: u32, then: Then },
    /// It has ended like this; the cloud has not confirmed that it knows.
    Reporting { outcome: Outcome },
}

/// What a reboot was ordered for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "then", rename_all = "kebab-case")]
pub enum Then {
    /// For its own sake.
    Done,
    /// The new system boots on trial.
    Confirm { change: Change },
    /// The system of before is back, and the operation has ended with this outcome.
    Report { change: Change, outcome: Outcome },
}

impl Phase {
    /// What has begun to take the place of what was in force.
    pub(crate) fn change(&self) -> Option<&Change> {
        match self {
            Self::Accepted | Self::Downloading { .. } | Self::Reporting { .. } => None,
            Self::Activating { change } | Self::Confirming { change } | Self::RollingBack { change, .. } => {
                Some(change)
            }
            Self::Rebooting { then, .. } => match then {
                Then::Done => None,
                Then::Confirm { change } | Then::Report { change, .. } => Some(change),
            },
        }
    }

    /// How much an entry must survive. An unsynced one must not take the place of a synced one: on some file
    /// systems a power cut then leaves neither.
    fn durability(&self) -> Durability {
        match self {
            // Nothing on the device has changed. Without the entry the work begins anew, and that is all.
            Self::Accepted | Self::Downloading { .. } => Durability::Process,
            Self::Activating { .. }
            | Self::Confirming { .. }
            | Self::RollingBack { .. }
            | Self::Rebooting { .. }
            | Self::Reporting { .. } => Durability::PowerCut,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot {doing} the journal {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl JournalError {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        let Self::Io { source, .. } = self;
        if source.kind() == io::ErrorKind::StorageFull { "no-space" } else { "storage-error" }
    }
}

/// What was found at the start.
#[derive(Debug)]
pub enum Found {
    Nothing,
    Entry(Box<Entry>),
    /// Torn, foreign or from another version: moved to this path, for a person to look at.
    SetAside {
        moved_to: PathBuf,
        why: String,
    },
}

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    format: u32,
    #[serde(flatten)]
    entry: Entry,
}

impl Journal {
    pub fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("journal.json") }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    pub fn load(&self) -> Result<Found, JournalError> {
        let bytes = match read_bounded(&self.path) {
            // No bytes, or zeros: what a power cut leaves of an entry that was not synced, and so announced no change.
            Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => return Ok(Found::Nothing),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.set_aside(error.to_string());
            }
            Err(error) => return Err(self.error("read", error)),
        };
        match decode(&bytes) {
            Ok(entry) => Ok(Found::Entry(Box::new(entry))),
            Err(why) => self.set_aside(why),
        }
    }

    pub fn save(&self, entry: &Entry) -> Result<(), JournalError> {
        let on_disk = OnDisk { format: FORMAT, entry: entry.clone() };
        serde_json::to_vec(&on_disk)
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&self.path, &bytes, entry.phase.durability()))
            .map_err(|error| self.error("write", error))
    }

    /// The execution is settled, or was never ours to end. Not synced: what a power cut brings back here is
    /// reported once more, and the cloud says that it knows.
    pub fn clear(&self) -> Result<(), JournalError> {
        remove_if_there(&self.path).map(|_| ()).map_err(|error| self.error("remove", error))
    }

    fn set_aside(&self, why: String) -> Result<Found, JournalError> {
        let moved_to = beside(&self.path, "unreadable");
        std::fs::rename(&self.path, &moved_to).map_err(|error| self.error("set aside", error))?;
        Ok(Found::SetAside { moved_to, why })
    }

    fn error(&self, doing: &'static str, source: io::Error) -> JournalError {
        JournalError::Io { doing, path: self.path.clone(), source }
    }
}

fn decode(bytes: &[u8]) -> Result<Entry, String> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let format: Format = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if format.format != FORMAT {
        return Err(format!("format {} found, format {FORMAT} expected", format.format));
    }
    let on_disk: OnDisk = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(on_disk.entry)
}

#[cfg(test)]
mod tests {
    use device::{Before, Installed, Target};

    use super::*;

    fn entry(phase: Phase) -> Entry {
        let execution = ExecutionId { job_id: "job-1".into(), execution_number: 1, queued_at: 1_700_000_000 };
        Entry { execution, attempts: 1, activate: When::NextReboot, phase }
    }

    fn phases() -> Vec<Phase> {
        let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let outcome = Outcome::failed("command-failed", "exit code 1");
        let firmware = Change {
            target: Target::Firmware,
            digest,
            before: Before::Slot { booted: "A".into(), written: "B".into() },
            commit: Some(Installed { version: "2".into(), digest, sequence: Some(3) }),
        };
        let file = Change { before: Before::File { digest }, ..firmware.clone() };
        let config =
            Change { target: Target::Config("c".into()), digest, before: Before::Absent, commit: None };
        let rebooting = |then| Phase::Rebooting { boot_id: "b".into(), attempts: 1, then };
        vec![
            Phase::Accepted,
            Phase::Downloading { digest, resume: Resume::default() },
            Phase::Activating { change: file.clone() },
            Phase::Activating { change: Change { before: Before::Installer, ..file } },
            Phase::Confirming { change: firmware.clone() },
            Phase::RollingBack { change: config, outcome: outcome.clone() },
            rebooting(Then::Done),
            rebooting(Then::Confirm { change: firmware.clone() }),
            rebooting(Then::Report { change: firmware, outcome: outcome.clone() }),
            Phase::Reporting { outcome },
        ]
    }

    #[test]
    fn every_phase_survives_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::in_folder(folder.path());
        assert!(matches!(journal.load().unwrap(), Found::Nothing));
        for phase in phases() {
            journal.save(&entry(phase.clone())).unwrap();
            let Found::Entry(found) = journal.load().unwrap() else { panic!("{phase:?}") };
            assert_eq!(*found, entry(phase.clone()));
        }
        journal.clear().unwrap();
        journal.clear().unwrap();
        assert!(matches!(journal.load().unwrap(), Found::Nothing));
    }

    #[test]
    fn an_entry_that_was_never_synced_is_none() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, 300] {
            std::fs::write(folder.path().join("journal.json"), vec![0; length]).unwrap();
            assert!(matches!(Journal::in_folder(folder.path()).load().unwrap(), Found::Nothing));
        }
    }

    #[test]
    fn a_torn_or_foreign_journal_is_set_aside_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::in_folder(folder.path());
        journal.save(&entry(phases().remove(2))).unwrap();
        let whole = std::fs::read(folder.path().join("journal.json")).unwrap();
        let torn = (1..whole.len()).map(|length| whole[..length].to_vec());
        let foreign = [
            br#"{"format":3,"execution":{"job_id":"x"}}"#.to_vec(),
            br#"{"format":2,"attempts":0,"phase":"melting"}"#.to_vec(),
            vec![b'{'; 4096],
            vec![b' '; 256 * 1024 + 1],
            b"[]".to_vec(),
        ];
        for bytes in torn.chain(foreign) {
            std::fs::write(folder.path().join("journal.json"), &bytes).unwrap();
            let Found::SetAside { moved_to, why } = journal.load().unwrap() else { panic!("{bytes:?}") };
            assert_eq!(std::fs::read(&moved_to).unwrap(), bytes);
            assert!(!why.is_empty());
            assert!(matches!(journal.load().unwrap(), Found::Nothing));
        }
    }
}
