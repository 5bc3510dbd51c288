//! A process under ptrace: its calls that leave something behind are counted, over all of its threads, and one
//! of them can be struck at its entry, before it has any effect.
//!
//! `strace -e inject=…:when=N` counts per thread, and so never reaches the later calls of the threads that make
//! few. It cannot cut the power either while the process stands still.

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What leaves something behind in the file system or on the network, whichever file it is about…
const ALWAYS: &[(libc::c_long, &str)] = &[
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_sync_file_range, "sync_file_range"),
    (libc::SYS_renameat, "rename"),
    (libc::SYS_renameat2, "rename"),
    (libc::SYS_linkat, "link"),
    (libc::SYS_unlinkat, "unlink"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_sendto, "send"),
    (libc::SYS_sendmsg, "send"),
];
/// …what does so only in a file or a socket…
const WRITES: &[(libc::c_long, &str)] = &[
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "write"),
    (libc::SYS_pwrite64, "write"),
    (libc::SYS_pwritev, "write"),
];
/// …and the moment before a child dies with its parent.
const IN_CHILD: &[(libc::c_long, &str)] = &[(libc::SYS_prctl, "prctl")];

/// Counts on over several runs, until it stands at the point to strike at.
pub struct Tally {
    /// Each one's name, then what it was about.
    pub calls: Vec<String>,
    pub at: usize,
}

pub struct Struck {
    /// Commands that began although the process that ordered them was dead.
    pub orphans: usize,
}

pub struct Traced {
    leader: Child,
    /// Processes and threads, of which the kernel reports the stops to this thread only.
    known: HashSet<Pid>,
}

impl Traced {
    #[allow(unsafe_code, reason = "pre_exec has no safe form; only ptrace is called between fork and exec")]
    pub fn start(mut command: Command) -> Self {
        // SAFETY: ptrace is async-signal-safe and touches no memory of the parent.
        unsafe { command.pre_exec(|| ptrace::traceme().map_err(std::io::Error::from)) };
        let leader = command.spawn().unwrap();
        let pid = Pid::from_raw(leader.id().cast_signed());
        // It stands still at the end of its exec.
        assert!(matches!(waitpid(pid, None), Ok(WaitStatus::Stopped(..))));
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(pid, options).unwrap();
        ptrace::syscall(pid, None).unwrap();
        Self { leader, known: HashSet::from([pid]) }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.leader.id().cast_signed())
    }

    /// Until it has ended. `at_call` is told the number of each call, before it; at the tally's point it is
    /// killed.
    pub fn follow(mut self, tally: &mut Tally, at_call: impl Fn(usize)) -> Option<Struck> {
        let leader = self.pid();
        let mut struck: Option<Struck> = None;
        let mut held = None;
        // That a command has begun may be reported after what the agent did next.
        let mut began = HashSet::new();
        while !self.known.is_empty() {
            // Of this thread alone: other tests of this program have children, too.
            let stop = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(stop) => stop,
                Err(Errno::EINTR) => continue,
                Err(error) => panic!("waitpid: {error}"),
            };
            let Some(pid) = stop.pid() else { continue };
            let is_new = self.known.insert(pid);
            let mut deliver = None;
            match stop {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    self.known.remove(&pid);
                    // A child goes on when its parent is dead. A thread of the parent is dead with it.
                    if let Some(held) = held.take_if(|_| pid == leader) {
                        let _ = ptrace::syscall(held, None);
                    }
                    continue;
                }
                WaitStatus::PtraceSyscall(_) if struck.is_none() => {
                    if let Some(call) = self.entered(pid) {
                        tally.calls.push(call);
                        at_call(tally.calls.len());
                        if tally.calls.len() == tally.at {
                            began = self.commands();
                            kill(leader, Signal::SIGKILL).unwrap();
                            struck = Some(Struck { orphans: 0 });
                            held = Some(pid);
                            continue;
                        }
                    }
                }
                // A command, which is not what is looked at.
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => {
                    if let Some(struck) = &mut struck
                        && !began.contains(&pid)
                    {
                        struck.orphans += 1;
                    }
                    self.known.remove(&pid);
                    let _ = ptrace::detach(pid, None);
                    continue;
                }
                WaitStatus::Stopped(_, Signal::SIGSTOP) if is_new => {}
                WaitStatus::Stopped(_, signal) => deliver = Some(signal),
                _ => {}
            }
            // It may have been killed meanwhile; then its end is reported next.
            let _ = ptrace::syscall(pid, deliver);
        }
        struck
    }

    /// The call that is being entered, if it is one of those that count.
    #[allow(unsafe_code, reason = "which member of the union holds is what `op` says")]
    fn entered(&self, pid: Pid) -> Option<String> {
        let info = ptrace::syscall_info(pid).ok()?;
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        // SAFETY: `op` says that it is an entry.
        let (number, first) = unsafe { (info.u.entry.nr, info.u.entry.args[0]) };
        let name = |calls: &[(libc::c_long, &'static str)]| {
            calls.iter().find(|(call, _)| *call == number as libc::c_long).map(|(_, name)| *name)
        };
        let file = || {
            let target = fs::read_link(format!("/proc/{pid}/fd/{first}")).unwrap_or_default();
            target.to_string_lossy().into_owned()
        };
        if let Some(name) = name(WRITES) {
            let file = file();
            // What wakes another thread, and what goes to the log, changes nothing that a restart sees.
            let counts = first > 2 && (file.starts_with('/') || file.starts_with("socket:"));
            return counts.then(|| format!("{name} {file}"));
        }
        if let Some(name) = name(IN_CHILD) {
            return self.is_child(pid).then(|| name.to_owned());
        }
        name(ALWAYS).map(|name| match name {
            "rename" | "link" | "unlink" => name.to_owned(),
            _ => format!("{name} {}", file()),
        })
    }

    /// What is another program by now.
    fn commands(&self) -> HashSet<Pid> {
        let program = |pid: &Pid| fs::read_link(format!("/proc/{pid}/exe")).ok();
        let agent = program(&self.pid());
        self.known.iter().copied().filter(|pid| program(pid) != agent).collect()
    }

    fn is_child(&self, pid: Pid) -> bool {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.contains(&format!("\nTgid:\t{}\n", self.pid()))
    }
}
