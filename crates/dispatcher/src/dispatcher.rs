//! Runs one operation at a time, and writes to the journal before each step that a restart must know of.

use std::rc::Rc;

use device::{Boot, Change, Device, DeviceError, Effect, Halt, HaltKind, Target, When};
use downloader::{Digest, Downloader};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::journal::{Entry, ExecutionId, Found, Journal, JournalError, Phase, Then};
use crate::operation::{Operation, Rules};
use crate::outcome::{Outcome, Progress, Wait};
use crate::policy::Policy;
use crate::refused;
use crate::resume::{AfterStart, after_start, rollback_failed};
use crate::rotate::Identity;

/// What a running operation may say and ask.
#[derive(Debug, Clone)]
pub struct Context {
    pub progress: watch::Sender<Progress>,
    /// Asks for the job document anew: every delivery has freshly signed URLs.
    pub fresh_document: mpsc::Sender<oneshot::Sender<Value>>,
    /// Is there a connection to the cloud?
    pub connected: watch::Receiver<bool>,
    pub halt: Halt,
}

impl Context {
    pub(crate) fn report(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// It is told when it begins to wait, and when that is for another time or another reason. How long it still lasts
    /// goes along in silence.
    pub(crate) fn wait(&self, wait: Wait) {
        let news = self.progress.send_if_modified(|progress| {
            let before = std::mem::replace(progress, Progress::waiting(wait)).wait;
            before.is_none_or(|before| !before.tells_as_much_as(&wait))
        });
        if news {
            tracing::info!(phase = "waiting", until = %wait.until, "waiting");
        }
    }

    /// What an operation that took too long ends with.
    pub(crate) fn timed_out(&self) -> Outcome {
        let phase = self.progress.borrow().phase;
        Outcome::failed("timeout", format!("it was not done in time: still {phase}"))
    }

    pub(crate) async fn ask_for_fresh_document(&self) -> Option<Value> {
        let (answer, document) = oneshot::channel();
        self.fresh_document.send(answer).await.ok()?;
        document.await.ok()
    }
}

/// How `run` came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// In the journal already: tell the cloud, then call `settled`.
    Outcome(Outcome),
    Halted(HaltKind),
    /// The order to reboot was given; nothing else is to be started.
    Rebooting,
}

/// Why an operation could not go on.
pub(crate) enum Failure {
    Outcome(Outcome),
    Halted,
    Rebooting,
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        match error {
            error if error.is_halt() => Self::Halted,
            error => Self::Outcome(Outcome::failed(error.reason(), error.to_string())),
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self::Outcome(Outcome::failed(error.reason(), error.to_string()))
    }
}

pub struct Dispatcher<D> {
    pub(crate) device: D,
    /// Shared with the transfer, which also needs the rest of the dispatcher.
    pub(crate) downloader: Rc<Downloader>,
    pub(crate) rules: Rules,
    pub(crate) policy: Policy,
    pub(crate) identity: Option<Box<dyn Identity>>,
    journal: Journal,
    entry: Option<Entry>,
    /// This process is one of the entry's attempts already.
    counted: bool,
}

impl<D: Device> Dispatcher<D> {
    /// Reads the journal. What was set aside is returned as a sentence for the log.
    pub fn open(
        device: D,
        downloader: Downloader,
        rules: Rules,
        policy: Policy,
        journal: Journal,
    ) -> Result<(Self, Option<String>), JournalError> {
        let (entry, warning) = match journal.load()? {
            Found::Nothing => (None, None),
            Found::Entry(entry) => (Some(*entry), None),
            Found::SetAside { moved_to, why } => {
                let warning =
                    format!("the journal could not be read ({why}) and was moved to {}", moved_to.display());
                (None, Some(warning))
            }
        };
        let downloader = Rc::new(downloader);
        let identity = None;
        Ok((Self { device, downloader, rules, policy, identity, journal, entry, counted: false }, warning))
    }

    /// Without one, there is nothing that could be rotated.
    pub fn with_identity(self, identity: Box<dyn Identity>) -> Self {
        Self { identity: Some(identity), ..self }
    }

    pub fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub async fn boot(&mut self) -> Result<Boot, DeviceError> {
        self.device.boot().await
    }

    pub async fn after_start(&mut self) -> Result<AfterStart, DeviceError> {
        let decided = after_start(self.entry.as_ref(), &self.device.boot().await?);
        Ok(match (decided, self.was_rotated()) {
            (AfterStart::Report(outcome), Some(rotated)) if outcome.reason == "agent-crashed" => {
                AfterStart::Report(rotated)
            }
            (AfterStart::AskCloud, Some(rotated)) => AfterStart::Report(rotated),
            (decided, _) => decided,
        })
    }

    /// Takes an execution up, before the cloud is told. Needs no sync: nothing on the device has changed, and
    /// the count of attempts has to survive this process only.
    pub fn accept(&mut self, execution: &ExecutionId) -> Result<(), JournalError> {
        let earlier = self.entry.take().filter(|entry| entry.execution == *execution);
        self.counted &= earlier.is_some();
        let fresh =
            Entry { execution: execution.clone(), attempts: 0, activate: When::Now, phase: Phase::Accepted };
        let entry = self.counted(earlier.unwrap_or(fresh));
        self.write(entry)
    }

    /// One attempt more, once in a process: an execution that is offered again has not ended an agent.
    fn counted(&mut self, mut entry: Entry) -> Entry {
        if !std::mem::replace(&mut self.counted, true) {
            entry.attempts = entry.attempts.saturating_add(1);
        }
        entry
    }

    /// Runs what was accepted, to its end or until it is halted.
    pub async fn run(&mut self, operation: &Operation, context: &Context) -> Ended {
        let result = match operation {
            Operation::UpdateFirmware(update) => self.update_firmware(update, context).await,
            Operation::UpdateConfig(update) => self.update_config(update, context).await,
            Operation::Reboot(reboot) => self.reboot(reboot, context).await,
            Operation::RotateCertificate(order) => self.rotate(order, context).await,
        };
        self.end(result, context).await
    }

    /// Finishes what a restart interrupted: `what` is `Activate`, `Confirm`, `Undo`,
    /// `RebootAgain` or `AwaitReboot`.
    pub async fn finish(&mut self, what: AfterStart, context: &Context) -> Ended {
        let Some(entry) = self.entry.clone() else { return Ended::Halted(HaltKind::Cancel) };
        let entry = self.counted(entry);
        let result = match self.write(entry.clone()) {
            Ok(()) => self.finish_phase(what, entry.phase, context).await,
            Err(error) => Err(error.into()),
        };
        self.end(result, context).await
    }

    async fn finish_phase(
        &mut self,
        what: AfterStart,
        phase: Phase,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        let change = phase.change().cloned();
        match (what, change, phase) {
            (AfterStart::RebootAgain, _, Phase::Rebooting { attempts, then, .. }) => {
                Err(self.order_reboot(attempts + 1, then, context).await)
            }
            (AfterStart::AwaitReboot, Some(change), _) => Err(self.await_reboot(change, context).await),
            (AfterStart::Activate, Some(change), _) => self.activate(change, context).await,
            (AfterStart::Confirm, Some(change), _) => self.confirm(change, context).await,
            (AfterStart::Undo(outcome), Some(change), phase) => {
                let on_trial = matches!(
                    phase,
                    Phase::Confirming { .. } | Phase::Rebooting { then: Then::Confirm { .. }, .. }
                );
                if on_trial && outcome.reason != "reboot-did-not-happen" {
                    self.refuse_from_now_on(&change, &outcome.reason);
                }
                Err(self.undo(change, outcome, context).await)
            }
            (AfterStart::Undo(outcome) | AfterStart::Report(outcome), ..) => Ok(outcome),
            _ => Err(Failure::Halted),
        }
    }

    /// Staged bytes go into force. From here on a restart finishes or undoes it, without the network.
    pub(crate) async fn put_in_force(
        &mut self,
        change: Change,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        self.save(Phase::Activating { change: change.clone() })?;
        self.activate(change, context).await
    }

    async fn activate(&mut self, change: Change, context: &Context) -> Result<Outcome, Failure> {
        context.report(Progress::phase("installing"));
        let (percent, mut says) = watch::channel(0);
        let activated = {
            let activating = self.device.activate(&change, &context.halt, &percent);
            tokio::pin!(activating);
            loop {
                tokio::select! {
                    activated = &mut activating => break activated,
                    Ok(()) = says.changed() => {
                        let done = u64::from(*says.borrow_and_update());
                        context.report(Progress { done, total: Some(100), ..Progress::phase("installing") });
                    }
                }
            }
        };
        match activated {
            _ if context.halt.kind() == Some(HaltKind::Stop) => Err(Failure::Halted),
            Err(error) => Err(self.stopped_by(error, change, context).await),
            Ok(Effect::Now) => self.confirm(change, context).await,
            Ok(Effect::Reboot) if context.halt.kind().is_some() => {
                let outcome = context.timed_out();
                Err(self.undo(change, outcome, context).await)
            }
            Ok(Effect::Reboot) if self.activates() == When::NextReboot => {
                Err(self.await_reboot(change, context).await)
            }
            Ok(Effect::Reboot) => Err(self.order_reboot(1, Then::Confirm { change }, context).await),
        }
    }

    /// It is in force. Does it stay?
    async fn confirm(&mut self, change: Change, context: &Context) -> Result<Outcome, Failure> {
        self.save(Phase::Confirming { change: change.clone() })?;
        context.report(Progress::phase("confirming"));
        let well = match self.device.confirm(&change, &context.halt).await {
            Ok(()) => self.reaches_the_cloud(&change.target, context).await,
            Err(error) => Err(error),
        };
        match well {
            Ok(()) => {}
            Err(_) if context.halt.kind() == Some(HaltKind::Stop) => return Err(Failure::Halted),
            Err(error) => {
                if !error.is_halt() {
                    self.refuse_from_now_on(&change, error.reason());
                }
                return Err(self.stopped_by(error, change, context).await);
            }
        }
        match self.device.commit(&change).await {
            Ok(()) => Ok(match change.commit {
                Some(firmware) => {
                    Outcome::succeeded("installed", format!("version {} is in force", firmware.version))
                }
                None => Outcome::succeeded("configured", "the new configuration is in force"),
            }),
            // FAILED has one meaning: what was before is in force.
            Err(error) => Err(self.stopped_by(error, change, context).await),
        }
    }

    /// New firmware that cannot be reached is firmware that cannot be replaced.
    async fn reaches_the_cloud(&self, target: &Target, context: &Context) -> Result<(), DeviceError> {
        let (Target::Firmware, Some(within)) = (target, self.rules.cloud_within) else { return Ok(()) };
        let mut connected = context.connected.clone();
        tokio::select! {
            connected = tokio::time::timeout(within, connected.wait_for(|connected| *connected)) => {
                if connected.is_ok() { Ok(()) } else { Err(DeviceError::Unreachable { within }) }
            }
            () = context.halt.halted() => Err(DeviceError::halted("the wait for the cloud")),
        }
    }

    /// An activation or a confirmation ended like this: what was before comes back.
    async fn stopped_by(&mut self, error: DeviceError, change: Change, context: &Context) -> Failure {
        let outcome = match context.halt.kind() {
            Some(HaltKind::Expire) => context.timed_out(),
            _ => Outcome::failed(error.reason(), error.to_string()),
        };
        self.undo(change, outcome, context).await
    }

    /// Brings back what was before, and makes the running system take it up again. Gives the outcome that the
    /// operation ends with: `outcome`, and what of the rollback failed.
    pub(crate) async fn undo(&mut self, change: Change, outcome: Outcome, context: &Context) -> Failure {
        context.report(Progress::phase("rolling-back"));
        let Outcome { reason, message: detail, .. } = &outcome;
        tracing::warn!(name: "rolling-back", target = %change.target, reason, detail, "rolling back");
        if let Err(error) = self.save(Phase::RollingBack { change: change.clone(), outcome: outcome.clone() })
        {
            tracing::error!(%error, "the rollback is not in the journal");
        }
        let mut outcome = outcome;
        match self.device.roll_back(&change).await {
            Ok(back) => {
                if let Some(remark) = back.remark {
                    outcome.message += &format!("; {remark}");
                }
                if back.effect == Effect::Reboot {
                    return self.order_reboot(1, Then::Report { change, outcome }, context).await;
                }
            }
            Err(error) => {
                tracing::error!(target = %change.target, %error, "the rollback failed");
                outcome = rollback_failed(&outcome, &error.to_string());
            }
        }
        if context.halt.kind() == Some(HaltKind::Cancel) {
            Failure::Halted
        } else {
            Failure::Outcome(outcome)
        }
    }

    /// This firmware has had its trial. A retry of the job finds it here.
    fn refuse_from_now_on(&self, change: &Change, reason: &str) {
        let (Some(entry), Some(firmware)) = (&self.entry, &change.commit) else { return };
        let kept = refused::remember(self.journal.folder(), &entry.execution, firmware.digest, reason);
        if let Err(error) = kept {
            tracing::error!(%error, "that this firmware failed is not on disk: a retry of the job would try it again");
        }
    }

    /// How this firmware failed before, where this job is the one that it failed in.
    pub(crate) fn failed_before(&self, digest: Digest) -> Option<Outcome> {
        let entry = self.entry.as_ref()?;
        let earlier = refused::look_up(self.journal.folder(), &entry.execution, digest)?;
        let message = format!("this job had it on trial before, and it failed with {}", earlier.reason());
        Some(Outcome::failed("failed-before", message))
    }

    async fn end(&mut self, result: Result<Outcome, Failure>, context: &Context) -> Ended {
        match result {
            Ok(outcome) | Err(Failure::Outcome(outcome)) => {
                self.conclude(outcome.clone()).await;
                Ended::Outcome(outcome)
            }
            Err(Failure::Rebooting) => Ended::Rebooting,
            Err(Failure::Halted) => {
                let kind = context.halt.kind().unwrap_or(HaltKind::Cancel);
                match kind {
                    HaltKind::Cancel => self.abandon().await,
                    HaltKind::Stop => self.stopped(),
                    HaltKind::Expire => {
                        let outcome = context.timed_out();
                        self.conclude(outcome.clone()).await;
                        return Ended::Outcome(outcome);
                    }
                }
                Ended::Halted(kind)
            }
        }
    }

    /// However it ended, nothing stays beside the targets. Then the outcome goes on disk, before anybody is told. When
    /// the disk does not take it, it is told all the same: it is true, and after a restart the work shows as done or
    /// is done again.
    pub async fn conclude(&mut self, outcome: Outcome) {
        self.discard_staged().await;
        if let Err(error) = self.save(Phase::Reporting { outcome }) {
            tracing::error!(%error, "the outcome could not be written, and would not survive a restart");
        }
    }

    /// The cloud knows the outcome, or does not want it any more.
    pub fn settled(&mut self) {
        self.entry = None;
        self.counted = false;
        if let Err(error) = self.journal.clear() {
            tracing::error!(%error, "a settled execution stays in the journal, and will be reported again");
        }
    }

    /// Withdrawn: nothing of it stays.
    pub async fn abandon(&mut self) {
        self.discard_staged().await;
        self.settled();
    }

    async fn discard_staged(&mut self) {
        if let Err(error) = self.device.discard_all().await {
            tracing::warn!(%error, "what was staged could not be removed");
        }
    }

    /// An orderly stop is not an attempt that failed.
    pub fn stopped(&mut self) {
        let Some(mut entry) = self.entry.clone() else { return };
        if !std::mem::take(&mut self.counted) {
            return;
        }
        entry.attempts = entry.attempts.saturating_sub(1);
        if let Err(error) = self.write(entry) {
            tracing::error!(%error, "the stop could not be written to the journal");
        }
    }

    /// Kept from now on: a restart in the middle of an activation must know.
    pub(crate) fn activate_when(&mut self, when: When) {
        if let Some(entry) = &mut self.entry {
            entry.activate = when;
        }
    }

    fn activates(&self) -> When {
        self.entry.as_ref().map(|entry| entry.activate).unwrap_or_default()
    }

    /// After a wait it is an attempt again. The next entry says so.
    pub(crate) fn goes_on(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.entry = Some(self.counted(entry));
        }
    }

    pub(crate) fn save(&mut self, phase: Phase) -> Result<(), JournalError> {
        let Some(mut entry) = self.entry.clone() else {
            debug_assert!(false, "an operation runs without having been accepted");
            return Ok(());
        };
        entry.phase = phase;
        self.write(entry)
    }

    pub(crate) fn phase(&self) -> Option<&Phase> {
        self.entry.as_ref().map(|entry| &entry.phase)
    }

    fn write(&mut self, entry: Entry) -> Result<(), JournalError> {
        let written = self.journal.save(&entry);
        // In memory it holds in either case: a full disk must not make the agent forget what it does.
        self.entry = Some(entry);
        written
    }
}
