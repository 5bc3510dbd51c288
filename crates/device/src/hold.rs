//! Who on this device may say that it must not be disturbed now, besides the configured hook: programs in a folder, which
//! any package can bring, and who holds an inhibitor lock of systemd's.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::Halt;
use crate::command::{self, CommandSpec};
use crate::device::Question;
use crate::error::DeviceError;
use crate::hook;

/// logind answers at once; one that does not is not there.
const LOGIND_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the system's bus is, unless the environment says otherwise.
const BUS: &str = "/run/dbus/system_bus_socket";
/// `What` of a lock that concerns us, and its `Mode`.
const SHUTDOWN: &str = "shutdown";
const BLOCK: &str = "block";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    /// Its executables are asked like the hook. Where it is not there, nobody is.
    pub directory: PathBuf,
    /// For each of them.
    pub timeout: Duration,
    /// Are locks of systemd's honoured (`systemd-inhibit --what=shutdown`)?
    pub inhibitors: bool,
}

/// Everybody who has a say. `false`: not now.
pub(crate) async fn ask(
    holds: &Holds,
    hook: Option<&CommandSpec>,
    question: &Question,
    halt: &Halt,
) -> Result<bool, DeviceError> {
    if holds.inhibitors
        && let Some(by) = inhibitor().await
    {
        tracing::info!(by, "held off by an inhibitor lock");
        return Ok(false);
    }
    for program in programs(&holds.directory).map_err(DeviceError::storage("read", &holds.directory))? {
        let program = program.to_string_lossy().into_owned();
        let spec = CommandSpec { program, arguments: Vec::new(), timeout: holds.timeout };
        if !hook::ask(&spec, question, halt).await? {
            tracing::info!(by = spec.program, "held off");
            return Ok(false);
        }
    }
    match hook {
        Some(hook) => hook::ask(hook, question, halt).await,
        None => Ok(true),
    }
}

/// By name, as run-parts does. What is hidden or not executable is no program.
fn programs(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut programs = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Through links: a package may bring its program elsewhere.
        let executable = std::fs::metadata(entry.path())
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if executable && !entry.file_name().to_string_lossy().starts_with('.') {
            programs.push(entry.path());
        }
    }
    programs.sort();
    Ok(programs)
}

/// Who holds a lock, if anybody does. logind that cannot be asked holds nothing: a system without it must be able to get
/// another one.
async fn inhibitor() -> Option<String> {
    if std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").is_none() && !Path::new(BUS).exists() {
        return None;
    }
    // The files of logind are its own. A D-Bus client is half a megabyte in the agent, and a moment of busctl is nothing.
    const LOGIND: &str = "org.freedesktop.login1";
    let arguments = [
        "--json=short",
        "call",
        LOGIND,
        "/org/freedesktop/login1",
        "org.freedesktop.login1.Manager",
        "ListInhibitors",
    ];
    let spec = CommandSpec {
        program: "busctl".to_owned(),
        arguments: arguments.map(str::to_owned).to_vec(),
        timeout: LOGIND_TIMEOUT,
    };
    match command::answer(&spec).await {
        Ok(answer) => holder(&answer).unwrap_or_else(|error| {
            tracing::warn!(%error, "what logind says of inhibitor locks is not understood, and nothing is held off");
            None
        }),
        Err(error) => {
            tracing::warn!(%error, "logind cannot be asked for inhibitor locks, and nothing is held off");
            None
        }
    }
}

/// A lock, as `ListInhibitors` returns it: what, who, why, mode, user, process.
type Lock = (String, String, String, String, u32, u32);

#[derive(Deserialize)]
struct Answer {
    data: (Vec<Lock>,),
}

fn holder(answer: &str) -> Result<Option<String>, serde_json::Error> {
    let Answer { data: (locks,) } = serde_json::from_str(answer)?;
    let blocks =
        |(what, _, _, mode, ..): &Lock| mode == BLOCK && what.split(':').any(|what| what == SHUTDOWN);
    let holder = locks.into_iter().find(blocks);
    Ok(holder.map(|(_, who, why, _, _, pid)| format!("{who} (process {pid}): {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Disturbance;

    #[test]
    /// As busctl 252 prints what logind answers.
    fn only_a_lock_that_blocks_the_shutdown_holds_anything_off() {
        let lock = |what: &str, mode: &str| {
            format!(r#"{{"type":"a(ssssuu)","data":[[["{what}","pump","dosing","{mode}",0,77]]]}}"#)
        };
        let cases = [
            (lock("shutdown", "block"), Some("pump (process 77): dosing")),
            (lock("sleep:shutdown:idle", "block"), Some("pump (process 77): dosing")),
            (lock("shutdown", "delay"), None),
            (lock("shutdown", "block-weak"), None),
            (lock("sleep", "block"), None),
            (lock("handle-power-key", "block"), None),
            (r#"{"type":"a(ssssuu)","data":[[]]}"#.to_owned(), None),
        ];
        for (answer, expected) in cases {
            assert_eq!(holder(&answer).unwrap().as_deref(), expected, "{answer}");
        }
        for wrong in ["", "[]", r#"{"data":[]}"#, r#"{"data":[[["shutdown"]]]}"#] {
            assert!(holder(wrong).is_err(), "{wrong}");
        }
    }

    fn with(folder: &Path) -> Holds {
        Holds { directory: folder.to_owned(), timeout: Duration::from_secs(5), inhibitors: false }
    }

    async fn asked(folder: &Path, hook: Option<&str>) -> Result<bool, DeviceError> {
        let question = Question { operation: Disturbance::Reboot, version: None, job_id: "job-1".to_owned() };
        let hook = hook.map(|script| CommandSpec {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            timeout: Duration::from_secs(5),
        });
        ask(&with(folder), hook.as_ref(), &question, &Halt::default()).await
    }

    #[tokio::test]
    async fn each_program_of_the_folder_has_a_say_and_so_has_the_hook() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, mode: u32, script: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        assert!(asked(&folder.path().join("nowhere"), None).await.unwrap());
        assert!(asked(folder.path(), None).await.unwrap());
        program("README", 0o644, "exit 75");
        program(".hidden", 0o755, "exit 75");
        program("10-first", 0o755, "test \"$FLEETHAND_OPERATION/$FLEETHAND_JOB_ID\" = reboot/job-1");
        std::fs::create_dir(folder.path().join("20-folder")).unwrap();
        assert!(asked(folder.path(), None).await.unwrap());
        assert!(!asked(folder.path(), Some("exit 75")).await.unwrap());
        program("30-busy", 0o755, "exit 75");
        assert!(!asked(folder.path(), None).await.unwrap());
        // Asked before the hook, which is spared then.
        assert!(!asked(folder.path(), Some("exit 1")).await.unwrap());
        program("05-no", 0o755, "echo never; exit 1");
        assert_eq!(asked(folder.path(), None).await.unwrap_err().reason(), "hook-refused");
    }
}
