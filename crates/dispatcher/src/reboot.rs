//! `reboot`: the order is in the journal with the boot id of before, and is proved by another boot id after.

use std::time::Duration;

use crate::device::Device;
use crate::dispatcher::{Context, Dispatcher, Failure, HaltKind};
use crate::journal::Phase;
use crate::operation::Reboot;
use crate::outcome::{Outcome, Progress};

/// A system that has not gone down this long after the order will not.
const GOING_DOWN: Duration = Duration::from_secs(300);

impl<D: Device> Dispatcher<D> {
    pub(crate) async fn reboot(&mut self, order: &Reboot, context: &Context) -> Result<Outcome, Failure> {
        if !order.delay.is_zero() {
            context.report(Progress::phase("waiting"));
        }
        tokio::select! {
            () = tokio::time::sleep(order.delay) => {}
            () = context.halt.halted() => return Err(Failure::Halted),
        }
        // A cancellation that arrived with the end of the delay counts: from here on there is no way back.
        if context.halt.kind().is_some() {
            return Err(Failure::Halted);
        }
        self.order_reboot(1, context).await
    }

    pub(crate) async fn order_reboot(
        &mut self,
        attempts: u32,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        let boot_id = self.device.boot_id().await?;
        self.save(Phase::Rebooting { boot_id, attempts })?;
        context.report(Progress::phase("rebooting"));
        tracing::info!(attempts, "rebooting");
        match self.device.reboot(&context.halt).await {
            Ok(()) => {}
            // The shutdown that was ordered stops the agent, and the command with it.
            Err(_) if context.halt.kind() == Some(HaltKind::Stop) => return Err(Failure::Rebooting),
            Err(error) => {
                let message = format!("the system was not told to reboot: {error}");
                return Err(Failure::Outcome(Outcome::failed("reboot-failed", message)));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(GOING_DOWN) => {
                let message = format!("the system still runs {} s after the order", GOING_DOWN.as_secs());
                Err(Failure::Outcome(Outcome::failed("reboot-did-not-happen", message)))
            }
            () = context.halt.stopped() => Err(Failure::Rebooting),
        }
    }
}
