//! One client id's session: its subscriptions, and the QoS 1 messages it has not acknowledged. Pure but for the
//! outbox of the connection it is linked to.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::ConnectionId;
use super::limits::{IN_FLIGHT, Rate, STORED_MESSAGES};
use super::outbox::{Delivery, Outbox};
use super::packet::{Connect, Message, Version, Will};
use super::routes::Options;
use super::topic;
use crate::identity::{Action, Rules};

/// The live connection of a session.
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) rules: Arc<Rules>,
    pub(super) will: Option<Will>,
    pub(super) rate: Rate,
    pub(super) session_identifier: Box<str>,
    /// The certificate's id; none on the plain listener.
    pub(super) principal: Option<Box<str>>,
    pub(super) thing: Option<Arc<str>>,
    window: usize,
}

impl Link {
    pub(super) fn new(id: ConnectionId, rules: Arc<Rules>, connect: &mut Connect) -> Self {
        Self {
            id,
            outbox: Arc::default(),
            rules,
            will: connect.will.take(),
            rate: Rate::default(),
            session_identifier: format!("{:032x}", fastrand::u128(..)).into(),
            principal: None,
            thing: None,
            window: usize::from(connect.receive_maximum.min(IN_FLIGHT)),
        }
    }
}

#[derive(Debug)]
struct Stored {
    message: Arc<Message>,
    retain: bool,
}

pub(super) struct Session {
    pub(super) version: Version,
    /// How long it outlives its connection; 0: not at all.
    pub(super) expiry_seconds: u32,
    /// When it ends, in the cloud's milliseconds, if nobody resumes it.
    pub(super) ends: Option<u64>,
    pub(super) link: Option<Link>,
    pub(super) filters: Vec<(Box<str>, Options)>,
    unacknowledged: Vec<(NonZeroU16, Stored)>,
    /// Beyond what may be in flight, or while nobody was connected.
    unsent: VecDeque<Stored>,
    /// What a resumed session had stored: sent bit by bit, along with the live traffic.
    replay: VecDeque<Stored>,
    last_packet_id: u16,
}

impl Session {
    pub(super) fn new(version: Version, expiry_seconds: u32, link: Link) -> Self {
        Self {
            version,
            expiry_seconds,
            ends: None,
            link: Some(link),
            filters: Vec::new(),
            unacknowledged: Vec::new(),
            unsent: VecDeque::new(),
            replay: VecDeque::new(),
            last_packet_id: 0,
        }
    }

    /// Whether a new connection may have it, rather than start afresh.
    pub(super) fn is_resumable(&self, version: Version, now: u64) -> bool {
        self.version == version && self.expiry_seconds > 0 && self.ends.is_none_or(|ends| now < ends)
    }

    pub(super) fn resume(&mut self, expiry_seconds: u32, link: Link) {
        self.link = Some(link);
        self.expiry_seconds = expiry_seconds;
        self.ends = None;
        self.replay.extend(self.unacknowledged.drain(..).map(|(_, stored)| stored));
        self.replay.append(&mut self.unsent);
    }

    /// The QoS that this client's own subscriptions give a topic: true for 1. None: not subscribed.
    pub(super) fn subscribed(&self, name: &str) -> Option<bool> {
        let mut matching = self.filters.iter().filter(|(filter, _)| topic::matches(filter, name)).peekable();
        matching.peek()?;
        Some(matching.any(|(_, options)| options.at_least_once))
    }

    pub(super) fn deliver(&mut self, message: &Arc<Message>, at_least_once: bool, retain: bool, now: u64) {
        let stored = Stored { message: Arc::clone(message), retain };
        match &mut self.link {
            Some(link) if !at_least_once => {
                if may_receive(link, message) {
                    link.outbox.push(Delivery { message: stored.message, packet_id: None, retain });
                }
            }
            Some(link) if self.unacknowledged.len() < link.window => self.transmit(stored, now),
            None if !at_least_once || self.expiry_seconds == 0 => {}
            _ if self.unsent.len() + self.replay.len() < STORED_MESSAGES => self.unsent.push_back(stored),
            _ => tracing::debug!(topic = %message.topic, "too much is stored for the session: dropped"),
        }
    }

    pub(super) fn acknowledge(&mut self, packet_id: NonZeroU16, now: u64) {
        self.unacknowledged.retain(|(id, _)| *id != packet_id);
        while self.has_room() {
            let Some(stored) = self.unsent.pop_front() else { break };
            self.transmit(stored, now);
        }
    }

    /// Sends up to `count` of what was stored; true while there is more.
    pub(super) fn replay(&mut self, count: usize, now: u64) -> bool {
        for _ in 0..count {
            if !self.has_room() {
                break;
            }
            let Some(stored) = self.replay.pop_front() else { break };
            self.transmit(stored, now);
        }
        !self.replay.is_empty()
    }

    fn has_room(&self) -> bool {
        self.link.as_ref().is_some_and(|link| self.unacknowledged.len() < link.window)
    }

    /// At QoS 1, to the connection there is.
    fn transmit(&mut self, stored: Stored, now: u64) {
        let packet_id = self.free_packet_id();
        let Some(link) = &self.link else { return };
        if stored.message.has_expired(now) || !may_receive(link, &stored.message) {
            return;
        }
        let message = Arc::clone(&stored.message);
        link.outbox.push(Delivery { message, packet_id: Some(packet_id), retain: stored.retain });
        self.unacknowledged.push((packet_id, stored));
    }

    fn free_packet_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_packet_id)
                && self.unacknowledged.iter().all(|(taken, _)| *taken != id)
            {
                return id;
            }
        }
    }
}

fn may_receive(link: &Link, message: &Message) -> bool {
    link.rules.allows(Action::Receive, &message.topic)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
