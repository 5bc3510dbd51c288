//! `reboot`: the order is in the journal with the boot id of before, and is proved by another boot id after.

use std::time::{Duration, SystemTime};

use device::{Change, Device, Disturbance, Halt, HaltKind};

use crate::dispatcher::{Context, Dispatcher, Failure};
use crate::journal::{Phase, Then};
use crate::operation::Reboot;
use crate::outcome::{Outcome, Progress, Until, Wait};
use crate::policy;
use crate::resume::rollback_failed;

/// A system that has not gone down this long after the order will not.
const GOING_DOWN: Duration = Duration::from_secs(300);

impl<D: Device> Dispatcher<D> {
    pub(crate) async fn reboot(&mut self, order: &Reboot, context: &Context) -> Result<Outcome, Failure> {
        if !order.delay.is_zero() {
            context.wait(policy::delay(order.delay, SystemTime::now()));
        }
        tokio::select! {
            () = tokio::time::sleep(order.delay) => {}
            () = context.halt.halted() => return Err(Failure::Halted),
        }
        // From here on there is no way back.
        self.permission(Disturbance::Reboot, None, context).await?;
        Err(self.order_reboot(1, Then::Done, context).await)
    }

    /// A reboot for whatever reason. It ends this process, or fails.
    pub(crate) async fn order_reboot(&mut self, attempts: u32, then: Then, context: &Context) -> Failure {
        match self.try_reboot(attempts, &then, context).await {
            Failure::Outcome(outcome) => match then {
                Then::Done => Failure::Outcome(outcome),
                // The next boot, whoever orders it, must not be one on trial that nobody watches.
                Then::Confirm { change } => Box::pin(self.undo(change, outcome, context)).await,
                Then::Report { outcome: first, .. } => {
                    Failure::Outcome(rollback_failed(&first, &outcome.message))
                }
            },
            other => other,
        }
    }

    /// The new system is chosen for the next boot, and somebody else orders that. Nobody knows when, so this wait counts
    /// towards the operation's timeout.
    pub(crate) async fn await_reboot(&mut self, change: Change, context: &Context) -> Failure {
        let boot_id = match self.device.boot().await {
            Ok(boot) => boot.id,
            Err(error) => return error.into(),
        };
        let then = Then::Confirm { change: change.clone() };
        if let Err(error) = self.save(Phase::Rebooting { boot_id, attempts: 0, then }) {
            let outcome = Outcome::failed(error.reason(), error.to_string());
            return self.undo(change, outcome, context).await;
        }
        // However often the agent starts again meanwhile: no attempt has failed.
        self.stopped();
        context.wait(Wait { until: Until::NextReboot, lasts: None });
        context.halt.halted().await;
        if context.halt.kind() == Some(HaltKind::Stop) {
            return Failure::Halted;
        }
        let outcome = context.timed_out();
        self.undo(change, outcome, context).await
    }

    async fn try_reboot(&mut self, attempts: u32, then: &Then, context: &Context) -> Failure {
        let boot_id = match self.device.boot().await {
            Ok(boot) => boot.id,
            Err(error) => return error.into(),
        };
        if let Err(error) = self.save(Phase::Rebooting { boot_id, attempts, then: then.clone() }) {
            return error.into();
        }
        context.report(Progress::phase("rebooting"));
        tracing::info!(name: "rebooting", attempts, "rebooting");
        // What undoes a withdrawn execution is not to be stopped by the same withdrawal.
        let undoes = matches!(then, Then::Report { .. });
        let own = Halt::default();
        let halt = if undoes { &own } else { &context.halt };
        let ordered = tokio::select! {
            ordered = self.device.reboot(halt) => ordered,
            () = context.halt.stopped(), if undoes => return Failure::Rebooting,
        };
        match ordered {
            Ok(()) => {}
            // The shutdown that was ordered stops the agent, and the command with it.
            Err(_) if context.halt.kind() == Some(HaltKind::Stop) => return Failure::Rebooting,
            Err(error) => {
                let message = format!("the system was not told to reboot: {error}");
                return Failure::Outcome(Outcome::failed("reboot-failed", message));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(GOING_DOWN) => {
                let message = format!("the system still runs {} s after the order", GOING_DOWN.as_secs());
                Failure::Outcome(Outcome::failed("reboot-did-not-happen", message))
            }
            () = context.halt.stopped() => Failure::Rebooting,
        }
    }
}
