//! U-Boot, through its environment: `BOOT_ORDER` has the slots that may boot, the first one first, and `BOOT_x_LEFT` says
//! how often `x` may. These are RAUC's variables. A committed slot is the only one in the order, so that a script may
//! count every boot (RAUC's do) and still has nowhere else to go.

use std::path::PathBuf;

use async_trait::async_trait;

use super::{Assignments, Bootloader, Variables, ask, changes, variables};
use crate::command::CommandSpec;
use crate::error::DeviceError;
use crate::storage::remove_if_there;

pub(super) struct UBoot {
    pub printenv: CommandSpec,
    pub setenv: CommandSpec,
    pub script: PathBuf,
    pub tries: u64,
}

#[async_trait(?Send)]
impl Bootloader for UBoot {
    async fn mark_bad(&self, slot: &str, running: &str) -> Result<(), DeviceError> {
        let have = self.print().await?;
        let want = bad(&have, slot, running, self.tries).map_err(DeviceError::Bootloader)?;
        self.set(&have, want).await
    }

    async fn try_next(&self, slot: &str, running: &str) -> Result<(), DeviceError> {
        let have = self.print().await?;
        bad(&have, slot, running, self.tries).map_err(DeviceError::Bootloader)?;
        self.set(&have, trial(slot, running, self.tries)).await
    }

    async fn mark_good(&self, slot: &str) -> Result<(), DeviceError> {
        self.set(&self.print().await?, good(slot, self.tries)).await
    }

    fn describe(&self, slot: &str) -> String {
        format!("put {slot} first in U-Boot's BOOT_ORDER, with BOOT_{slot}_LEFT={}", self.tries)
    }
}

impl UBoot {
    async fn print(&self) -> Result<Variables, DeviceError> {
        Ok(variables(&ask(&self.printenv, [""; 0]).await?))
    }

    /// One script is one write of the environment. `fw_setenv` syncs it; that it is whole after a power cut takes a
    /// redundant environment.
    async fn set(&self, have: &Variables, want: Assignments) -> Result<(), DeviceError> {
        let (changes, script) = (changes(have, want), &self.script);
        let mut done = Ok(());
        if !changes.is_empty() {
            let lines: String = changes.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            std::fs::write(script, lines).map_err(DeviceError::storage("write", script))?;
            done = ask(&self.setenv, ["-s".to_owned(), script.display().to_string()]).await.map(drop);
        }
        // Also where there is nothing to write: whoever wrote what is there may not have lived to do it.
        remove_if_there(script).map_err(DeviceError::storage("remove", script))?;
        done
    }
}

fn left(slot: &str) -> String {
    format!("BOOT_{slot}_LEFT")
}

fn bad(have: &Variables, slot: &str, running: &str, tries: u64) -> Result<Assignments, String> {
    let order = have.get("BOOT_ORDER").map_or("", String::as_str);
    if slot == running || !order.split_ascii_whitespace().any(|in_order| in_order == running) {
        return Err(format!("BOOT_ORDER is {order:?}, but slot {running} runs and {slot} is to be written"));
    }
    Ok([good(running, tries), vec![(left(slot), "0".to_owned())]].concat())
}

fn trial(slot: &str, running: &str, tries: u64) -> Assignments {
    let tries = tries.to_string();
    vec![
        ("BOOT_ORDER".to_owned(), format!("{slot} {running}")),
        (left(slot), tries.clone()),
        (left(running), tries),
    ]
}

fn good(slot: &str, tries: u64) -> Assignments {
    vec![("BOOT_ORDER".to_owned(), slot.to_owned()), (left(slot), tries.to_string())]
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_slot_to_be_written_is_never_one_that_boots() {
        let cases = [
            ("BOOT_ORDER=A", Ok("A")),
            ("BOOT_ORDER=A B\nBOOT_B_LEFT=3", Ok("A")),
            // A trial that was ordered and has not begun.
            ("BOOT_ORDER=B A", Ok("A")),
            ("BOOT_ORDER=B", Err(())),
            ("BOOT_ORDER=AA B", Err(())),
            ("", Err(())),
        ];
        for (listing, order) in cases {
            let wanted = bad(&variables(listing), "B", "A", 3).map_err(drop);
            let expected = |order: &str| {
                [("BOOT_ORDER", order), ("BOOT_A_LEFT", "3"), ("BOOT_B_LEFT", "0")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec()
            };
            assert_eq!(wanted, order.map(expected), "{listing}");
        }
        assert!(bad(&variables("BOOT_ORDER=A"), "A", "A", 3).is_err());
    }

    fn u_boot(folder: &Path) -> UBoot {
        std::fs::write(folder.join("env"), vec![0; 0x4000]).unwrap();
        std::fs::write(folder.join("defaults"), "BOOT_ORDER=A\nbootdelay=2\n").unwrap();
        let config = folder.join("fw_env.config");
        std::fs::write(&config, format!("{} 0x0 0x4000\n", folder.join("env").display())).unwrap();
        let spec = |program: &str| CommandSpec {
            program: program.into(),
            arguments: ["-c", config.to_str().unwrap(), "-f", folder.join("defaults").to_str().unwrap()]
                .map(str::to_owned)
                .to_vec(),
            timeout: Duration::from_secs(20),
        };
        let (printenv, setenv) = (spec("fw_printenv"), spec("fw_setenv"));
        UBoot { printenv, setenv, script: folder.join("script"), tries: 3 }
    }

    #[tokio::test]
    async fn a_whole_life_in_a_real_environment() {
        let folder = tempfile::tempdir().unwrap();
        let u_boot = u_boot(folder.path());
        let holds = async |expected: &str| {
            let found = u_boot.print().await.unwrap();
            assert_eq!(found, variables(&format!("bootdelay=2\n{expected}")));
        };
        u_boot.mark_bad("B", "A").await.unwrap();
        holds("BOOT_ORDER=A\nBOOT_A_LEFT=3\nBOOT_B_LEFT=0").await;
        u_boot.try_next("B", "A").await.unwrap();
        holds("BOOT_ORDER=B A\nBOOT_A_LEFT=3\nBOOT_B_LEFT=3").await;
        u_boot.mark_good("B").await.unwrap();
        holds("BOOT_ORDER=B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=3").await;
        assert_eq!(u_boot.mark_bad("B", "A").await.unwrap_err().reason(), "bootloader-error");
        assert!(!u_boot.script.exists());
        // Killed after the environment was written and before the script was removed.
        std::fs::write(&u_boot.script, "BOOT_ORDER=B\n").unwrap();
        u_boot.mark_good("B").await.unwrap();
        assert!(!u_boot.script.exists());
    }

    #[tokio::test]
    async fn an_environment_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let u_boot = u_boot(folder.path());
        std::fs::remove_file(folder.path().join("fw_env.config")).unwrap();
        assert_eq!(u_boot.mark_good("A").await.unwrap_err().reason(), "bootloader-error");
    }
}
