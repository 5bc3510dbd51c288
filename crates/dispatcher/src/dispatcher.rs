//! Runs one operation at a time, and writes to the journal before each step that a restart must know of.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use downloader::{Digest, Downloader};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::device::{Before, Device, DeviceError, Installed, Target};
use crate::journal::{Entry, ExecutionId, Found, Journal, JournalError, Phase};
use crate::operation::{Operation, Rules};
use crate::outcome::{Outcome, Progress};
use crate::resume::{AfterStart, after_start, agent_crashed};

/// Why work must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltKind {
    /// The execution was withdrawn: what was not put in force goes, what was is undone.
    Cancel,
    /// The agent ends: everything stays as the journal says, and the next start goes on.
    Stop,
    /// It takes too long: as with a cancellation, but it is ours to report.
    Expire,
}

/// Asks a running operation to stop. The first kind given wins.
#[derive(Debug, Clone, Default)]
pub struct Halt {
    token: CancellationToken,
    kind: Arc<OnceLock<HaltKind>>,
}

impl Halt {
    pub fn cancel(&self) {
        self.halt(HaltKind::Cancel);
    }

    pub fn stop(&self) {
        self.halt(HaltKind::Stop);
    }

    pub fn expire(&self) {
        self.halt(HaltKind::Expire);
    }

    fn halt(&self, kind: HaltKind) {
        let _ = self.kind.set(kind);
        self.token.cancel();
    }

    pub async fn halted(&self) {
        self.token.cancelled().await;
    }

    /// Returns for a stop alone: what cannot be taken back is not ended by anything else.
    pub(crate) async fn stopped(&self) {
        self.halted().await;
        if self.kind() != Some(HaltKind::Stop) {
            std::future::pending::<()>().await;
        }
    }

    pub fn kind(&self) -> Option<HaltKind> {
        self.kind.get().copied()
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

/// What a running operation may say and ask.
#[derive(Debug, Clone)]
pub struct Context {
    pub progress: watch::Sender<Progress>,
    /// Asks for the job document anew: every delivery has freshly signed URLs.
    pub fresh_document: mpsc::Sender<oneshot::Sender<Value>>,
    pub halt: Halt,
}

impl Context {
    pub(crate) fn report(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// What an operation that took too long ends with.
    fn timed_out(&self) -> Outcome {
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
            DeviceError::Command(crate::CommandFailure::Halted { .. }) => Self::Halted,
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
        journal: Journal,
    ) -> Result<(Self, Option<String>), JournalError> {
        let (entry, warning) = match journal.load()? {
            Found::Nothing => (None, None),
            Found::Entry(entry) => (Some(entry), None),
            Found::SetAside { moved_to, why } => {
                let warning =
                    format!("the journal could not be read ({why}) and was moved to {}", moved_to.display());
                (None, Some(warning))
            }
        };
        Ok((Self { device, downloader: Rc::new(downloader), rules, journal, entry, counted: false }, warning))
    }

    pub fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub async fn boot_id(&mut self) -> Result<String, DeviceError> {
        self.device.boot_id().await
    }

    pub async fn after_start(&mut self) -> Result<AfterStart, DeviceError> {
        Ok(after_start(self.entry.as_ref(), &self.device.boot_id().await?))
    }

    /// Takes an execution up, before the cloud is told. Needs no sync: nothing on the device has changed, and
    /// the count of attempts has to survive this process only.
    pub fn accept(&mut self, execution: &ExecutionId) -> Result<(), JournalError> {
        let earlier = self.entry.take().filter(|entry| entry.execution == *execution);
        self.counted &= earlier.is_some();
        let fresh = Entry { execution: execution.clone(), attempts: 0, phase: Phase::Accepted };
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
        };
        self.end(result, context).await
    }

    /// Finishes what a restart interrupted: `what` is `FinishActivation`, `FinishRollback` or `RebootAgain`.
    pub async fn finish(&mut self, what: &AfterStart, context: &Context) -> Ended {
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
        what: &AfterStart,
        phase: Phase,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        match (what, phase) {
            (AfterStart::FinishActivation, Phase::Activating { target, digest, before, commit }) => {
                let staged = self.device.recover(target, digest).await;
                match staged {
                    Ok(true) => self.device.activate(target).await?,
                    Ok(false) => {}
                    Err(error) => {
                        let outcome = Outcome::failed(error.reason(), error.to_string());
                        return Err(self.undo(target, before, outcome, context).await);
                    }
                }
                self.take_effect(target, before, commit, context).await
            }
            (_, Phase::Activating { target, before, .. }) => {
                let outcome = agent_crashed(crate::resume::MAX_ATTEMPTS);
                Err(self.undo(target, before, outcome, context).await)
            }
            (_, Phase::RollingBack { target, before, outcome }) => {
                Err(self.undo(target, before, outcome, context).await)
            }
            (_, Phase::Rebooting { attempts, .. }) => self.order_reboot(attempts + 1, context).await,
            (_, Phase::Reporting { outcome }) => Ok(outcome),
            (_, Phase::Accepted | Phase::Downloading { .. }) => Err(Failure::Halted),
        }
    }

    /// Staged bytes go into force. From here on a restart finishes or undoes it, without the network.
    pub(crate) async fn put_in_force(
        &mut self,
        target: Target,
        digest: Digest,
        before: Before,
        commit: Option<Installed>,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        context.report(Progress::phase("installing"));
        let phase = Phase::Activating { target, digest, before, commit: commit.clone() };
        self.save(phase)?;
        // The same bytes under another version: there is nothing to swap, and `….previous` stays what it was.
        if before == (Before::File { digest }) {
            self.device.discard(target).await?;
        } else if let Err(error) = self.device.activate(target).await {
            let outcome = Outcome::failed(error.reason(), error.to_string());
            return Err(self.undo(target, before, outcome, context).await);
        }
        self.take_effect(target, before, commit, context).await
    }

    /// The command, then the record. The command is repeated by a restart in the middle of it.
    async fn take_effect(
        &mut self,
        target: Target,
        before: Before,
        commit: Option<Installed>,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        match self.device.run_command(target, &context.halt).await {
            Ok(()) => {}
            Err(_) if context.halt.kind() == Some(HaltKind::Stop) => return Err(Failure::Halted),
            Err(_) if context.halt.kind() == Some(HaltKind::Expire) => {
                return Err(self.undo(target, before, context.timed_out(), context).await);
            }
            Err(error) => {
                let outcome = Outcome::failed(error.reason(), error.to_string());
                return Err(self.undo(target, before, outcome, context).await);
            }
        }
        match commit {
            Some(installed) => match self.device.commit(&installed).await {
                Ok(()) => {
                    Ok(Outcome::succeeded("installed", format!("version {} is in force", installed.version)))
                }
                // FAILED has one meaning: the previous file is in force.
                Err(error) => {
                    let outcome = Outcome::failed(error.reason(), error.to_string());
                    Err(self.undo(target, before, outcome, context).await)
                }
            },
            None => Ok(Outcome::succeeded("configured", "the new configuration is in force")),
        }
    }

    /// Brings the previous file back and makes the running system take it up again. Gives the outcome that the
    /// operation ends with: `outcome`, and what of the rollback failed.
    async fn undo(&mut self, target: Target, before: Before, outcome: Outcome, context: &Context) -> Failure {
        context.report(Progress::phase("rolling-back"));
        tracing::warn!(%target, reason = outcome.reason, message = outcome.message, "rolling back");
        let phase = Phase::RollingBack { target, before, outcome: outcome.clone() };
        if let Err(error) = self.save(phase) {
            tracing::error!(%error, "the rollback is not in the journal");
        }
        let mut outcome = outcome;
        match self.device.roll_back(target, before).await {
            // A halt must not stop the system from taking up its old file: this run has its own.
            Ok(()) if before != Before::Absent => {
                if let Err(error) = self.device.run_command(target, &Halt::default()).await {
                    outcome.message += &format!("; with the previous file back, {error}");
                }
            }
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%target, %error, "the rollback failed");
                outcome = Outcome::failed("rollback-failed", format!("{}; {error}", outcome.message));
            }
        }
        if context.halt.kind() == Some(HaltKind::Cancel) {
            Failure::Halted
        } else {
            Failure::Outcome(outcome)
        }
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
        for target in [Target::Firmware, Target::Config] {
            if let Err(error) = self.device.discard(target).await {
                tracing::warn!(%target, %error, "what lay beside the target could not be removed");
            }
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
