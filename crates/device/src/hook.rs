//! The device's own program that says whether now is a good time.

use crate::Halt;
use crate::command::{CommandFailure, CommandSpec, run_watched};
use crate::device::Question;
use crate::error::DeviceError;

/// `EX_TEMPFAIL` of sysexits.h: ask again later.
const NOT_NOW: i32 = 75;

/// `false`: not now.
pub(crate) async fn ask(hook: &CommandSpec, question: &Question, halt: &Halt) -> Result<bool, DeviceError> {
    let environment = [
        ("FLEETHAND_OPERATION", question.operation.operation()),
        ("FLEETHAND_VERSION", question.version.as_deref().unwrap_or_default()),
        ("FLEETHAND_JOB_ID", &question.job_id),
    ];
    match run_watched(hook, &environment, halt, &mut |_| {}).await {
        Ok(()) => Ok(true),
        Err(CommandFailure::Exit { code: NOT_NOW, .. }) => Ok(false),
        Err(halted @ CommandFailure::Halted { .. }) => Err(halted.into()),
        Err(failure) => Err(DeviceError::HookRefused(failure)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn ask_sh(script: &str, version: Option<&str>) -> Result<bool, DeviceError> {
        let question = Question {
            operation: crate::Disturbance::UpdateFirmware,
            version: version.map(str::to_owned),
            job_id: "job-1".to_owned(),
        };
        let hook = CommandSpec {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            timeout: Duration::from_secs(1),
        };
        ask(&hook, &question, &Halt::default()).await
    }

    #[tokio::test]
    async fn its_exit_code_says_now_later_or_no() {
        assert!(ask_sh("exit 0", None).await.unwrap());
        assert!(!ask_sh("echo driving; exit 75", None).await.unwrap());
        for no in ["echo not on this device; exit 1", "exit 74", "kill -SEGV $$", "sleep 1000"] {
            assert_eq!(ask_sh(no, None).await.unwrap_err().reason(), "hook-refused", "{no}");
        }
        let told = ask_sh("echo not on this device; exit 1", None).await.unwrap_err().to_string();
        assert!(told.ends_with("exit code 1: not on this device"), "{told}");
    }

    #[tokio::test]
    async fn it_is_told_what_it_is_asked_about() {
        let is = |operation, version, job| {
            format!(
                "test \"$FLEETHAND_OPERATION/$FLEETHAND_VERSION/$FLEETHAND_JOB_ID\" = {operation}/{version}/{job}"
            )
        };
        assert!(ask_sh(&is("update-firmware", "2.0", "job-1"), Some("2.0")).await.unwrap());
        assert!(ask_sh(&is("update-firmware", "", "job-1"), None).await.unwrap());
    }
}
