//! GRUB, through its environment block: `good` is the committed slot, `try` the one on trial, `left` how often it may
//! still boot. GRUB counts down before each boot of a trial. When none is left it empties `try`, and boots `good`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Assignments, Bootloader, Variables, ask, assign, changes, variables};
use crate::blocking;
use crate::command::CommandSpec;
use crate::error::DeviceError;
use crate::storage::{read_bounded, remove_if_there};

pub(super) struct Grub {
    pub editenv: CommandSpec,
    pub env: PathBuf,
    pub copy: PathBuf,
    pub tries: u64,
}

#[async_trait(?Send)]
impl Bootloader for Grub {
    async fn mark_bad(&self, slot: &str, running: &str) -> Result<(), DeviceError> {
        let have = self.list().await?;
        let want = bad(&have, slot, running).map_err(|why| self.refuse(&why))?;
        self.set(&have, want).await
    }

    async fn try_next(&self, slot: &str, running: &str) -> Result<(), DeviceError> {
        let have = self.list().await?;
        bad(&have, slot, running).map_err(|why| self.refuse(&why))?;
        self.set(&have, trial(slot, self.tries)).await
    }

    async fn mark_good(&self, slot: &str) -> Result<(), DeviceError> {
        self.set(&self.list().await?, good(slot)).await
    }

    fn describe(&self, slot: &str) -> String {
        format!("set try={slot} left={} in {}", self.tries, self.env.display())
    }
}

impl Grub {
    async fn list(&self) -> Result<Variables, DeviceError> {
        Ok(variables(&ask(&self.editenv, [self.env.display().to_string(), "list".to_owned()]).await?))
    }

    /// `grub-editenv` empties the file before it writes it: a power cut in between would leave no environment. So it
    /// works on a copy, and the block goes over the old one in place, where GRUB finds it without its file system's
    /// journal. The variables at the block's beginning are in one sector, so that the old or the new ones are there.
    async fn set(&self, have: &Variables, want: Assignments) -> Result<(), DeviceError> {
        let changes = changes(have, want);
        if !changes.is_empty() {
            let (env, copy) = (self.env.clone(), self.copy.clone());
            blocking(move || {
                remove_if_there(&copy).map_err(DeviceError::storage("remove", &copy))?;
                std::fs::copy(&env, &copy).map(drop).map_err(DeviceError::storage("copy", &env))
            })
            .await?;
            let set = [self.copy.display().to_string(), "set".to_owned()];
            let assignments = changes.iter().map(|(name, value)| format!("{name}={value}"));
            ask(&self.editenv, set.into_iter().chain(assignments)).await?;
        }
        let (env, copy, changed) = (self.env.clone(), self.copy.clone(), !changes.is_empty());
        blocking(move || put(&env, &copy, changed).map_err(DeviceError::storage("write", &env))).await
    }

    fn refuse(&self, why: &str) -> DeviceError {
        DeviceError::Bootloader(format!("{}: {why}", self.env.display()))
    }
}

/// The bytes of `copy` over those of `env`, if they `changed`. Where there is nothing to write it is synced, and the copy
/// removed, all the same: whoever wrote what is there may not have lived to do it.
fn put(env: &Path, copy: &Path, changed: bool) -> io::Result<()> {
    if changed {
        let bytes = read_bounded(copy)?;
        let mut file = OpenOptions::new().write(true).open(env)?;
        if file.metadata()?.len() != bytes.len() as u64 {
            return Err(io::Error::other("grub-editenv has changed the length of the environment block"));
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
    } else {
        File::open(env)?.sync_all()?;
    }
    remove_if_there(copy).map(drop)
}

fn bad(have: &Variables, slot: &str, running: &str) -> Result<Assignments, String> {
    match have.get("good") {
        Some(good) if good == running && slot != running => Ok(assign([("try", ""), ("left", "")])),
        Some(good) => Err(format!("good={good}, but slot {running} runs and slot {slot} is to be written")),
        None => Err(format!("`good` is not set; set it to the slot that runs: good={running}")),
    }
}

fn trial(slot: &str, tries: u64) -> Assignments {
    assign([("try", slot), ("left", &tries.to_string()), ("rolledback", "")])
}

/// In one write: with `good` alone the next boot would still be a trial.
fn good(slot: &str) -> Assignments {
    assign([("good", slot), ("try", ""), ("left", ""), ("rolledback", "")])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_slot_to_be_written_is_never_the_one_that_boots() {
        let cases = [
            ("good=A", true),
            ("good=A\ntry=B\nleft=2", true),
            ("good=A\nrolledback=1", true),
            ("good=B", false),
            ("good=C", false),
            ("try=B", false),
            ("", false),
        ];
        for (listing, possible) in cases {
            let wanted = bad(&variables(listing), "B", "A");
            assert_eq!(wanted.is_ok(), possible, "{listing}: {wanted:?}");
        }
        assert!(bad(&variables("good=A"), "A", "A").is_err());
    }

    async fn grub(folder: &Path) -> Grub {
        let editenv = CommandSpec {
            program: "grub-editenv".into(),
            arguments: vec![],
            timeout: Duration::from_secs(20),
        };
        let env = folder.join("grubenv");
        ask(&editenv, [env.display().to_string(), "create".into()]).await.unwrap();
        Grub { editenv, env, copy: folder.join("copy"), tries: 3 }
    }

    #[tokio::test]
    async fn a_whole_life_in_a_real_environment_block() {
        let folder = tempfile::tempdir().unwrap();
        let grub = grub(folder.path()).await;
        assert_eq!(grub.mark_bad("B", "A").await.unwrap_err().reason(), "bootloader-error");
        grub.mark_good("A").await.unwrap();
        grub.mark_bad("B", "A").await.unwrap();
        grub.try_next("B", "A").await.unwrap();
        assert_eq!(grub.list().await.unwrap(), variables("good=A\nleft=3\ntry=B"));
        grub.mark_good("B").await.unwrap();
        assert_eq!(grub.list().await.unwrap(), variables("good=B"));
        let error = grub.mark_bad("B", "A").await.unwrap_err();
        assert!(error.to_string().contains("good=B, but slot A runs"), "{error}");
        assert_eq!(std::fs::metadata(&grub.env).unwrap().len(), 1024);
        assert!(!grub.copy.exists());
        // Killed after the block was written and before its copy was removed.
        std::fs::copy(&grub.env, &grub.copy).unwrap();
        grub.mark_good("B").await.unwrap();
        assert!(!grub.copy.exists());
    }

    #[tokio::test]
    async fn a_missing_environment_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let grub = grub(folder.path()).await;
        std::fs::remove_file(&grub.env).unwrap();
        let error = grub.mark_bad("B", "A").await.unwrap_err();
        assert!(error.reason() == "bootloader-error" && error.to_string().contains("grubenv"), "{error}");
    }
}
