//! Small files that must be whole after a power cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::error::DeviceError;

/// What we write is a few hundred bytes; what is larger was not written by us.
const MAX_BYTES: u64 = 256 * 1024;

/// How much must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of this process. Costs no sync: the kernel has the bytes.
    Process,
    /// A power cut. The file and its folder are synced before this returns.
    PowerCut,
}

/// Writes beside `path`, then renames over it: a reader, or the next start, sees the old bytes or the new ones.
pub fn write_atomically(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let beside = beside(path, "new");
    let owner = other_owner(path)?;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    if owner.is_some() {
        // Whatever is there, its owner has put it there.
        remove_if_there(&beside)?;
        options.create_new(true);
    } else {
        options.create(true).truncate(true);
    }
    let mut file = options.open(&beside)?;
    if let Some((user, group)) = owner {
        fchown(&file, Some(user), Some(group))?;
    }
    file.write_all(bytes)?;
    if durability == Durability::PowerCut {
        file.sync_all()?;
    }
    std::fs::rename(&beside, path)?;
    if durability == Durability::PowerCut {
        sync_folder_of(path)?;
    }
    Ok(())
}

/// Root writes in the folder of a user without privileges, who must be able to read it: `fleethand install` in the place
/// of the agent.
fn other_owner(path: &Path) -> io::Result<Option<(u32, u32)>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let folder = std::fs::metadata(folder_of(path))?;
    Ok((folder.uid() != 0).then(|| (folder.uid(), folder.gid())))
}

/// A rename or a removal is on disk only when its folder is.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `/a/firmware.bin` and `previous` give `/a/firmware.bin.previous`: same folder, so that a rename is atomic.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Removing what is not there is not an error.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a file of ours, refusing one that cannot be ours by its size.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Bytes that are free where `path` is or would be, its folder made or not.
pub(crate) fn free_space(path: &Path) -> Result<u64, DeviceError> {
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(folder_of(path));
    let found = nix::sys::statvfs::statvfs(folder)
        .map_err(|error| DeviceError::storage("look for space in", folder)(error.into()))?;
    Ok(downloader::free_bytes(&found))
}
