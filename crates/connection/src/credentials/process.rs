//! A program that prints a secret: a login's token, or credentials.

use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::CredentialsError;

const MAX_BYTES: u64 = 64 * 1024;

/// What it prints. What it says of its own troubles goes to where our own log goes, and into no error. It ends when nobody waits
/// for it any more, which is when the time for a connect is up.
pub(super) async fn output(program: &str, mut command: Command) -> Result<String, CredentialsError> {
    let failed = |problem: String| CredentialsError::Program { program: program.to_owned(), problem };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).process_group(0);
    let mut child = command.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(MAX_BYTES + 1).read_to_end(&mut text).await;
        read.map_err(|error| failed(error.to_string()))?;
    }
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(format!("it prints more than {MAX_BYTES} bytes")));
    }
    let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
    group.0 = None;
    if !status.success() {
        return Err(failed(format!("it failed: {status}")));
    }
    String::from_utf8(text).map_err(|_| failed("what it prints is not UTF-8".to_owned()))
}

/// What a program has started itself goes with it: one that hangs would leave something behind at each connect.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("sleep 600 & echo $! > {file:?}; wait")]);
        let begun = async {
            loop {
                if let Some(id) =
                    std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok())
                {
                    return id;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let id: i32 = tokio::select! {
            done = output("sh", command) => panic!("{done:?}"),
            id = begun => id,
        };
        while nix::sys::signal::kill(Pid::from_raw(id), None).is_ok() {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            if state.contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
