//! Only one agent may work with a state directory: two would run the same job beside each other.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};

/// Does an agent work with this directory? `None` where that cannot be told. The lock is not taken for longer than the
/// question lasts, and is shared: two who ask do not disturb each other.
pub fn is_held(state_directory: &Path) -> Option<bool> {
    match File::open(state_directory) {
        Ok(directory) => Some(Flock::lock(directory, FlockArg::LockSharedNonblock).is_err()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Creates the directory, for its owner alone, and locks it until the value is dropped or the process ends. The
/// directory itself and not a file in it: an agent starts, and says what is wrong, on a disk that is full or read-only.
pub fn lock(state_directory: &Path) -> anyhow::Result<Flock<File>> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_directory)
        .with_context(|| format!("cannot create the state directory {}", state_directory.display()))?;
    let directory = File::open(state_directory)
        .with_context(|| format!("cannot open the state directory {}", state_directory.display()))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        anyhow::anyhow!("another fleethand uses the state directory {} ({error})", state_directory.display())
    })
}
