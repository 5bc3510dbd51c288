//! What the service does to a session.

use std::time::Instant;

use super::request::backoff;
use super::{Action, Asked, Document, Session};
use crate::document::{Members, delta, merge};
use crate::topic::Heard;
use crate::wire::{Accepted, Deleted, Delta, Rejected, read};

/// So often in a row a report meets a conflict before it waits for something else to happen.
const MOST_CONFLICTS: u32 = 5;

/// A version that nothing reaches: only asking helps.
const UNKNOWN: u64 = u64::MAX;

impl Session {
    /// A message of the connection; false when it is not about this shadow.
    pub fn message(&mut self, now: Instant, topic: &str, payload: &[u8]) -> bool {
        let Some(heard) = self.settings.shadow.heard(topic) else { return false };
        match heard {
            Heard::GetAccepted => read(payload).map(|answer| self.got(now, answer)),
            Heard::GetRejected => read(payload).map(|answer| self.get_rejected(now, &answer)),
            Heard::UpdateAccepted => read(payload).map(|answer| self.updated(now, answer)),
            Heard::UpdateRejected => read(payload).map(|answer| self.update_rejected(now, &answer)),
            Heard::Delta => read(payload).map(|delta| self.differs(now, &delta)),
            Heard::DeleteAccepted => read(payload).map(|Deleted { version }| self.deleted(now, version)),
        };
        self.go_on(now);
        true
    }

    fn got(&mut self, now: Instant, answer: Accepted) {
        let is_ours = |asked: &Asked, token| *asked == Asked::Get && token;
        let token = answer.client_token.as_deref();
        let ours =
            self.request.as_ref().is_some_and(|(asked, open)| is_ours(asked, open.is_answered_by(token)));
        if !ours {
            return tracing::debug!("an answer to a get that is not waited for is ignored");
        }
        self.request = None;
        let state = answer.state.unwrap_or_default();
        self.know(Document {
            version: answer.version,
            is_there: true,
            is_asked_for: true,
            desired: state.desired.flatten().unwrap_or_default(),
            reported: state.reported.flatten().unwrap_or_default(),
        });
        // What was heard while the question was on its way may be newer than the answer.
        self.ask_at = (self.heard > answer.version).then(|| now + self.settings.settle);
    }

    fn know(&mut self, document: Document) {
        self.known = Some(document);
        self.tell();
    }

    /// Says what is desired, if that is news.
    fn tell(&mut self) {
        let Some(known) = self.known.as_ref().filter(|_| self.settings.follows) else { return };
        if self.told.as_ref() != Some(&known.desired) {
            self.told = Some(known.desired.clone());
            // One that was not looked at yet is of no interest any more.
            self.events.retain(|event| !matches!(event, Action::Desired(_)));
            self.events.push_back(Action::Desired(known.desired.clone()));
        }
    }

    /// Anybody's update. It says what it changed; in turn, that is all there is to know.
    fn updated(&mut self, now: Instant, answer: Accepted) {
        let token = answer.client_token.as_deref();
        let ours = |(asked, open): &(Asked, _)| {
            let open: &super::Request = open;
            *asked == Asked::Update && open.is_answered_by(token)
        };
        if self.request.as_ref().is_some_and(ours) {
            self.request = None;
            self.conflicts = 0;
            self.events.push_back(Action::Reported);
        }
        let Some(known) = &mut self.known else { return self.heard_of(now, answer.version) };
        if answer.version != known.version.saturating_add(1) {
            return self.heard_of(now, answer.version);
        }
        // With another document, what was refused may be taken.
        self.refused = false;
        known.version = answer.version;
        known.is_there = true;
        known.is_asked_for = false;
        match answer.state {
            None => {
                known.desired.clear();
                known.reported.clear();
            }
            Some(state) => {
                apply(&mut known.desired, state.desired);
                apply(&mut known.reported, state.reported);
            }
        }
        if self.heard <= answer.version {
            self.ask_at = None;
        }
        self.tell();
    }

    /// The service's own word on what differs: where it is not ours, something was lost that no version tells of, such as
    /// a deletion before the shadow was made anew.
    fn differs(&mut self, now: Instant, said: &Delta) {
        let known = self.known.as_ref().filter(|known| known.is_there && known.version == said.version);
        let other = known.filter(|known| !known.is_asked_for);
        if other.is_some_and(|known| delta(&known.desired, &known.reported) != said.state) {
            return self.heard_of(now, UNKNOWN);
        }
        self.heard_of(now, said.version);
    }

    /// There is this version. If it is newer than what is known, and what made it does not come, it was lost.
    fn heard_of(&mut self, now: Instant, version: u64) {
        self.heard = self.heard.max(version);
        let Some(known) = &self.known else { return };
        // After a deletion the count may have begun anew.
        if version > known.version || !known.is_there {
            self.refused = false;
            self.ask_at.get_or_insert(now + self.settings.settle);
        } else {
            tracing::debug!(version, known = known.version, "a late message of the shadow is ignored");
        }
    }

    fn deleted(&mut self, now: Instant, version: u64) {
        match &self.known {
            Some(known) if !known.is_there && version == known.version => {}
            Some(known) if version >= known.version => self.know(Document { version, ..Document::default() }),
            // It is out of turn: what is taken for an update of what was before may have made what is now.
            _ => self.heard_of(now, UNKNOWN),
        }
    }

    fn get_rejected(&mut self, now: Instant, rejected: &Rejected) {
        let open = self.request.as_mut().filter(|(asked, _)| *asked == Asked::Get);
        let Some((_, open)) = open.filter(|(_, open)| open.is_rejected_by(rejected)) else { return };
        if rejected.is_transient() {
            return open.back_off(now, &mut self.rng);
        }
        self.request = None;
        if rejected.code == 404 {
            self.know(Document::default());
            self.ask_at = (self.heard > 0).then(|| now + self.settings.settle);
        } else {
            self.give_up("the shadow cannot be asked for", rejected);
        }
    }

    fn update_rejected(&mut self, now: Instant, rejected: &Rejected) {
        let open = self.request.as_mut().filter(|(asked, _)| *asked == Asked::Update);
        let Some((_, open)) = open.filter(|(_, open)| open.is_rejected_by(rejected)) else { return };
        if rejected.is_transient() {
            return open.back_off(now, &mut self.rng);
        }
        self.request = None;
        if rejected.code == 409 && self.conflicts < MOST_CONFLICTS {
            // Somebody was quicker. What is so is reckoned anew from what there is, a little later than they.
            let wait = backoff(0, &mut self.rng).div_f64(2.0_f64.powi(3 - self.conflicts.min(3) as i32));
            self.conflicts += 1;
            self.ask_at = Some(now + wait);
            return;
        }
        self.give_up("what is so cannot be reported", rejected);
    }

    fn give_up(&mut self, what: &str, rejected: &Rejected) {
        let Rejected { code, message, .. } = rejected;
        let shadow = self.settings.shadow.name.as_deref();
        tracing::error!(shadow, code, message, "{what}: not before something changes");
        self.refused = true;
    }
}

fn apply(section: &mut Members, change: Option<Option<Members>>) {
    match change {
        None => {}
        Some(None) => section.clear(),
        Some(Some(patch)) => merge(section, &patch),
    }
}
