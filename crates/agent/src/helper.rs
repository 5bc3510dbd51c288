//! The second process: root, without the network. It does to the device what the agent asks for over a socket, after
//! its own look at it, and ends when it was idle for a while: systemd keeps the socket, and starts it again.

use std::os::fd::FromRawFd;
use std::os::unix::fs::lchown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use device::Service;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::{Mode, umask};
use nix::unistd::User;
use tokio_util::sync::CancellationToken;

use crate::config::{Helper, Settings};
use crate::lock::lock;

/// A command has 2 s to end, and what is written gets some more: a stop stays below 5 s.
const STOP: Duration = Duration::from_millis(4500);
/// `SD_LISTEN_FDS_START` of sd_listen_fds(3).
const FIRST_FD: i32 = 3;

pub async fn run(settings: &Settings, helper: &Helper, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let user = User::from_name(&helper.user)
        .ok()
        .flatten()
        .with_context(|| format!("[helper] user: there is no user {:?} on this system", helper.user))?;
    let passed = passed_by_systemd()?;
    // Who was not started by its socket would not be started again.
    let idle = passed.as_ref().map(|_| helper.idle);
    let listener = match passed {
        Some(listener) => listener,
        None => bind(&helper.socket, &user)?,
    };
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let service = Service { settings: settings.host.clone(), user: user.uid.as_raw(), idle };
    tracing::info!(socket = %helper.socket.display(), user = helper.user, "serving");
    let lock = || lock(&settings.host.state_directory).map_err(|error| format!("{error:#}"));
    let stopping = CancellationToken::new();
    tokio::select! {
        () = device::serve(&listener, &service, lock, stopping.cancelled()) => {}
        () = async {
            stop.await;
            stopping.cancel();
            tokio::time::sleep(STOP).await;
        } => tracing::warn!("stopped in the middle of something: the agent asks again"),
    }
    Ok(())
}

/// The socket that this process was started by, if it was.
#[allow(unsafe_code, reason = "a descriptor that was passed is a number, and nothing else tells of it")]
fn passed_by_systemd() -> anyhow::Result<Option<UnixListener>> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        Some(1) => {}
        found => bail!("systemd passes {} sockets, expected one", found.unwrap_or_default()),
    }
    // SAFETY: by sd_listen_fds(3) descriptor 3 is open and this process's alone, and it is taken here only, once.
    let listener = unsafe { UnixListener::from_raw_fd(FIRST_FD) };
    // No command may have it.
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("the socket that systemd passes")?;
    listener.local_addr().context("what systemd passes is not a Unix socket")?;
    Ok(Some(listener))
}

/// Without systemd. A socket that nobody answers at is one that a killed helper left.
fn bind(socket: &Path, user: &User) -> anyhow::Result<UnixListener> {
    let problem = || format!("cannot listen at {}", socket.display());
    if UnixStream::connect(socket).is_ok() {
        bail!("another helper listens at {}", socket.display());
    }
    device::remove_if_there(socket).with_context(problem)?;
    // The mode is not what keeps others out, which is the look at who asks. It is never set by name: the folder may be the
    // user's, and the name something else by then.
    let before = umask(Mode::from_bits_truncate(0o117));
    let listener = UnixListener::bind(socket);
    umask(before);
    let listener = listener.with_context(problem)?;
    if nix::unistd::geteuid().is_root() {
        lchown(socket, None, Some(user.gid.as_raw())).with_context(problem)?;
    }
    Ok(listener)
}
