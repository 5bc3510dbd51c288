//! The process group of one command, which ends with the agent, whatever ends the agent: what a command has started
//! must not run on beside the command's repetition.
//!
//! The leader of the group is not the command but a shell that reads from the agent. When the agent is gone, the shell
//! reads the end of the file and takes the whole group with it. The kernel's parent-death signal would reach the
//! command alone.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// Between SIGTERM and SIGKILL. Shorter than the 5 s in which the agent itself must stop.
const GRACE: Duration = Duration::from_secs(2);
const LEADER: &str = "trap '' TERM; read line || kill -KILL 0";

pub(crate) struct Group {
    /// Not used again by the kernel while the leader is not waited for.
    id: Pid,
    leader: Child,
}

impl Group {
    pub(crate) fn start() -> io::Result<Self> {
        let leader = Command::new("/bin/sh")
            .args(["-c", LEADER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let id =
            leader.id().ok_or_else(|| io::Error::other("the leader of the command's group has ended"))?;
        Ok(Self { id: Pid::from_raw(id.cast_signed()), leader })
    }

    pub(crate) fn id(&self) -> i32 {
        self.id.as_raw()
    }

    /// The command has succeeded. What it left in the background, a daemon perhaps, goes on without us.
    pub(crate) async fn release(mut self) {
        if let Some(mut pipe) = self.leader.stdin.take() {
            let _ = pipe.write_all(b"\n").await;
        }
        let _ = self.leader.wait().await;
    }

    /// SIGTERM to everything in it, a grace period for the command, SIGKILL to what is left.
    pub(crate) async fn end(mut self, command: &mut Child) {
        let _ = killpg(self.id, Signal::SIGTERM);
        let _ = tokio::time::timeout(GRACE, command.wait()).await;
        let _ = killpg(self.id, Signal::SIGKILL);
        let _ = command.wait().await;
        let _ = self.leader.wait().await;
    }
}
