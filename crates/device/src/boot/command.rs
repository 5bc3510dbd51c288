//! A bootloader behind a program of the user's: `booted`, `primary`, `mark-bad SLOT`, `try SLOT`, `mark-good SLOT`.

use async_trait::async_trait;

use super::{Bootloader, ask};
use crate::command::CommandSpec;
use crate::error::DeviceError;

pub(super) struct Command(pub CommandSpec);

#[async_trait(?Send)]
impl Bootloader for Command {
    async fn mark_bad(&self, slot: &str, running: &str) -> Result<(), DeviceError> {
        self.expect_primary(running).await?;
        ask(&self.0, ["mark-bad", slot]).await.map(drop)
    }

    async fn try_next(&self, slot: &str, running: &str) -> Result<(), DeviceError> {
        self.expect_primary(running).await?;
        ask(&self.0, ["try", slot]).await.map(drop)
    }

    async fn mark_good(&self, slot: &str) -> Result<(), DeviceError> {
        ask(&self.0, ["mark-good", slot]).await.map(drop)
    }

    async fn booted(&self) -> Result<String, DeviceError> {
        match ask(&self.0, ["booted"]).await?.trim() {
            "" => Err(DeviceError::SlotUnknown(format!("{} booted printed nothing", self.0.program))),
            slot => Ok(slot.to_owned()),
        }
    }

    fn describe(&self, slot: &str) -> String {
        format!("run {} try {slot}", self.0.program)
    }
}

impl Command {
    async fn expect_primary(&self, running: &str) -> Result<(), DeviceError> {
        let answer = ask(&self.0, ["primary"]).await?;
        let primary = answer.trim();
        if primary == running {
            return Ok(());
        }
        let program = &self.0.program;
        let why = format!("{program} primary printed {primary:?}, but slot {running} runs");
        Err(DeviceError::Bootloader(why))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn command(script: &str) -> Command {
        Command(CommandSpec {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into(), "boot-control".into()],
            timeout: Duration::from_secs(20),
        })
    }

    #[tokio::test]
    async fn its_answers_are_believed_and_its_failures_too() {
        let boot =
            command("case $1 in booted|primary) echo A;; mark-bad|try) test $2 = B;; *) exit 7;; esac");
        assert_eq!(boot.booted().await.unwrap(), "A");
        boot.mark_bad("B", "A").await.unwrap();
        boot.try_next("B", "A").await.unwrap();
        let error = boot.mark_good("B").await.unwrap_err();
        assert!(error.reason() == "bootloader-error" && error.to_string().contains("exit code 7"), "{error}");
        let error = boot.mark_bad("A", "B").await.unwrap_err();
        assert!(error.to_string().contains("primary printed \"A\", but slot B runs"), "{error}");
        assert_eq!(command("exit 0").booted().await.unwrap_err().reason(), "booted-slot-unknown");
    }
}
