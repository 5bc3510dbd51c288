//! A socket that local programs connect to.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use tokio::net::UnixListener;

/// For its owner and its group: this process's, or that of the folder where that is marked to give it (`chmod g+s`).
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    // Left by an agent that was killed: another one does not run, the state directory is locked.
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o660))?;
    Ok(listener)
}
