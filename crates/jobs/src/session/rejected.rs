//! What follows when the service rejects an update for good. What it rejects for now is just sent again.

use std::time::Instant;

use super::{About, Held, Phase, Session, Settlement, Withdrawal};
use crate::wire::{Rejection, RejectionCode, Status};

/// How often the service's version is adopted before the report goes out without one. Some spurious
/// mismatches have been seen around reconnects; more than a few in a row is something else.
const MAX_MISMATCHES: u32 = 3;

impl Session {
    pub(super) fn begin_rejected(&mut self, now: Instant, rejection: &Rejection) {
        self.update = None;
        if let Some(withdrawal) = ended(rejection) {
            return self.withdraw(now, withdrawal);
        }
        let Some(Held { version, resyncs, phase: Phase::Beginning { update, reduced, .. }, .. }) =
            &mut self.held
        else {
            return;
        };
        if rejection.code.is_invalid_request() {
            if *reduced {
                return self.withdraw(now, refused(rejection));
            }
            *reduced = true;
            update.details = update.details.minimal();
            let update = update.clone();
            return self.send_update(now, &update);
        }
        // The version differs. Either a first copy of this very update was accepted and its answer is lost or
        // late, or somebody else has moved the execution on.
        if let Some(state) = &rejection.execution_state
            && state.status == Status::InProgress
            && version.map(|version| version.saturating_add(1)) == Some(state.version_number)
            && (update.details.is_empty() || *update.details.as_map() == state.status_details)
        {
            return self.begun(now, state.version_number);
        }
        *resyncs += 1;
        if *resyncs > MAX_MISMATCHES {
            return self.withdraw(now, refused(rejection));
        }
        self.ask(now, About::Held);
    }

    pub(super) fn progress_rejected(&mut self, now: Instant, rejection: &Rejection) {
        self.update = None;
        if let Some(withdrawal) = ended(rejection) {
            return self.withdraw(now, withdrawal);
        }
        tracing::warn!(code = %rejection.code, detail = %brief(&rejection.message), "progress was rejected");
        let Some(held) = &mut self.held else { return };
        if let Some(state) = &rejection.execution_state {
            held.version = Some(state.version_number);
        }
        if let Phase::Running { waiting, .. } = &mut held.phase
            && let Some(latest) = waiting.take()
        {
            self.send_update(now, &latest);
        }
    }

    pub(super) fn finish_rejected(&mut self, now: Instant, rejection: &Rejection) {
        let Some(Held { version, phase: Phase::Finishing { update, mismatches, reduced, .. }, .. }) =
            &mut self.held
        else {
            return;
        };
        // A first copy may have been accepted: what counts is that the service has what we say.
        if let Some(state) = &rejection.execution_state
            && state.status == update.status.into()
        {
            return self.settle(now, Settlement::Accepted);
        }
        match ended(rejection) {
            Some(Withdrawal::Ended(status)) => return self.settle(now, Settlement::AlreadyEnded(status)),
            Some(_) => return self.settle(now, Settlement::Gone),
            None => {}
        }
        if rejection.code == RejectionCode::VersionMismatch {
            *mismatches += 1;
            let state = rejection.execution_state.as_ref().filter(|_| *mismatches < MAX_MISMATCHES);
            *version = state.map(|state| state.version_number);
            if *mismatches > MAX_MISMATCHES {
                // It refuses a version that was not sent: no faster than a service in trouble is asked.
                if let Some(request) = &mut self.update {
                    request.back_off(now, &mut self.rng);
                }
                return;
            }
        } else if rejection.code.is_invalid_request() && !*reduced {
            *reduced = true;
            update.details = update.details.minimal();
        } else {
            let Rejection { code, message, .. } = rejection;
            let (code, message) = (code.clone(), brief(message));
            return self.settle(now, Settlement::Unreportable { code, message });
        }
        let update = update.clone();
        self.send_update(now, &update);
    }
}

/// How the execution has ended, if that is what a rejection says.
pub(super) fn ended(rejection: &Rejection) -> Option<Withdrawal> {
    let status = rejection.execution_state.as_ref().map(|state| state.status);
    match (&rejection.code, status) {
        (RejectionCode::ResourceNotFound, _) => Some(Withdrawal::Deleted),
        (_, Some(status)) if status.is_terminal() => Some(Withdrawal::Ended(Some(status))),
        // The service uses either code for an update of an execution that has ended.
        (RejectionCode::TerminalStateReached, _) | (RejectionCode::InvalidStateTransition, None) => {
            Some(Withdrawal::Ended(None))
        }
        _ => None,
    }
}

pub(super) fn refused(rejection: &Rejection) -> Withdrawal {
    Withdrawal::Refused { code: rejection.code.clone(), message: brief(&rejection.message) }
}

/// As much of the service's words as a log line or a journal entry should have.
fn brief(message: &str) -> String {
    message.chars().take(256).collect()
}
