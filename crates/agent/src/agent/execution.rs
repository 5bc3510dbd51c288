//! The life of one job execution on this device, from its offer to the cloud's word that it is over.

use std::time::{Duration, Instant};

use dispatcher::{Ended, Entry, OnOffer, Outcome, Phase, on_offer};
use jobs::{ExecutionKey, JobExecution, Settlement, Status, Withdrawal};

use super::Agent;
use crate::deadline::Deadline;
use crate::held::{self, Held};
use crate::history::Settled;
use crate::report;
use crate::shadows::Shadows;
use crate::worker::Work;

impl Agent {
    pub(super) async fn offered(&mut self, execution: JobExecution) {
        let now = Instant::now();
        let key = execution.key();
        let Some(host) = self.worker.idle() else {
            // A restart finishes it already, from the journal: the session only has to know that it is ours.
            if self.held.as_ref().is_some_and(|held| held.key.as_ref() == Some(&key)) {
                self.session.resume(now, &execution);
                // How it goes on is reported like the rest of it.
                if let (Ok(parsed), Some(held)) = (held::understand(&execution, &self.rules), &mut self.held)
                {
                    held.understood(parsed);
                    self.pace.changed();
                }
            } else {
                self.offered = Some(execution);
            }
            return;
        };
        let in_progress = execution.status == Status::InProgress;
        let rebooted_from = execution.status_details.get(report::BOOT_ID).map(String::as_str);
        let id = report::id(&key);
        let decision = on_offer(host.entry(), &id, in_progress, rebooted_from, &self.boot_id);
        if host.entry().is_some_and(|entry| entry.execution != id) {
            tracing::warn!(job_id = %key.job_id, "the interrupted execution is not pending any more, this one is");
            host.abandon().await;
        }
        tracing::info!(job_id = %key.job_id, execution = key.execution_number, ?decision, "offered");
        let accepted = host.accept(&id);
        self.hold(Some(key));
        let outcome = match (decision, accepted) {
            (OnOffer::Report(outcome), _) => outcome,
            (_, Err(error)) => {
                tracing::error!(%error, "no work is taken up without a journal");
                Outcome::failed(error.reason(), error.to_string())
            }
            (decision, Ok(())) => match held::understand(&execution, &self.rules) {
                Err(outcome) => outcome,
                Ok(parsed) => {
                    let starting = report::starting(&parsed.operation, &self.boot_id, self.step_timeout);
                    if let Some(held) = &mut self.held {
                        held.understood(parsed);
                    }
                    if decision == OnOffer::Continue {
                        self.session.resume(now, &execution);
                        self.begun();
                        // Little may be left of the cloud's step timer: a report arms it again.
                        self.pace.changed();
                    } else {
                        self.session.begin(now, &execution, starting);
                    }
                    return;
                }
            },
        };
        if let Some(host) = self.worker.idle() {
            host.conclude(outcome.clone()).await;
        }
        self.report(&outcome);
    }

    pub(super) fn begun(&mut self) {
        if let Some(held) = &self.held
            && let Some(operation) = held.operation.clone()
        {
            held.span().in_scope(|| tracing::info!(name: "job-begun", operation = operation.name(), "begun"));
            self.start(Work::Run(operation));
        }
    }

    pub(super) fn start(&mut self, work: Work) {
        if let Some(held) = &mut self.held {
            let limit = held.timeout.unwrap_or(self.operation_timeout);
            held.deadline = Some(Deadline::new(Instant::now(), limit, self.step_timeout));
            self.worker.start(work, held.span());
        }
    }

    pub(super) fn hold(&mut self, key: Option<ExecutionKey>) {
        self.held = Some(Held::new(key));
    }

    /// An update has armed the cloud's step timer.
    pub(super) fn reported(&mut self, now: Instant, step: Option<Duration>) {
        self.pace.sent(now, step);
        if let (Some(held), Some(step)) = (&mut self.held, step) {
            held.armed(now, step);
        }
    }

    pub(super) fn mind_the_deadline(&mut self, now: Instant) {
        let Some(held) = &mut self.held else { return };
        let Some(deadline) = &mut held.deadline else { return };
        if deadline.is_over(now) {
            held.deadline = None;
            if let Some(halt) = self.worker.halt() {
                halt.expire();
            }
        } else if deadline.look(now) {
            self.session.refresh(now);
        }
    }

    pub(super) async fn ended(&mut self, ended: Ended) {
        self.pace.reset();
        self.waits_for_document = None;
        if let Some(boot) = self.worker.booted() {
            self.seeing.booted(&boot);
        }
        if let Some(held) = &mut self.held {
            held.deadline = None;
        }
        let owed = self.held.as_ref().is_some_and(|held| held.key.is_some());
        match ended {
            Ended::Outcome(outcome) if owed => {
                if let Some(other) = self.offered.take() {
                    self.session.pass(Instant::now(), &other.key());
                }
                self.report(&outcome);
            }
            ended => {
                if let (Ended::Outcome(outcome), Some(host)) = (ended, self.worker.idle()) {
                    ended_here(host.entry(), &mut self.shadows, &outcome);
                    host.settled();
                }
                self.held = None;
                if let Some(offered) = self.offered.take() {
                    self.offered(offered).await;
                }
            }
        }
    }

    /// The outcome is in the journal. From here on it is owed, until the session says that it is settled.
    pub(super) fn report(&mut self, outcome: &Outcome) {
        let Some(held) = &mut self.held else { return };
        held.log_end(outcome);
        let Held { key: Some(key), update: owed, .. } = held else { return };
        let update = report::terminal(outcome);
        self.seeing.ended(update.status);
        *owed = Some(update.clone());
        self.session.finish(Instant::now(), key, None, update);
    }

    pub(super) fn report_progress_if_due(&mut self, now: Instant) {
        if self.pace.due(now).is_none_or(|due| due > now) {
            return;
        }
        let progress = *self.progress.borrow_and_update();
        match self.held.as_ref().and_then(|held| held.operation.as_ref()) {
            Some(operation) => {
                let update = report::progress(operation, &self.boot_id, self.step_timeout, &progress);
                let armed = report::armed(&update);
                self.session.progress(now, update);
                self.reported(now, armed);
            }
            None => self.pace.reset(),
        }
    }

    pub(super) async fn withdrawn(&mut self, withdrawal: &Withdrawal) {
        tracing::warn!(?withdrawal, "the execution was withdrawn");
        // It was still waiting for what was ordered on the device itself.
        if self.held.as_ref().is_some_and(|held| held.key.is_none()) {
            self.offered = None;
            return;
        }
        if let Some(halt) = self.worker.halt() {
            halt.cancel();
        } else if let Some(host) = self.worker.idle() {
            self.held = None;
            host.abandon().await;
        }
    }

    pub(super) fn settled(&mut self, settlement: &Settlement) {
        match settlement {
            Settlement::Accepted => tracing::info!("the outcome was accepted"),
            other => {
                tracing::warn!(settlement = ?other, "the outcome was not taken, and is not owed any more");
            }
        }
        if let Some(Held { key: Some(key), update: Some(update), .. }) = self.held.take() {
            self.history.add(Settled::now(key, update));
        }
        if let Some(host) = self.worker.idle() {
            host.settled();
        }
        self.meter.job_ended();
        self.shadows.job_ended();
    }

    /// The cloud has nothing for us: what was interrupted before anything changed was withdrawn meanwhile.
    pub(super) async fn nothing_is_pending(&mut self) {
        tracing::debug!("nothing is pending");
        self.meter.add(&self.link.take_tally());
        self.meter.save_if_due();
        let Some(host) = self.worker.idle() else { return };
        let interrupted = host.entry().is_some_and(|entry| !matches!(entry.phase, Phase::Reporting { .. }));
        if interrupted && self.held.is_none() {
            tracing::warn!("the interrupted execution is not pending any more");
            host.abandon().await;
        }
    }
}

/// Nobody is owed a report of it but a shadow, if it was one's wish.
pub(super) fn ended_here(entry: Option<&Entry>, shadows: &mut Shadows, outcome: &Outcome) {
    match entry.filter(|entry| entry.execution.shadow().is_some()) {
        Some(entry) => shadows.ended(&entry.execution, outcome),
        None => Held::new(None).log_end(outcome),
    }
}
