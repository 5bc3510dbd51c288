//! What a command of an earlier life left running. A kill of the agent takes the command with it, but not what the
//! command had started; that would run on beside the command's repetition.

use std::io;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::journal::read_bounded;
use crate::storage::{Durability, remove_if_there, write_atomically};

/// In the environment of a command, and so of whatever it starts.
pub(crate) const VARIABLE: &str = "FLEETHAND_COMMAND_ID";
/// A process may start another one while it is being looked for.
const ROUNDS: usize = 10;

/// A new mark, on disk before the command starts. It has to survive this process only: a power cut ends all others too.
pub(crate) fn mark(file: &Path) -> io::Result<String> {
    let mark = format!("{:032x}", fastrand::u128(..));
    write_atomically(file, mark.as_bytes(), Durability::Process)?;
    Ok(mark)
}

/// The command has ended. What it leaves behind now, it leaves on purpose.
pub(crate) fn unmark(file: &Path) {
    if let Err(error) = remove_if_there(file) {
        tracing::warn!(file = %file.display(), %error, "the mark of a command that has ended stays");
    }
}

/// Ends every process with the mark that is in `file`, if there is one. Blocking, for milliseconds.
pub(crate) fn end(file: &Path) {
    let Ok(mark) = read_bounded(file) else { return };
    let wanted = [VARIABLE.as_bytes(), b"=", &mark].concat();
    for _ in 0..ROUNDS {
        let found: Vec<Pid> = processes().filter(|pid| has(*pid, &wanted)).collect();
        if found.is_empty() || mark.is_empty() {
            break;
        }
        tracing::warn!(?found, "ending what an interrupted command left running");
        for pid in found {
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    unmark(file);
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// A process that has ended, or is somebody else's, has no environment to read.
fn has(pid: Pid, variable: &[u8]) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == variable)
}
