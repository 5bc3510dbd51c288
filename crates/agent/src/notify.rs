//! What systemd is told of this process: that it has started, how it goes, that it still turns. Without systemd, nothing.
//!
//! The watchdog is fed by the loop as it turns, and by nothing else: a timer beside it would feed on while the loop hangs.
//! Work runs beside the loop, so a command or a disk that takes its time starves nobody; the operation's own deadline is
//! there for it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// `systemctl status` shows one line.
const MAX_LINE: usize = 300;

pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
    /// What was said last.
    line: String,
}

struct Watchdog {
    /// systemd ends a process that was silent for so long.
    period: Duration,
    next: Instant,
}

impl Notify {
    /// What systemd's environment says. Where that is unusable, it is as without systemd.
    pub fn from_environment(now: Instant) -> Self {
        let variable = |name: &str| std::env::var_os(name);
        let socket = variable("NOTIFY_SOCKET").and_then(|path| {
            let opened = open(&path);
            opened.inspect_err(|error| tracing::warn!(?path, %error, "systemd cannot be told anything")).ok()
        });
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let period = number("WATCHDOG_USEC").filter(|period| ours && *period > 0);
        Self::new(socket, period.map(Duration::from_micros), now)
    }

    fn new(socket: Option<UnixDatagram>, period: Option<Duration>, now: Instant) -> Self {
        let watchdog = period.filter(|_| socket.is_some()).map(|period| Watchdog { period, next: now });
        Self { socket, watchdog, line: String::new() }
    }

    /// The loop runs. A connection is not waited for: a device without a network boots, too.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// In one line, for `systemctl status`. Said only when it is another one than before.
    pub fn status(&mut self, line: impl FnOnce() -> String) {
        if self.socket.is_none() {
            return;
        }
        let line: String =
            line().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_LINE).collect();
        if line != self.line && self.send(&format!("STATUS={line}")) {
            self.line = line;
        }
    }

    /// The loop has turned; `parts_answer`: and what it consists of does, too.
    pub fn turned(&mut self, now: Instant, parts_answer: bool) {
        let Some(Watchdog { period, next }) = &mut self.watchdog else { return };
        if now < *next {
            return;
        }
        // What does not answer now may do so in a moment, and the loop must not spin meanwhile.
        *next = now + if parts_answer { *period / 2 } else { *period / 8 };
        if parts_answer {
            self.send("WATCHDOG=1");
        } else {
            tracing::error!(
                "the connection's task does not answer: without it systemd starts the agent anew"
            );
        }
    }

    /// When the loop has to turn at the latest.
    pub fn due(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.next)
    }

    /// Never waits: systemd that does not listen must not hold up a job.
    fn send(&self, message: &str) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.send(message.as_bytes()).is_ok())
    }
}

/// A path, or `@` and a name that is in no file system.
fn open(path: &OsString) -> io::Result<UnixDatagram> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::new(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(period: Option<u64>, now: Instant) -> (Notify, UnixDatagram) {
        let (ours, systemd) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        systemd.set_nonblocking(true).unwrap();
        (Notify::new(Some(ours), period.map(Duration::from_secs), now), systemd)
    }

    fn heard(systemd: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1024];
        std::iter::from_fn(|| systemd.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn the_watchdog_is_fed_by_turns_at_half_its_period_and_not_for_a_part_that_hangs() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut notify, systemd) = pair(Some(80), start);
        let fed = |notify: &mut Notify, second, answers| {
            notify.turned(at(second), answers);
            (heard(&systemd).len(), notify.due().unwrap() - start)
        };
        let s = Duration::from_secs;
        assert_eq!(fed(&mut notify, 0, true), (1, s(40)));
        assert_eq!(fed(&mut notify, 39, true), (0, s(40)));
        assert_eq!(fed(&mut notify, 40, true), (1, s(80)));
        // Looked at again soon, but not at once: the loop must not spin.
        assert_eq!(fed(&mut notify, 80, false), (0, s(90)));
        assert_eq!(fed(&mut notify, 90, true), (1, s(130)));
    }

    #[test]
    fn without_a_watchdog_the_loop_has_nothing_to_wake_up_for() {
        let now = Instant::now();
        let (mut notify, systemd) = pair(None, now);
        notify.turned(now, true);
        assert_eq!((notify.due(), heard(&systemd)), (None, vec![]));
        assert_eq!(Notify::new(None, Some(Duration::from_secs(60)), now).due(), None);
    }

    #[test]
    fn a_status_is_one_short_line_and_is_said_once() {
        let (mut notify, systemd) = pair(None, Instant::now());
        for line in ["connected, idle", "connected, idle", "two\nlines", &"x".repeat(1000)] {
            notify.status(|| line.to_owned());
        }
        let long = format!("STATUS={}", "x".repeat(MAX_LINE));
        assert_eq!(heard(&systemd), ["STATUS=connected, idle", "STATUS=two lines", &long]);
    }

    #[test]
    fn systemd_that_does_not_listen_holds_nothing_up() {
        let now = Instant::now();
        let (mut notify, systemd) = pair(Some(1), now);
        for n in 0..100_000 {
            notify.status(|| n.to_string());
        }
        drop(systemd);
        notify.turned(now, true);
        notify.stopping();
    }

    #[test]
    fn both_kinds_of_address_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("fleethand-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (said, systemd) in [(path.into_os_string(), by_path), (format!("@{name}").into(), by_name)] {
            systemd.set_nonblocking(true).unwrap();
            Notify::new(Some(open(&said).unwrap()), None, Instant::now()).ready();
            assert_eq!(heard(&systemd), ["READY=1"]);
        }
        assert!(open(&folder.path().join("nobody").into_os_string()).is_err());
    }
}
