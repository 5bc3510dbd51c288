//! Files that root writes, that the agent reads, and that nobody else may look into: whole, or not there.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context;
use device::beside;

/// The group of the process that talks to the network.
const GROUP: &str = "fleethand";

/// Who may read what is written.
pub struct Owner {
    /// `None`: nobody but who writes it.
    group: Option<u32>,
    remark: Option<String>,
}

impl Owner {
    pub fn of_service(root: &Path) -> Self {
        if !nix::unistd::geteuid().is_root() {
            let remark =
                "not run as root: the files are yours, and a service of another user could not read them";
            return Self { group: None, remark: Some(remark.to_owned()) };
        }
        // The system's own way to know groups is not that of an image.
        let group = if root == Path::new("/") {
            nix::unistd::Group::from_name(GROUP).ok().flatten().map(|group| group.gid.as_raw())
        } else {
            std::fs::read_to_string(root.join("etc/group")).ok().and_then(|text| group_in(&text))
        };
        let remark =
            group.is_none().then(|| format!("there is no group {GROUP}: only root can read the files"));
        Self { group, remark }
    }

    pub fn remark(&self) -> Option<String> {
        self.remark.clone()
    }

    fn file_mode(&self) -> u32 {
        if self.group.is_some() { 0o640 } else { 0o600 }
    }

    fn folder_mode(&self) -> u32 {
        if self.group.is_some() { 0o750 } else { 0o700 }
    }
}

fn group_in(text: &str) -> Option<u32> {
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields.into_iter().find(|fields| fields.first() == Some(&GROUP))?.get(2)?.parse().ok()
}

/// A file that is written, and not in force: it goes again with this value.
pub struct Placed {
    path: PathBuf,
    staged: PathBuf,
    done: bool,
}

pub fn staged(path: &Path) -> PathBuf {
    beside(path, "new")
}

impl Placed {
    pub fn beside(path: &Path, bytes: &[u8], owner: &Owner) -> anyhow::Result<Self> {
        let failed = || format!("cannot write {}", path.display());
        make_folder(path, owner).with_context(failed)?;
        let placed = Self { path: path.to_owned(), staged: staged(path), done: false };
        write(&placed.staged, bytes, owner).with_context(failed)?;
        Ok(placed)
    }

    pub fn put_in_force(mut self) -> anyhow::Result<PathBuf> {
        let renamed = std::fs::rename(&self.staged, &self.path).and_then(|()| sync_folder(&self.path));
        renamed.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.done = true;
        Ok(self.path.clone())
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if !self.done {
            let _ = device::remove_if_there(&self.staged);
        }
    }
}

/// The old file under a second name, until the new one takes the first.
pub fn keep(path: &Path, previous: &Path) -> anyhow::Result<()> {
    device::remove_if_there(previous)
        .and_then(|_| std::fs::hard_link(path, previous))
        .with_context(|| format!("cannot keep {}", path.display()))
}

/// The folder of an identity is the service's; one that is there stays as it is.
fn make_folder(path: &Path, owner: &Owner) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
    else {
        return Ok(());
    };
    std::fs::create_dir_all(folder)?;
    let is_identity = folder.ends_with("identity");
    let mode = if is_identity { owner.folder_mode() } else { 0o755 };
    if let (true, Some(group)) = (is_identity, owner.group) {
        std::os::unix::fs::chown(folder, Some(0), Some(group))?;
    }
    std::fs::set_permissions(folder, PermissionsExt::from_mode(mode))
}

/// Nobody can read it before it has its owner.
fn write(path: &Path, bytes: &[u8], owner: &Owner) -> io::Result<()> {
    device::remove_if_there(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(group) = owner.group {
        fchown(&file, Some(0), Some(group))?;
    }
    file.set_permissions(PermissionsExt::from_mode(owner.file_mode()))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name_and_by_nothing_else() {
        let cases = [
            ("root:x:0:\nfleethand:x:997:\n", Some(997)),
            ("fleethands:x:1:\nx:fleethand:2:\n", None),
            ("fleethand:x\n", None),
            ("fleethand:x:many:\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(group_in(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_put_in_force_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity/private.key");
        let owner = Owner { group: None, remark: None };
        std::fs::create_dir(folder.path().join("identity")).unwrap();
        std::fs::write(&path, "old").unwrap();
        drop(Placed::beside(&path, b"new", &owner).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        Placed::beside(&path, b"new", &owner).unwrap().put_in_force().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("identity")).unwrap().count(), 1);
    }
}
