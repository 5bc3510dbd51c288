//! Where the device keeps what it must not lose: a folder, or a file system whose power can be cut.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::until;

/// What is there after a power cut of what nobody asked to sync.
#[derive(Clone, Copy, PartialEq)]
pub enum Left {
    Nothing,
    /// The file system had written everything out by itself some calls earlier.
    Older,
    /// The file system had just committed its journal by itself, as it does every few seconds: names and
    /// removals are there, but not the bytes of new files.
    Names,
}

pub enum Disk {
    Folder(PathBuf),
    Mounted(Mount),
}

impl Disk {
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Mounted(mount) => &mount.point,
        }
    }

    /// What was written up to now is there after every power cut.
    pub fn sync(&self) {
        if let Self::Mounted(mount) = self {
            nix::unistd::syncfs(File::open(&mount.point).unwrap()).unwrap();
        }
    }

    /// The moment of the power cut: nothing reaches the disk from now on.
    pub fn cut(&self, left: Left) {
        if let Self::Mounted(mount) = self {
            mount.cut(left);
        }
    }

    /// The power is back.
    pub fn restore(&self) {
        if let Self::Mounted(mount) = self {
            mount.unmount();
            mount.mount().unwrap();
        }
    }
}

/// An ext4 with its default options, on a loop device.
pub struct Mount {
    image: tempfile::NamedTempFile,
    point: PathBuf,
}

impl Mount {
    /// Not possible where this is not root, or where there are no loop devices.
    pub fn create(point: &Path) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("only root may mount a file system".to_owned());
        }
        fs::create_dir_all(point).unwrap();
        // In memory where possible: what is tested is which writes are ordered, not the disk below.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let image = tempfile::NamedTempFile::new_in(folder).unwrap();
        image.as_file().set_len(32 << 20).unwrap();
        let mount = Self { image, point: point.to_owned() };
        run(Command::new("mkfs.ext4").arg("-qF").arg(mount.image.path()))?;
        // A container or a network namespace that somebody begins meanwhile has a copy of every mount. Of a shared one the
        // copy goes when it is unmounted here; another one would keep the file system alive that was shut down.
        run(Command::new("mount").arg("--bind").args([point, point]))?;
        run(Command::new("mount").arg("--make-shared").arg(point))?;
        mount.mount()?;
        Ok(mount)
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).args([self.image.path(), &self.point]))
    }

    fn unmount(&self) {
        // A command that dies with the agent may hold it for a moment.
        until("the file system to be free", || run(Command::new("umount").arg(&self.point)).ok());
    }

    #[allow(unsafe_code, reason = "an ioctl has no safe form")]
    fn cut(&self, left: Left) {
        // EXT4_IOC_SHUTDOWN, and its EXT4_GOING_FLAGS_…
        nix::ioctl_read!(shut_down, b'X', 125, u32);
        const LOG_FLUSH: u32 = 1;
        const NO_LOG_FLUSH: u32 = 2;
        let mut how = if left == Left::Names { LOG_FLUSH } else { NO_LOG_FLUSH };
        let folder = File::open(&self.point).unwrap();
        // SAFETY: the descriptor is open, and `how` is the u32 that the call reads.
        unsafe { shut_down(folder.as_raw_fd(), &raw mut how) }.unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The file system, and what it is mounted on.
        for _ in 0..2 {
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{command:?}: {}", stderr.trim()))
}
