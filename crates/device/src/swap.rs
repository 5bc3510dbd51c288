//! One file takes the place of another so that the place is never empty, at any power cut. Blocking: the caller
//! chooses the thread.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use downloader::{Digest, VerifiedArtifact};

use crate::device::{Before, Target};
use crate::error::DeviceError;
use crate::storage::{beside, remove_if_there, sync_folder_of};

/// Mode of a target that did not exist before.
const NEW_FILE_MODE: u32 = 0o644;

/// What is in the place now. A symbolic link is refused: following it would replace a file that nobody named.
pub(crate) fn inspect(path: &Path) -> Result<Before, DeviceError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Before::Absent),
        Err(error) => Err(DeviceError::storage("look at", path)(error)),
        Ok(found) if found.is_file() => {
            let digest = Digest::of_file(path).map_err(DeviceError::storage("read", path))?;
            Ok(Before::File { digest })
        }
        Ok(found) => {
            let found = if found.is_symlink() {
                "a symbolic link"
            } else if found.is_dir() {
                "a folder"
            } else {
                "a special file"
            };
            Err(DeviceError::NotAFile { path: path.to_owned(), found })
        }
    }
}

/// The same without reading the file.
pub(crate) fn refuse_other_than_file(path: &Path) -> Result<(), DeviceError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => inspect(path).map(|_| ()),
        _ => Ok(()),
    }
}

/// The verified file goes into force; what was there stays beside it as `….previous`.
pub(crate) fn activate(path: &Path, artifact: &VerifiedArtifact) -> Result<(), DeviceError> {
    let staged = artifact.path();
    take_over_owner_and_mode(path, staged).map_err(DeviceError::storage("prepare", staged))?;
    keep_previous(path).map_err(DeviceError::storage("keep the previous file of", path))?;
    std::fs::rename(staged, path).map_err(DeviceError::storage("replace", path))?;
    sync_folder_of(path).map_err(DeviceError::storage("sync the folder of", path))
}

/// Brings back what `inspect` saw before. Does nothing when it is there already.
pub(crate) fn roll_back(target: Target, path: &Path, before: &Before) -> Result<(), DeviceError> {
    match before {
        Before::Absent => {
            remove_if_there(path).map_err(DeviceError::storage("remove", path))?;
        }
        Before::File { .. } if inspect(path)? == *before => {}
        Before::File { .. } => {
            let previous = beside(path, "previous");
            if inspect(&previous)? != *before {
                return Err(DeviceError::PreviousLost(target));
            }
            std::fs::rename(&previous, path).map_err(DeviceError::storage("bring back", path))?;
        }
        // Nothing that this module has put in force: a journal of another configuration.
        Before::Slot { .. } | Before::Installer => return Err(DeviceError::PreviousLost(target)),
    }
    sync_folder_of(path).map_err(DeviceError::storage("sync the folder of", path))
}

fn take_over_owner_and_mode(path: &Path, staged: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(staged)?;
    match std::fs::metadata(path) {
        Ok(old) => {
            let new = file.metadata()?;
            if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(old.permissions())?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            file.set_permissions(Permissions::from_mode(NEW_FILE_MODE))?;
        }
        Err(error) => return Err(error),
    }
    file.sync_all()
}

/// A second name for the file in force, so that the place itself is never empty. Where a file system has no
/// hard links, a copy.
fn keep_previous(path: &Path) -> io::Result<()> {
    let (previous, new) = (beside(path, "previous"), beside(path, "previous.new"));
    remove_if_there(&new)?;
    match std::fs::hard_link(path, &new) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Nothing is in force yet; an older previous file belongs to nothing any more.
            remove_if_there(&previous)?;
            return Ok(());
        }
        Err(_) => {
            std::fs::copy(path, &new)?;
            File::open(&new)?.sync_all()?;
        }
    }
    // Renaming one name of a file over another name of the same file does nothing, by POSIX.
    std::fs::rename(&new, &previous)?;
    remove_if_there(&new)?;
    sync_folder_of(path)
}
