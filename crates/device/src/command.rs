//! A configured command: an argument list, no shell, a time limit, both pipes drained and bounded, its own
//! process group.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::Halt;
use crate::group::Group;

/// A command that prints more than this is not one that an update should depend on.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
/// What of its output is kept for the message of a failure.
const TAIL_BYTES: usize = 400;
/// A process left in the background may hold the pipes open after the command has ended.
const PIPES_AFTER_EXIT: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    pub program: String,
    pub arguments: Vec<String>,
    pub timeout: Duration,
}

impl std::fmt::Display for CommandSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = std::iter::once(&self.program).chain(&self.arguments).collect();
        write!(f, "{words:?} (at most {} s)", self.timeout.as_secs())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CommandFailure {
    #[error("{program} could not be started: {source}")]
    NotStarted { program: String, source: std::io::Error },
    #[error("{program} ended with exit code {code}{tail}")]
    Exit { program: String, code: i32, tail: Tail },
    #[error("{program} was ended by signal {signal}{tail}")]
    Signal { program: String, signal: i32, tail: Tail },
    #[error("{program} did not end within {} s{tail}", timeout.as_secs_f32())]
    Timeout { program: String, timeout: Duration, tail: Tail },
    #[error("{program} printed more than {MAX_OUTPUT_BYTES} bytes")]
    Overrun { program: String },
    #[error("{program} was stopped, because the agent or the job was")]
    Halted { program: String },
}

impl CommandFailure {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotStarted { .. } => "command-not-started",
            Self::Exit { .. } => "command-failed",
            Self::Signal { .. } => "command-killed",
            Self::Timeout { .. } => "command-timeout",
            Self::Overrun { .. } => "command-output-overrun",
            Self::Halted { .. } => "canceled",
        }
    }
}

/// The end of what a command printed, for a person.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // One line: it goes into logs and statuses, and a command must not be able to forge either.
        let text = String::from_utf8_lossy(&self.0).replace(char::is_control, " ");
        let text = text.trim();
        if text.is_empty() { Ok(()) } else { write!(f, ": {text}") }
    }
}

enum Ended {
    Exited(std::io::Result<ExitStatus>),
    TimedOut,
    Overran,
    Halted,
}

pub(crate) async fn run(spec: &CommandSpec, halt: &Halt) -> Result<(), CommandFailure> {
    run_watched(spec, &[], halt, &mut |_| {}).await
}

/// Runs it to its end, whatever else happens, and gives what it printed to its standard output.
pub async fn answer(spec: &CommandSpec) -> Result<String, CommandFailure> {
    let mut stdout = Vec::new();
    run_watched(spec, &[], &Halt::default(), &mut |bytes| stdout.extend_from_slice(bytes)).await?;
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// With these in its environment, too. `stdout` gets what the command prints there, piece by piece, while it runs.
pub(crate) async fn run_watched(
    spec: &CommandSpec,
    environment: &[(&str, &str)],
    halt: &Halt,
    stdout: &mut dyn FnMut(&[u8]),
) -> Result<(), CommandFailure> {
    let program = spec.program.clone();
    let group = match Group::start() {
        Ok(group) => group,
        Err(source) => return Err(CommandFailure::NotStarted { program: "/bin/sh".to_owned(), source }),
    };
    let mut child = match start(spec, environment, &group) {
        Ok(child) => child,
        Err(source) => {
            group.release().await;
            return Err(CommandFailure::NotStarted { program, source });
        }
    };
    let mut output = Output::default();
    let pipes = (child.stdout.take(), child.stderr.take());
    let ended = {
        let drain = output.drain(pipes, stdout);
        tokio::pin!(drain);
        tokio::select! {
            ended = exit_with_output(&mut child, &mut drain) => ended,
            () = tokio::time::sleep(spec.timeout) => Ended::TimedOut,
            () = halt.halted() => Ended::Halted,
        }
    };
    let tail = Tail(output.tail);
    match &ended {
        Ended::Exited(Ok(status)) if status.success() => group.release().await,
        _ => group.end(&mut child).await,
    }
    match ended {
        Ended::Exited(Ok(status)) if status.success() => Ok(()),
        Ended::Exited(Ok(status)) => Err(match (status.code(), status.signal()) {
            (Some(code), _) => CommandFailure::Exit { program, code, tail },
            (None, signal) => CommandFailure::Signal { program, signal: signal.unwrap_or(0), tail },
        }),
        Ended::Exited(Err(source)) => Err(CommandFailure::NotStarted { program, source }),
        Ended::TimedOut => Err(CommandFailure::Timeout { program, timeout: spec.timeout, tail }),
        Ended::Overran => Err(CommandFailure::Overrun { program }),
        Ended::Halted => Err(CommandFailure::Halted { program }),
    }
}

/// The exit of the command, with its pipes drained meanwhile and for a moment after it.
async fn exit_with_output(child: &mut Child, drain: &mut (impl Future<Output = Drained> + Unpin)) -> Ended {
    let status = tokio::select! {
        status = child.wait() => status,
        drained = &mut *drain => match drained {
            Drained::Overrun => return Ended::Overran,
            // Both pipes are closed: only the exit is left to wait for.
            Drained::Closed => return Ended::Exited(child.wait().await),
        },
    };
    match tokio::time::timeout(PIPES_AFTER_EXIT, drain).await {
        Ok(Drained::Overrun) => Ended::Overran,
        Ok(Drained::Closed) | Err(_) => Ended::Exited(status),
    }
}

#[allow(unsafe_code, reason = "pre_exec has no safe form; a few system calls are made between fork and exec")]
fn start(spec: &CommandSpec, environment: &[(&str, &str)], group: &Group) -> std::io::Result<Child> {
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.arguments)
        .envs(environment.iter().copied())
        // systemd's words to the agent: a program that takes them for its own would speak in the agent's name.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(group.id())
        .kill_on_drop(true);
    let agent = nix::unistd::getpid();
    // SAFETY: these calls are async-signal-safe and touch no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            // A command never outlives an agent that was killed: it would run beside its own repetition.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // Killed before that call: then nobody tells this process any more.
            if nix::unistd::getppid() != agent {
                nix::sys::signal::raise(Signal::SIGKILL)?;
            }
            Ok(())
        });
    }
    command.spawn()
}

enum Drained {
    Closed,
    Overrun,
}

#[derive(Default)]
struct Output {
    total: usize,
    tail: Vec<u8>,
}

impl Output {
    async fn drain(
        &mut self,
        (stdout, stderr): (Option<impl AsyncRead + Unpin>, Option<impl AsyncRead + Unpin>),
        watch: &mut dyn FnMut(&[u8]),
    ) -> Drained {
        let (mut stdout, mut stderr) = (stdout, stderr);
        let (mut out, mut err) = ([0; 4096], [0; 4096]);
        loop {
            tokio::select! {
                read = read_some(&mut stdout, &mut out), if stdout.is_some() => {
                    let bytes = out.get(..read).unwrap_or_default();
                    watch(bytes);
                    self.take(bytes);
                }
                read = read_some(&mut stderr, &mut err), if stderr.is_some() => {
                    self.take(err.get(..read).unwrap_or_default());
                }
                else => return Drained::Closed,
            }
            if self.total > MAX_OUTPUT_BYTES {
                return Drained::Overrun;
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len();
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }
}

/// Reads once; a closed or broken pipe becomes `None` and is not read again.
async fn read_some(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    let Some(reader) = pipe else { return 0 };
    match reader.read(buffer).await {
        Ok(0) | Err(_) => {
            *pipe = None;
            0
        }
        Ok(bytes) => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> CommandSpec {
        CommandSpec { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()], timeout }
    }

    async fn reason(script: &str) -> (&'static str, String) {
        match run(&sh(script, Duration::from_secs(20)), &Halt::default()).await {
            Ok(()) => ("ok", String::new()),
            Err(failure) => (failure.reason(), failure.to_string()),
        }
    }

    #[tokio::test]
    async fn success_is_exit_code_zero_and_nothing_else() {
        assert_eq!(reason("echo hello; echo warning >&2").await.0, "ok");
        let (code, message) = reason("echo no such slot >&2; exit 3").await;
        assert_eq!(code, "command-failed");
        assert!(message.contains("exit code 3") && message.contains("no such slot"), "{message}");
        assert_eq!(reason("kill -SEGV $$").await.0, "command-killed");
        let missing = CommandSpec {
            program: "/no/such/program".into(),
            arguments: vec![],
            timeout: Duration::from_secs(1),
        };
        let failure = run(&missing, &Halt::default()).await.unwrap_err();
        assert_eq!(failure.reason(), "command-not-started");
    }

    /// AWS's device client deadlocks when more than a pipe of stderr comes before stdout ends.
    #[tokio::test]
    async fn a_pipe_full_of_stderr_before_stdout_ends_is_no_deadlock() {
        assert_eq!(reason("head -c 300000 /dev/zero >&2; echo done").await.0, "ok");
    }

    #[tokio::test]
    async fn output_without_end_is_an_overrun() {
        assert_eq!(reason("yes").await.0, "command-output-overrun");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_its_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!(
            "trap '' TERM; sleep 1000 & echo $! > {0}; echo $$ >> {0}; wait; sleep 1000",
            pids.display()
        );
        let failure = run(&sh(&script, Duration::from_millis(300)), &Halt::default()).await.unwrap_err();
        assert_eq!(failure.reason(), "command-timeout");
        for pid in std::fs::read_to_string(&pids).unwrap().lines() {
            // SIGKILL was sent; the kernel may still be busy with it.
            let ended = async {
                while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it is alive");
        }
    }

    #[tokio::test]
    async fn a_halt_ends_it_promptly() {
        let halt = Halt::default();
        let spec = sh("sleep 1000", Duration::from_secs(1000));
        let (ended, ()) = tokio::join!(run(&spec, &halt), async { halt.cancel() });
        assert_eq!(ended.unwrap_err().reason(), "canceled");
    }

    /// One in about 1,000 commands of AWS's device client hangs: a lock is held across its fork.
    #[tokio::test]
    async fn none_of_many_commands_hangs() {
        for _ in 0..300 {
            assert_eq!(reason("exit 0").await.0, "ok");
        }
    }

    #[tokio::test]
    async fn an_answer_is_the_standard_output_alone() {
        let spec = sh("echo A; echo warning >&2", Duration::from_secs(20));
        assert_eq!(answer(&spec).await.unwrap(), "A\n");
        let failed = answer(&sh("echo A; exit 1", Duration::from_secs(20))).await.unwrap_err();
        assert_eq!(failed.reason(), "command-failed");
    }

    #[tokio::test]
    async fn a_process_left_behind_does_not_hold_the_pipes() {
        assert_eq!(reason("sleep 5 & exit 0").await.0, "ok");
    }
}
