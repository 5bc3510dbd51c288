//! Is the system well with what is in force now?

use std::time::Duration;

use tokio::time::Instant;

use crate::command::{self, CommandFailure, CommandSpec};
use crate::{DeviceError, Halt};

/// Commands that must all pass in one round. Rounds are repeated until one does, or the time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub checks: Vec<CommandSpec>,
    pub interval: Duration,
    pub within: Duration,
}

impl Default for Health {
    /// Nothing is checked.
    fn default() -> Self {
        Self { checks: Vec::new(), interval: Duration::from_secs(5), within: Duration::from_secs(300) }
    }
}

impl Health {
    pub(crate) async fn check(&self, halt: &Halt) -> Result<(), DeviceError> {
        let end = Instant::now() + self.within;
        loop {
            let Err(last) = self.round(end, halt).await else { return Ok(()) };
            if matches!(last, CommandFailure::Halted { .. }) {
                return Err(last.into());
            }
            let next = Instant::now() + self.interval;
            if next >= end {
                return Err(DeviceError::Unhealthy { within: self.within, last });
            }
            tracing::info!(%last, "not well yet");
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = halt.halted() => return Err(DeviceError::halted("the health check")),
            }
        }
    }

    async fn round(&self, end: Instant, halt: &Halt) -> Result<(), CommandFailure> {
        for check in &self.checks {
            let left = end.saturating_duration_since(Instant::now());
            let check = CommandSpec { timeout: check.timeout.min(left), ..check.clone() };
            command::run(&check, halt).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(script: &str, within: Duration) -> Health {
        let check = CommandSpec {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            timeout: Duration::from_secs(20),
        };
        Health { checks: vec![check], interval: Duration::from_millis(10), within }
    }

    #[tokio::test]
    async fn it_may_take_a_few_rounds() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            format!("cd {} && echo >> rounds && test $(wc -l < rounds) -ge 3", folder.path().display());
        health(&script, Duration::from_secs(20)).check(&Halt::default()).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_well_in_time_is_unhealthy_and_says_why() {
        let once = Health {
            interval: Duration::from_secs(60),
            ..health("echo no sensor; exit 4", Duration::from_secs(60))
        };
        let error = once.check(&Halt::default()).await.unwrap_err();
        assert_eq!(error.reason(), "health-check-failed");
        assert!(error.to_string().contains("exit code 4: no sensor"), "{error}");
    }

    #[tokio::test]
    async fn a_check_that_hangs_has_no_longer_than_all_of_them() {
        let error = health("sleep 1000", Duration::from_millis(100)).check(&Halt::default()).await;
        assert_eq!(error.unwrap_err().reason(), "health-check-failed");
    }

    #[tokio::test]
    async fn a_halt_ends_it_between_rounds_too() {
        let halt = Halt::default();
        let patient =
            Health { interval: Duration::from_secs(1000), ..health("exit 1", Duration::from_secs(5000)) };
        let (ended, ()) = tokio::join!(patient.check(&halt), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            halt.cancel();
        });
        assert!(ended.unwrap_err().is_halt());
    }
}
