//! Waits until the device may be disturbed: for a window, then for the hook.

use std::time::{Duration, SystemTime};

use crate::dispatcher::{Context, Dispatcher, Failure};
use crate::outcome::Wait;
use device::{Device, Disturbance, Question};

impl<D: Device> Dispatcher<D> {
    /// Returns when `operation` may go on. Nothing is held meanwhile but what the journal has anyway: a restart comes
    /// back to here.
    pub(crate) async fn permission(
        &mut self,
        operation: Disturbance,
        version: Option<&str>,
        context: &Context,
    ) -> Result<(), Failure> {
        let job_id = self.entry().map_or("", |entry| &entry.execution.job_id).to_owned();
        let question = Question { operation, version: version.map(str::to_owned), job_id };
        let mut waited = false;
        while let Some((wait, sleep)) = self.obstacle(&question, context).await? {
            // However often the power goes while it waits: no attempt has failed.
            if !std::mem::replace(&mut waited, true) {
                self.stopped();
            }
            context.wait(wait);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = context.halt.halted() => return Err(Failure::Halted),
            }
        }
        if waited {
            self.goes_on();
        }
        // What was withdrawn while it was allowed is withdrawn.
        if context.halt.kind().is_some() { Err(Failure::Halted) } else { Ok(()) }
    }

    async fn obstacle(
        &mut self,
        question: &Question,
        context: &Context,
    ) -> Result<Option<(Wait, Duration)>, Failure> {
        if let Some(closed) = self.policy.closed(SystemTime::now()) {
            return Ok(Some(closed));
        }
        let allowed = self.device.may_disturb(question, &context.halt).await?;
        Ok((!allowed).then(|| self.policy.postponed(SystemTime::now())))
    }
}
