//! Everything the broker knows: sessions, subscriptions, retained messages. Time is passed in, and nothing waits:
//! one lock round it is held for microseconds.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytestring::ByteString;

use super::ConnectionId;
use super::close::{Close, Refusal};
use super::codec::Grant;
use super::events;
use super::limits::{
    FILTERS_PER_SUBSCRIBE, Limits, REPLAY_PER_SECOND, RETAINED_MESSAGES, Rate, SESSION_EXPIRY_MAX_SECONDS,
    SUBSCRIPTIONS,
};
use super::packet::{Connect, Filter, Message, QoS, Retained, Version};
use super::routes::Routes;
use super::session::{Link, Session};
use super::topic;
use crate::identity::{Action, Principal, Rules};

/// Both clocks, in milliseconds: the cloud's, which a test may stop and move, and the machine's, for rates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) cloud: u64,
    pub(super) real: u64,
}

pub(super) struct State {
    limits: Limits,
    sessions: HashMap<Arc<str>, Session>,
    connections: HashMap<ConnectionId, Arc<str>>,
    routes: Routes,
    retained: HashMap<ByteString, Arc<Message>>,
    /// Wills whose delay has not passed: when, whose, what.
    delayed_wills: Vec<(u64, Arc<str>, Arc<Message>)>,
    /// How many more connections of a client id are refused on purpose.
    refused: HashMap<String, u32>,
    connect_rates: HashMap<Arc<str>, Rate>,
    last_id: ConnectionId,
}

/// A CONNECT as it arrived, and who sent it.
pub(super) struct Arrival {
    pub(super) connect: Connect,
    pub(super) version: Version,
    pub(super) client_id: Arc<str>,
    pub(super) rules: Arc<Rules>,
    pub(super) principal: Option<Principal>,
    pub(super) address: std::net::IpAddr,
}

impl Arrival {
    /// The thing that is connecting: the client id, when the certificate is attached to a thing of that name.
    pub(super) fn thing(&self) -> Option<Arc<str>> {
        let attached = self.principal.as_ref().is_some_and(|known| known.things.contains(&*self.client_id));
        attached.then(|| Arc::clone(&self.client_id))
    }
}

pub(super) struct Connected {
    pub(super) id: ConnectionId,
    pub(super) outbox: Arc<super::outbox::Outbox>,
    pub(super) session_present: bool,
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            sessions: HashMap::new(),
            connections: HashMap::new(),
            routes: Routes::default(),
            retained: HashMap::new(),
            delayed_wills: Vec::new(),
            refused: HashMap::new(),
            connect_rates: HashMap::new(),
            last_id: 0,
        }
    }

    pub(super) fn connect(&mut self, mut arrival: Arrival, now: Now) -> Result<Connected, Refusal> {
        self.check_refused(&arrival.client_id)?;
        if self.limits.connects_per_second.is_some() {
            let rate = self.connect_rates.entry(Arc::clone(&arrival.client_id)).or_default();
            if !rate.admit(now.real, self.limits.connects_per_second) {
                return Err(Refusal::Rate);
            }
        }
        let client_id = Arc::clone(&arrival.client_id);
        if let Some(old) = self.link_of(&client_id) {
            let (id, outbox) = (old.id, Arc::clone(&old.outbox));
            outbox.close(Close::TakenOver);
            self.disconnect(id, Close::TakenOver, None, now);
        }
        self.delayed_wills.retain(|(_, whose, _)| *whose != client_id);

        self.last_id += 1;
        let id = self.last_id;
        let mut link = Link::new(id, Arc::clone(&arrival.rules), &mut arrival.connect);
        link.thing = arrival.thing();
        link.principal = arrival.principal.as_ref().map(|known| known.certificate_id.as_str().into());
        let connected = events::connected(&client_id, &link, arrival.address, now.cloud);
        let outbox = Arc::clone(&link.outbox);

        let (clean, version, expiry) =
            (arrival.connect.clean, arrival.version, arrival.connect.session_expiry);
        let session_present = match self.sessions.get_mut(&client_id) {
            Some(known) if !clean && known.is_resumable(version, now.cloud) => {
                known.resume(expiry, link);
                true
            }
            _ => {
                self.end_session(&client_id);
                self.sessions.insert(Arc::clone(&client_id), Session::new(version, expiry, link));
                false
            }
        };
        self.connections.insert(id, client_id);
        self.announce(connected, now);
        Ok(Connected { id, outbox, session_present })
    }

    /// The end of a connection, once: later calls for it find nothing. `expiry`: what an MQTT 5 client said in its
    /// DISCONNECT.
    pub(super) fn disconnect(&mut self, id: ConnectionId, close: Close, expiry: Option<u32>, now: Now) {
        let Some(client_id) = self.connections.remove(&id) else { return };
        let Some(session) = self.sessions.get_mut(&client_id) else { return };
        let Some(link) = session.link.take() else { return };
        session.expiry_seconds =
            expiry.map_or(session.expiry_seconds, |asked| asked.min(SESSION_EXPIRY_MAX_SECONDS));
        let outlives = u64::from(session.expiry_seconds) * 1000;
        session.ends = Some(now.cloud + outlives);
        if outlives == 0 {
            self.end_session(&client_id);
        }
        self.announce(events::disconnected(&client_id, &link, close, now.cloud), now);
        let Some(will) = link.will.filter(|_| close.sends_will()) else { return };
        let legal = topic::check_name(&will.message.topic).is_ok();
        if !legal || !may_publish(&link.rules, &will.message) {
            tracing::info!(%client_id, topic = %will.message.topic, "the will is not allowed");
            return;
        }
        let delay = outlives.min(u64::from(will.delay_seconds) * 1000);
        let message = Arc::new(will.message);
        if delay == 0 {
            self.route(&message, None, now);
        } else {
            self.delayed_wills.push((now.cloud + delay, client_id, message));
        }
    }

    pub(super) fn subscribe(
        &mut self,
        id: ConnectionId,
        filters: &[Filter],
        now: Now,
    ) -> (Vec<Grant>, Option<Close>) {
        let Some(client_id) = self.connections.get(&id).cloned() else {
            return (Vec::new(), Some(Close::Lost));
        };
        if filters.len() > FILTERS_PER_SUBSCRIBE {
            return (Vec::new(), Some(Close::Quota));
        }
        if filters.iter().any(|one| one.qos == QoS::ExactlyOnce) {
            return (Vec::new(), Some(Close::Qos));
        }
        let mut grants = Vec::with_capacity(filters.len());
        let mut close = None;
        let mut retained = Vec::new();
        for one in filters {
            let Some(session) = self.sessions.get_mut(&client_id) else { break };
            let grant = grant(session, &one.filter);
            let grant = grant.unwrap_or_else(|(refused, ends)| {
                close = close.or(ends);
                refused
            });
            if let Grant::Granted { .. } = grant {
                session.filters.retain(|(known, _)| **known != *one.filter);
                session.filters.push(((*one.filter).into(), one.options));
                let new = self.routes.subscribe(&client_id, &one.filter, one.options);
                if one.retained == Retained::Always || (one.retained == Retained::WhenNew && new) {
                    // Only filters without wildcards name a topic, so only they find something here.
                    retained
                        .extend(self.retained.get(&one.filter).map(|kept| (Arc::clone(kept), one.options)));
                }
                grants.push(Grant::Granted { at_least_once: one.options.at_least_once });
            } else {
                grants.push(grant);
            }
        }
        if let Some(session) = self.sessions.get_mut(&client_id) {
            for (message, options) in
                retained.into_iter().filter(|(message, _)| !message.has_expired(now.cloud))
            {
                session.deliver(&message, options.at_least_once && message.at_least_once, true, now.cloud);
            }
        }
        let granted = filters.iter().zip(&grants).filter(|(_, grant)| matches!(grant, Grant::Granted { .. }));
        let topics: Vec<_> = granted.map(|(one, _)| &*one.filter).collect();
        self.announce_subscriptions(&client_id, "subscribed", &topics, now);
        (grants, close)
    }

    /// Of each filter, whether it was subscribed to.
    pub(super) fn unsubscribe(&mut self, id: ConnectionId, filters: &[ByteString], now: Now) -> Vec<bool> {
        let Some(client_id) = self.connections.get(&id).cloned() else { return Vec::new() };
        let Some(session) = self.sessions.get_mut(&client_id) else { return Vec::new() };
        let mut existed = Vec::with_capacity(filters.len());
        for filter in filters {
            let before = session.filters.len();
            session.filters.retain(|(known, _)| **known != **filter);
            existed.push(session.filters.len() < before);
            if session.filters.len() < before {
                self.routes.unsubscribe(&client_id, filter);
            }
        }
        let topics: Vec<_> = filters.iter().map(|filter| &**filter).collect();
        self.announce_subscriptions(&client_id, "unsubscribed", &topics, now);
        existed
    }

    /// Whether one more PUBLISH of this connection is within its rate.
    pub(super) fn admit_publish(&mut self, id: ConnectionId, now: Now) -> bool {
        let link = self.connections.get(&id).and_then(|client| self.sessions.get_mut(client)?.link.as_mut());
        link.is_some_and(|link| link.rate.admit(now.real, self.limits.publishes_per_second))
    }

    /// A message from a client, or from the service when `from` is None, to all who subscribed.
    pub(super) fn publish(&mut self, message: Message, from: Option<ConnectionId>, now: Now) {
        let message = Arc::new(message);
        if message.retain {
            if message.payload.is_empty() {
                self.retained.remove(&message.topic);
            } else if self.retained.len() < RETAINED_MESSAGES || self.retained.contains_key(&message.topic) {
                self.retained.insert(message.topic.clone(), Arc::clone(&message));
            }
        }
        let from = from.and_then(|id| self.connections.get(&id).cloned());
        self.route(&message, from.as_deref(), now);
    }

    /// Straight to one connection, at the QoS of its subscription if it has one and else at QoS 0.
    pub(super) fn send(&mut self, to: ConnectionId, message: Message, now: Now) {
        let Some(session) = self.connections.get(&to).and_then(|client| self.sessions.get_mut(client)) else {
            return;
        };
        let at_least_once = session.subscribed(&message.topic).unwrap_or(false);
        session.deliver(&Arc::new(message), at_least_once, false, now.cloud);
    }

    pub(super) fn acknowledge(&mut self, id: ConnectionId, packet_id: NonZeroU16, now: Now) {
        if let Some(session) = self.connections.get(&id).and_then(|client| self.sessions.get_mut(client)) {
            session.acknowledge(packet_id, now.cloud);
        }
    }

    /// A second's worth of what was stored for a resumed session; true while there is more.
    pub(super) fn replay(&mut self, id: ConnectionId, now: Now) -> bool {
        let session = self.connections.get(&id).and_then(|client| self.sessions.get_mut(client));
        session.is_some_and(|session| session.replay(REPLAY_PER_SECOND, now.cloud))
    }

    /// Ends the connections for which `which` is true, with its client id, thing and certificate; says how many.
    pub(super) fn close(
        &mut self,
        why: Close,
        which: impl Fn(&str, Option<&str>, Option<&str>) -> bool,
    ) -> usize {
        let linked =
            self.sessions.iter().filter_map(|(client, session)| Some((client, session.link.as_ref()?)));
        let chosen =
            linked.filter(|(client, link)| which(client, link.thing.as_deref(), link.principal.as_deref()));
        chosen.map(|(_, link)| link.outbox.close(why)).count()
    }

    pub(super) fn refuse(&mut self, client_id: &str, times: u32) {
        if times == 0 {
            self.refused.remove(client_id);
        } else {
            self.refused.insert(client_id.to_owned(), times);
        }
    }

    pub(super) fn refuse_nobody(&mut self) -> usize {
        std::mem::take(&mut self.refused).len()
    }

    #[cfg(test)]
    pub(super) fn is_connected(&self, client_id: &str) -> bool {
        self.sessions.get(client_id).is_some_and(|session| session.link.is_some())
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What time alone does: sessions that expire, wills whose delay has passed.
    pub(super) fn tick(&mut self, now: Now) {
        let expired = |session: &Session| session.ends.is_some_and(|ends| ends <= now.cloud);
        let ended: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| expired(session))
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for client_id in ended {
            self.end_session(&client_id);
        }
        let (due, later) =
            std::mem::take(&mut self.delayed_wills).into_iter().partition(|(at, ..)| *at <= now.cloud);
        self.delayed_wills = later;
        for (_, _, message) in due {
            self.route(&message, None, now);
        }
        self.connect_rates.retain(|_, rate| !rate.is_over(now.real));
    }

    fn route(&mut self, message: &Arc<Message>, from: Option<&str>, now: Now) {
        for (client_id, options) in self.routes.matching(&message.topic) {
            if options.no_local && from == Some(&*client_id) {
                continue;
            }
            let Some(session) = self.sessions.get_mut(&client_id) else { continue };
            let at_least_once = options.at_least_once && message.at_least_once;
            let link = session.link.as_mut();
            let admitted =
                link.is_none_or(|link| link.rate.admit(now.real, self.limits.publishes_per_second));
            if admitted || at_least_once {
                let retain = options.retain_as_published && message.retain;
                session.deliver(message, at_least_once, retain, now.cloud);
            }
        }
    }

    /// Makes a lifecycle event only if somebody listens.
    fn announce(&mut self, event: Option<events::Event>, now: Now) {
        if let Some(event) = event.filter(|event| self.routes.any(&event.topic)) {
            self.route(&Arc::new(event.into_message()), None, now);
        }
    }

    fn announce_subscriptions(&mut self, client_id: &str, what: &'static str, topics: &[&str], now: Now) {
        let link = self.link_of(client_id);
        let event = link.and_then(|link| events::subscriptions(client_id, link, what, topics, now.cloud));
        self.announce(event, now);
    }

    fn check_refused(&mut self, client_id: &str) -> Result<(), Refusal> {
        let Some(times) = self.refused.get_mut(client_id) else { return Ok(()) };
        *times -= 1;
        if *times == 0 {
            self.refused.remove(client_id);
        }
        Err(Refusal::Unavailable)
    }

    fn link_of(&self, client_id: &str) -> Option<&Link> {
        self.sessions.get(client_id)?.link.as_ref()
    }

    fn end_session(&mut self, client_id: &str) {
        let Some(session) = self.sessions.remove(client_id) else { return };
        for (filter, _) in &session.filters {
            self.routes.unsubscribe(client_id, filter);
        }
    }
}

/// Whether the session may subscribe, or with what it is refused, and whether that ends the connection.
fn grant(session: &Session, filter: &str) -> Result<Grant, (Grant, Option<Close>)> {
    let invalid = Err((Grant::Invalid, None));
    match topic::check_filter(filter) {
        Ok(()) => {}
        Err(topic::Invalid::Syntax) => return invalid,
        Err(topic::Invalid::Length | topic::Invalid::Slashes) => {
            return Err((Grant::Invalid, Some(Close::TopicFilter)));
        }
        Err(topic::Invalid::Reserved) => return Err((Grant::NotAuthorized, Some(Close::NotAuthorized))),
    }
    let allowed = session.link.as_ref().is_some_and(|link| link.rules.allows(Action::Subscribe, filter));
    if !allowed {
        return Err((Grant::NotAuthorized, Some(Close::NotAuthorized)));
    }
    let known = session.filters.iter().any(|(known, _)| **known == *filter);
    if !known && session.filters.len() >= SUBSCRIPTIONS {
        return Err((Grant::Quota, None));
    }
    Ok(Grant::Granted { at_least_once: false })
}

/// Whether the policy lets a client publish this, retained if it is.
pub(super) fn may_publish(rules: &Rules, message: &Message) -> bool {
    rules.allows(Action::Publish, &message.topic)
        && (!message.retain || rules.allows(Action::RetainPublish, &message.topic))
}
