//! What can be told without a network.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use connection::{tls, utc};

use super::{Agent, Check};
use crate::config::{Claim, ConfigError, Settings};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What there must be time for: to notice it, and to give the device another one.
pub const EXPIRES_SOON: Duration = Duration::from_secs(30 * DAY.as_secs());
/// The journal and the history need a few kilobytes, twice.
const TOO_FULL: u64 = 1024 * 1024;
const NEARLY_FULL: u64 = 32 * 1024 * 1024;

pub fn configuration(settings: &Settings, file: &Path) -> Check {
    match settings.check_schemas(file) {
        Ok(()) => Check::ok("configuration", file.display()),
        Err(error) => Check::failed("configuration", error, "correct the schema"),
    }
}

pub fn clock(now: SystemTime) -> Check {
    match release::plausible(now) {
        Some(now) => Check::ok("clock", utc(now)),
        None => Check::failed(
            "clock",
            format!("it shows {}, and was never set", utc(now)),
            "set it, best by NTP (`timedatectl set-ntp true`): certificates are checked against it",
        ),
    }
}

pub fn certificate(file: &Path, now: SystemTime) -> Check {
    const NAME: &str = "certificate";
    let validity = match tls::validity(file) {
        Ok(validity) => validity,
        Err(error) => return Check::failed(NAME, error, "give the right file to `fleethand setup`"),
    };
    let until = utc(validity.not_after);
    if now < validity.not_before {
        let text =
            format!("it is valid from {} on, and the clock shows {}", utc(validity.not_before), utc(now));
        return Check::failed(NAME, text, "is the clock right?");
    }
    match validity.not_after.duration_since(now) {
        Err(_) => Check::failed(
            NAME,
            format!("it expired at {until}, and the clock shows {}", utc(now)),
            "if the clock is right, make another certificate, and give it to `fleethand setup`",
        ),
        Ok(left) if left < EXPIRES_SOON => Check::warning(
            NAME,
            format!("it expires at {until}, in {} days", left.as_secs() / DAY.as_secs()),
            "order `rotate-certificate`, or make another one and give it to `fleethand setup`",
        ),
        Ok(left) => {
            Check::ok(NAME, format!("valid until {until}, for {} days", left.as_secs() / DAY.as_secs()))
        }
    }
}

/// Of a device that has no certificate of its own yet.
pub fn claim(claim: &Claim, usable: Result<(), ConfigError>) -> Check {
    const NAME: &str = "certificate";
    match usable {
        Ok(()) => Check::warning(
            NAME,
            format!("there is none yet: `fleethand run` asks for one with the template {}", claim.template),
            "if it has tried, its log says why there is none",
        ),
        Err(error) => {
            Check::failed(NAME, error, "correct the file: without it the device gets no certificate")
        }
    }
}

/// What must be written to.
pub fn folders(settings: &Settings) -> Vec<Check> {
    let state = &settings.state_directory;
    let mut checks = vec![state_folder(state), space("space", state)];
    let staging = settings.host.firmware.as_ref().and_then(|firmware| firmware.target.staging_folder());
    checks.extend(staging.map(|folder| space("staging", folder)));
    checks
}

fn state_folder(folder: &Path) -> Check {
    const NAME: &str = "state";
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Check::failed(NAME, format!("{shown} is not a folder"), "remove it"),
        Ok(found) if found.mode() & 0o077 != 0 => {
            let text = format!("{shown} has mode {:04o}: others may look into it", found.mode() & 0o7777);
            Check::failed(NAME, text, format!("`chmod 700 {shown}`"))
        }
        Ok(_) => Check::ok(NAME, shown),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Check::ok(NAME, format!("{shown} is made at the first start"))
        }
        Err(error) => Check::failed(NAME, format!("{shown}: {error}"), "run this as root"),
    }
}

fn space(name: &'static str, folder: &Path) -> Check {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let free = match nix::sys::statvfs::statvfs(there) {
        Ok(found) => downloader::free_bytes(&found),
        Err(error) => {
            return Check::failed(name, format!("{}: {error}", there.display()), "run this as root");
        }
    };
    let text = format!("{} MiB are free for {}", free >> 20, folder.display());
    const ADVICE: &str = "make space: without it no work is taken up";
    match free {
        ..TOO_FULL => Check::failed(name, text, ADVICE),
        TOO_FULL..NEARLY_FULL => Check::warning(name, text, ADVICE),
        _ => Check::ok(name, text),
    }
}

/// Looked at and not connected to: that would start it.
pub fn helper(socket: &Path) -> Check {
    const NAME: &str = "helper";
    let shown = socket.display();
    match std::fs::metadata(socket) {
        Ok(found) if found.file_type().is_socket() => Check::ok(NAME, shown),
        Ok(_) => Check::failed(NAME, format!("{shown} is not a socket"), "correct `[helper] socket`"),
        Err(error) => {
            Check::failed(NAME, format!("{shown}: {error}"), "`systemctl start fleethand-helper.socket`")
        }
    }
}

pub fn agent(agent: &Agent) -> Check {
    match agent {
        Agent::Runs(Some(status)) => Check::ok("agent", format!("it runs, {}", status.connection)),
        Agent::Runs(None) => Check::ok("agent", "it runs"),
        Agent::Stopped => Check::ok("agent", "it does not run"),
        Agent::Unknown => Check::skipped("agent", "only root can tell whether it runs"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Found;
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_said_to_be_that() {
        let unset = clock(SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        assert_eq!(unset.result, Found::Failed);
        assert!(unset.text.contains("1970-01-01T00:01:40Z"), "{unset:?}");
        assert_eq!(clock(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)).result, Found::Ok);
    }

    #[test]
    fn others_must_not_look_into_the_state() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let with = |mode| {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode)).unwrap();
            state_folder(folder.path()).result
        };
        assert_eq!((with(0o755), with(0o700)), (Found::Failed, Found::Ok));
        assert_eq!(state_folder(&folder.path().join("later")).result, Found::Ok);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(state_folder(&file).result, Found::Failed);
    }
}
