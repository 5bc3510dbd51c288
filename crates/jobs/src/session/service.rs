//! What the service says, and what follows from it.

use std::time::Instant;

use super::rejected::{ended, refused};
use super::request::backoff;
use super::{About, Action, Held, Phase, Session, Settlement, Withdrawal};
use crate::topic::{Incoming, Verdict};
use crate::wire::{
    self, DescribeAccepted, ExecutionState, JobExecution, JobId, NextNotification, Rejection, Status,
    UpdateAccepted,
};

impl Session {
    /// Anything that arrived, whoever sent it: what is not for us, not asked for or not understood is
    /// ignored.
    pub fn message(&mut self, now: Instant, topic: &str, payload: &[u8]) {
        let Some(incoming) = Incoming::parse(&self.settings.thing_name, topic) else {
            return tracing::debug!(bytes = topic.len(), "a message on a foreign topic is ignored");
        };
        let understood = match incoming {
            Incoming::NotifyNext => wire::parse(payload).map(|next| self.notified(now, next)),
            Incoming::Describe { verdict: Verdict::Accepted, .. } => {
                wire::parse(payload).map(|answer| self.described(now, answer))
            }
            Incoming::Describe { verdict: Verdict::Rejected, .. } => {
                wire::parse(payload).map(|answer| self.describe_rejected(now, topic, &answer))
            }
            Incoming::Update { job, verdict: Verdict::Accepted } => {
                wire::parse(payload).map(|answer| self.updated(now, &job, &answer))
            }
            Incoming::Update { job, verdict: Verdict::Rejected } => {
                wire::parse(payload).map(|answer| self.update_rejected(now, topic, &job, &answer))
            }
            // Neither subscribed to nor asked for.
            Incoming::Notify | Incoming::GetPending(_) | Incoming::StartNext(_) => Ok(()),
        };
        if let Err(error) = understood {
            tracing::warn!(topic, %error, "a message is ignored");
        }
    }

    /// A hint, never the truth: it may be late, repeated or out of order.
    fn notified(&mut self, now: Instant, next: NextNotification) {
        let Some(held) = &self.held else { return self.consider(now, next) };
        if next.execution.as_ref().is_some_and(|execution| execution.key() == held.key) {
            self.hint = None;
            return;
        }
        let running = matches!(held.phase, Phase::Running { .. });
        // Of two hints the later one counts, which need not be the one that came last.
        let older = |hint: &NextNotification| next.timestamp.is_some() && next.timestamp < hint.timestamp;
        if !self.hint.as_ref().is_some_and(older) {
            self.hint = Some(next);
        }
        if running {
            // Nothing else announces that ours was canceled.
            self.ask(now, About::Held);
        }
    }

    /// What a notification means while nothing is held.
    pub(super) fn consider(&mut self, now: Instant, next: NextNotification) {
        match next.execution {
            // An answer that is under way will tell, and with more right.
            None if self.describe.is_some() => {}
            None => {
                self.schedule_poll(now); // this was waited for
                self.idle();
            }
            Some(execution) if self.history.contains(&execution.key()) => self.ask_soon(now),
            // No describe, which saves two metered units: if this is stale, `begin` is refused. Work that is
            // in progress may be resumed without such a lock, so there the service is asked.
            Some(execution) if execution.status == Status::Queued && execution.document.is_some() => {
                self.offer(now, execution);
            }
            Some(_) => self.ask(now, About::Next),
        }
    }

    fn described(&mut self, now: Instant, answer: DescribeAccepted) {
        let token = answer.client_token.as_deref();
        let Some(describe) = self.describe.take_if(|open| open.request.is_answered_by(token)) else {
            return late("describe");
        };
        let Some(held) = &mut self.held else { return self.next_is(now, answer.execution) };
        match answer.execution {
            Some(execution) if execution.key() == held.key => self.held_is(now, execution),
            _ if describe.about == About::Next => self.ask(now, About::Held),
            // Its number is there no more, or belongs to an execution of another job of the same name.
            _ => self.withdraw(now, Withdrawal::Deleted),
        }
    }

    /// The head of the queue, while nothing is held.
    fn next_is(&mut self, now: Instant, execution: Option<JobExecution>) {
        match execution {
            None => self.idle(),
            Some(execution) if !execution.status.is_pending() => {
                tracing::warn!(key = %execution.key(), status = ?execution.status, "not a state to start from");
            }
            Some(execution) if self.history.contains(&execution.key()) => self.report_again(now, &execution),
            Some(execution) => self.offer(now, execution),
        }
    }

    /// The held execution, described.
    fn held_is(&mut self, now: Instant, execution: JobExecution) {
        if execution.status.is_terminal() {
            return self.withdraw(now, Withdrawal::Ended(Some(execution.status)));
        }
        let Some(held) = &mut self.held else { return };
        held.version = held.version.max(Some(execution.version_number));
        match &mut held.phase {
            Phase::Beginning { .. } => {
                held.phase = Phase::Offered;
                self.events.push_back(Action::Offer(execution));
            }
            Phase::Running { refresh, .. } if *refresh => {
                *refresh = false;
                self.events.push_back(Action::Refreshed(execution));
            }
            _ => {}
        }
    }

    fn describe_rejected(&mut self, now: Instant, topic: &str, rejection: &Rejection) {
        let Some(describe) =
            self.describe.as_mut().filter(|open| open.request.is_rejected_by(topic, rejection))
        else {
            return late("describe");
        };
        if rejection.code.is_transient() {
            return describe.request.back_off(now, &mut self.rng);
        }
        let about = describe.about;
        self.describe = None;
        let Some(held) = &self.held else {
            return tracing::warn!(code = %rejection.code, "describing $next was rejected; asked again later");
        };
        if about == About::Next {
            return self.ask(now, About::Held);
        }
        match ended(rejection) {
            Some(withdrawal) => self.withdraw(now, withdrawal),
            None if matches!(held.phase, Phase::Beginning { .. }) => self.withdraw(now, refused(rejection)),
            None => tracing::warn!(code = %rejection.code, "describing the running execution was rejected"),
        }
    }

    fn updated(&mut self, now: Instant, job: &JobId, answer: &UpdateAccepted) {
        let token = answer.client_token.as_deref();
        if self.update.take_if(|open| open.is_answered_by(token)).is_none() {
            return self.late_update(now, job, answer.execution_state.as_ref());
        }
        let Some(held) = &mut self.held else { return };
        let version = answer.execution_state.as_ref().map(|state| state.version_number);
        match &mut held.phase {
            Phase::Offered => {}
            Phase::Beginning { .. } => {
                let next = held.version.map_or(1, |version| version.saturating_add(1));
                self.begun(now, version.unwrap_or(next));
            }
            Phase::Running { waiting, .. } => {
                held.version = version;
                if let Some(latest) = waiting.take() {
                    self.send_update(now, &latest);
                }
            }
            Phase::Finishing { .. } => self.settle(now, Settlement::Accepted),
        }
    }

    fn update_rejected(&mut self, now: Instant, topic: &str, job: &JobId, rejection: &Rejection) {
        let Some(request) = self.update.as_mut().filter(|open| open.is_rejected_by(topic, rejection)) else {
            return self.late_update(now, job, rejection.execution_state.as_ref());
        };
        if rejection.code.is_transient() {
            tracing::warn!(code = %rejection.code, "an update was rejected for now");
            return request.back_off(now, &mut self.rng);
        }
        match &self.held {
            Some(Held { phase: Phase::Beginning { .. }, .. }) => self.begin_rejected(now, rejection),
            Some(Held { phase: Phase::Running { .. }, .. }) => self.progress_rejected(now, rejection),
            Some(Held { phase: Phase::Finishing { .. }, .. }) => self.finish_rejected(now, rejection),
            Some(Held { phase: Phase::Offered, .. }) | None => self.update = None,
        }
    }

    /// An answer that nobody waits for is ordinary. If it says that this job has ended, it is worth a
    /// question.
    fn late_update(&mut self, now: Instant, job: &JobId, state: Option<&ExecutionState>) {
        late("update");
        let running = |held: &Held| matches!(held.phase, Phase::Running { .. }) && held.key.job_id == *job;
        let asked = self.describe.as_ref().is_some_and(|open| open.about == About::Held);
        if state.is_some_and(|state| state.status.is_terminal())
            && self.held.as_ref().is_some_and(running)
            && !asked
        {
            self.ask(now, About::Held);
        }
    }

    fn idle(&mut self) {
        if self.events.back() != Some(&Action::Idle) {
            self.events.push_back(Action::Idle);
        }
    }

    fn offer(&mut self, now: Instant, execution: JobExecution) {
        self.describe = None;
        self.hint = None;
        self.schedule_poll(now);
        let version = Some(execution.version_number);
        self.held = Some(Held { key: execution.key(), version, resyncs: 0, phase: Phase::Offered });
        self.events.push_back(Action::Offer(execution));
    }

    pub(super) fn begun(&mut self, now: Instant, version_number: u64) {
        let Some(held) = &mut self.held else { return };
        let Phase::Beginning { seconds_left, .. } = held.phase else { return };
        held.version = Some(version_number);
        held.phase = Phase::Running { waiting: None, refresh: false };
        self.events.push_back(Action::Begun { version_number, seconds_left });
        if self.hint.is_some() {
            // Another head was named meanwhile. Messages come in any order: ours may just have been canceled.
            self.ask(now, About::Held);
        }
    }

    pub(super) fn withdraw(&mut self, now: Instant, withdrawal: Withdrawal) {
        let refused = matches!(withdrawal, Withdrawal::Refused { .. });
        self.held = None;
        self.update = None;
        self.describe = None;
        self.events.push_back(Action::Withdrawn(withdrawal));
        if refused && self.hint.is_none() {
            // It is still at the head: asked soon, it would be offered and refused again and again.
            return self.schedule_poll(now);
        }
        self.look_for_next(now);
    }

    pub(super) fn settle(&mut self, now: Instant, settlement: Settlement) {
        let Some(Held { key, phase: Phase::Finishing { update, repeat, .. }, .. }) = self.held.take() else {
            return;
        };
        self.update = None;
        self.history.record(key, update);
        if !repeat {
            self.events.push_back(Action::Settled(settlement));
        }
        self.look_for_next(now);
    }

    /// The service has an execution pending whose end was reported: the report did not stick. It is told
    /// again and the work is not done again; slower each time, because something is wrong at the other end.
    fn report_again(&mut self, now: Instant, execution: &JobExecution) {
        let key = execution.key();
        let Some((update, before)) = self.history.repeat(&key) else { return };
        tracing::warn!(%key, "the service has forgotten how this execution ended; it is told again");
        let wait = backoff(before, &mut self.rng);
        self.hint = None;
        let version = Some(execution.version_number);
        let phase = Phase::Finishing { update: update.clone(), mismatches: 0, reduced: false, repeat: true };
        self.hold(Held { key, version, resyncs: 0, phase });
        self.send_update(now, &update);
        self.update = self.update.take().map(|request| request.delayed(now, wait));
    }

    fn look_for_next(&mut self, now: Instant) {
        match self.hint.take() {
            Some(hint) => self.consider(now, hint),
            None => self.ask_soon(now),
        }
    }

    /// A notification should come; if it does not, the service is asked.
    fn ask_soon(&mut self, now: Instant) {
        let soon = now + self.settings.settle_wait;
        // What is due sooner stays, or repeated hints would put the question off for ever.
        self.poll_at = Some(self.poll_at.filter(|at| *at > now).map_or(soon, |at| at.min(soon)));
    }
}

fn late(operation: &str) {
    tracing::debug!("an answer to a {operation} that is not waited for is ignored");
}
