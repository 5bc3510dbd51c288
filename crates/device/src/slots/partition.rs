//! A slot as the kernel has it: a block device or a file of fixed length.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use downloader::SinkError;
use nix::fcntl::OFlag;

use crate::error::DeviceError;

/// Open for writing. Of a block device this is the only such handle: the kernel refuses one that is mounted, and mounts
/// none that is open like this.
pub(super) struct Partition {
    pub file: Arc<File>,
    pub size: u64,
    path: PathBuf,
    metadata: Metadata,
}

impl Partition {
    pub(super) fn open(path: &Path) -> Result<Self, DeviceError> {
        let unusable =
            |problem: &str| DeviceError::SlotUnusable { path: path.to_owned(), problem: problem.to_owned() };
        let failed = || DeviceError::storage("open the slot", path);
        let link = std::fs::symlink_metadata(path).map_err(failed())?.is_symlink();
        // `/dev/disk/by-partlabel/…` are links; one to a file may be there for somebody else's purpose.
        let real = path.canonicalize().map_err(failed())?;
        let found = std::fs::metadata(&real).map_err(failed())?;
        let block_device = found.file_type().is_block_device();
        if !block_device && link {
            return Err(unusable("is a symbolic link, and not to a block device"));
        }
        if !block_device && !found.is_file() {
            return Err(unusable("is neither a block device nor a regular file"));
        }
        let exclusive = if block_device { OFlag::O_EXCL } else { OFlag::empty() };
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | exclusive;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(&real);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(unusable("is in use: mounted, or held by somebody else"));
            }
            opened => opened.map_err(failed())?,
        };
        let size = file.seek(SeekFrom::End(0)).map_err(failed())?;
        let metadata = file.metadata().map_err(failed())?;
        Ok(Self { file: Arc::new(file), size, path: path.to_owned(), metadata })
    }

    /// The running slot, and what the agent itself needs, are not overwritten, whatever the configuration says.
    pub(super) fn refuse_if_used(&self, running: &Path, state: &Path) -> Result<(), DeviceError> {
        let unusable = |problem: String| DeviceError::SlotUnusable { path: self.path.clone(), problem };
        if std::fs::metadata(running).is_ok_and(|running| self.is(&running)) {
            return Err(unusable("is the slot that runs".to_owned()));
        }
        if !self.metadata.file_type().is_block_device() {
            return Ok(());
        }
        for path in [Path::new("/"), state] {
            // A dry run may come before the first start.
            if std::fs::metadata(path).is_ok_and(|found| found.dev() == self.metadata.rdev()) {
                return Err(unusable(format!("has {} on it", path.display())));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(DeviceError::storage("read", "/proc/self/mountinfo"))?;
        match mounted_at(&mounts, self.metadata.rdev()) {
            Some(place) => Err(unusable(format!("is mounted at {place}"))),
            None => Ok(()),
        }
    }

    pub(super) fn has_room_for(&self, needed: u64) -> Result<(), DeviceError> {
        if needed <= self.size {
            return Ok(());
        }
        Err(SinkError::NoSpace { needed, available: self.size }.into())
    }

    fn is(&self, other: &Metadata) -> bool {
        if other.file_type().is_block_device() {
            return self.metadata.file_type().is_block_device() && other.rdev() == self.metadata.rdev();
        }
        (other.dev(), other.ino()) == (self.metadata.dev(), self.metadata.ino())
    }
}

/// The mount point of a device, by its number: the third and the fifth field of `/proc/self/mountinfo`.
fn mounted_at(mounts: &str, device: u64) -> Option<&str> {
    let number = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let found = fields.nth(2)?;
        let place = fields.nth(1)?;
        (found == number).then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(result: Result<(), DeviceError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), "slot-unusable", "{error}");
        error.to_string()
    }

    #[test]
    fn only_a_file_or_a_block_device_is_a_slot() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), vec![0; 5000]).unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        let slot = Partition::open(&path("a")).unwrap();
        assert_eq!(slot.size, 5000);
        slot.has_room_for(5000).unwrap();
        assert_eq!(slot.has_room_for(5001).unwrap_err().reason(), "no-space");
        for (name, expected) in [("link", "symbolic link"), ("", "neither"), ("/dev/null", "neither")] {
            assert!(problem(Partition::open(&path(name)).map(drop)).contains(expected), "{name}");
        }
        let missing = Partition::open(&path("none")).map(drop).unwrap_err();
        assert_eq!(missing.reason(), "storage-error");
    }

    #[test]
    fn what_runs_is_not_written_under_another_name_either() {
        let folder = tempfile::tempdir().unwrap();
        let (a, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&a, "image").unwrap();
        std::fs::hard_link(&a, &other).unwrap();
        let slot = Partition::open(&other).unwrap();
        assert!(problem(slot.refuse_if_used(&a, folder.path())).contains("is the slot that runs"));
        slot.refuse_if_used(&folder.path().join("elsewhere"), folder.path()).unwrap();
    }

    #[test]
    fn a_mounted_device_is_found_by_its_number() {
        let mounts = "22 28 0:20 / /proc rw - proc proc rw\n\
                      28 1 254:2 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
                      30 28 254:17 /a /mnt rw - ext4 /dev/vdb1 rw\nnonsense\n";
        let device = nix::sys::stat::makedev;
        assert_eq!(mounted_at(mounts, device(254, 2)), Some("/"));
        assert_eq!(mounted_at(mounts, device(254, 17)), Some("/mnt"));
        assert_eq!(mounted_at(mounts, device(254, 1)), None);
    }
}
