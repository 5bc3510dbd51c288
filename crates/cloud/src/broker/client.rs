//! What one client's packets lead to: checks them against AWS's rules, has the state decide, writes the answers.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::PublishAckReason;

use super::close::{Close, Refusal};
use super::codec::{Accepted, Codec, Grant};
use super::limits::{CLIENT_ID_BYTES, PAYLOAD_BYTES, TOPIC_ALIASES};
use super::meter::Direction;
use super::outbox::Outbox;
use super::packet::{Connect, Filter, Message, Packet, QoS, Version};
use super::state::{Arrival, may_publish};
use super::{ConnectionId, Embedded, Service, topic};
use crate::identity::{Action, Principal, Rules, Subject, provisioning};
use crate::shadow::Topic;

/// Who is at the other end, before it has said anything.
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// None on the plain listener, and where a signature was enough.
    pub(super) principal: Option<Principal>,
    /// When it was signed for no longer, by the cloud's clock.
    pub(super) ends: Option<u64>,
}

/// A client whose CONNECT was accepted. Its end is the end of the connection, whatever else happens.
pub(super) struct Client {
    pub(super) id: ConnectionId,
    pub(super) client_id: Arc<str>,
    pub(super) outbox: Arc<Outbox>,
    /// Silence after which it is taken for dead.
    pub(super) patience: Duration,
    pub(super) broker: Arc<Embedded>,
    ends: Option<u64>,
    thing: Option<Arc<str>>,
    rules: Arc<Rules>,
    may_extend_session: bool,
    expiry_at_end: Option<u32>,
    /// MQTT 5's numbers for topics.
    aliases: Vec<Option<ByteString>>,
    service: Arc<dyn Service>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave(Close::Lost);
    }
}

impl Client {
    /// Answers the CONNECT if it is accepted.
    pub(super) fn admit(
        connect: Connect,
        peer: Peer,
        broker: Arc<Embedded>,
        service: Arc<dyn Service>,
        codec: &mut Codec,
        output: &mut BytesMut,
    ) -> Result<Self, Refusal> {
        let is_anonymous = connect.client_id.is_empty();
        let client_id: Arc<str> = match &*connect.client_id {
            "" => format!("{:032x}", fastrand::u128(..)).into(),
            id if id.len() > CLIENT_ID_BYTES || id.starts_with('$') => return Err(Refusal::ClientId),
            id => id.into(),
        };
        let rules = Arc::new(rules_for(&client_id, &connect, peer.principal.as_ref(), &broker));
        if !rules.allows(Action::Connect, &client_id) {
            tracing::info!(%client_id, "the policy does not allow to connect");
            return Err(Refusal::NotAuthorized);
        }
        let keep_alive = broker.limits.keep_alive(connect.keep_alive);
        let session_expiry = connect.session_expiry;
        let will =
            connect.will.as_ref().map_or(0, |will| will.message.topic.len() + will.message.payload.len());
        broker.meter.connect(&client_id, will);
        let arrival = Arrival {
            connect,
            version: codec.version(),
            client_id: Arc::clone(&client_id),
            rules: Arc::clone(&rules),
            principal: peer.principal,
            address: peer.address,
        };
        let thing = arrival.thing();
        let connected = broker.state().connect(arrival, broker.now())?;
        let accepted = Accepted {
            session_present: connected.session_present,
            assigned_client_id: is_anonymous.then_some(&*client_id),
            session_expiry,
            keep_alive,
        };
        codec.accept(&accepted, output);
        Ok(Self {
            id: connected.id,
            client_id,
            outbox: connected.outbox,
            patience: Duration::from_secs(u64::from(keep_alive)) * 3 / 2,
            broker,
            ends: peer.ends,
            thing,
            rules,
            may_extend_session: session_expiry > 0,
            expiry_at_end: None,
            aliases: Vec::new(),
            service,
        })
    }

    /// AWS notices when either side sends next.
    pub(super) fn has_ended(&self) -> bool {
        self.ends.is_some_and(|ends| self.broker.now().cloud >= ends)
    }

    /// Ends the session's connection; only the first time counts.
    pub(super) fn leave(&self, close: Close) {
        self.broker.disconnect(self.id, close, self.expiry_at_end);
    }

    /// An error is the end of the connection; what was answered before it still goes out.
    pub(super) fn handle(
        &mut self,
        packet: Packet,
        codec: &mut Codec,
        output: &mut BytesMut,
    ) -> Result<(), Close> {
        let broker = Arc::clone(&self.broker);
        match packet {
            Packet::Publish(publish) => self.publish(*publish, codec, output)?,
            Packet::Puback(packet_id) => {
                broker.meter.acknowledgement(&self.client_id);
                broker.state().acknowledge(self.id, packet_id, broker.now());
            }
            Packet::Subscribe { identifier: true, .. } => return Err(Close::SubscriptionIdentifier),
            Packet::Subscribe { packet_id, filters, .. } => {
                self.subscribe(packet_id, &filters, codec, output)?;
            }
            Packet::Unsubscribe { packet_id, filters } => {
                let existed = broker.state().unsubscribe(self.id, &filters, broker.now());
                codec.unsuback(packet_id, &existed, output);
            }
            Packet::Ping => codec.pong(output),
            Packet::Disconnect { session_expiry: Some(1..), .. } if !self.may_extend_session => {
                return Err(Close::Protocol);
            }
            Packet::Disconnect { with_will, session_expiry } => {
                self.expiry_at_end = session_expiry;
                return Err(Close::Client { with_will });
            }
            Packet::Unexpected => return Err(Close::Protocol),
        }
        Ok(())
    }

    fn subscribe(
        &self,
        packet_id: NonZeroU16,
        filters: &[Filter],
        codec: &mut Codec,
        output: &mut BytesMut,
    ) -> Result<(), Close> {
        self.broker.meter.subscribe(&self.client_id, filters.iter().map(|one| &*one.filter));
        let (grants, close) = self.broker.state().subscribe(self.id, filters, self.broker.now());
        match close {
            // QoS 2 is met with silence; only MQTT 5 has a word for it.
            Some(Close::Qos) if codec.version() == Version::V3 => return Ok(()),
            Some(close) if grants.is_empty() => return Err(close),
            _ => codec.suback(packet_id, &grants, output),
        }
        for (one, _) in filters.iter().zip(&grants).filter(|(_, grant)| **grant == Grant::NotAuthorized) {
            tracing::info!(client_id = %self.client_id, filter = %one.filter, "the policy does not allow to subscribe");
        }
        close.map_or(Ok(()), Err)
    }

    fn publish(
        &mut self,
        mut publish: Publish,
        codec: &mut Codec,
        output: &mut BytesMut,
    ) -> Result<(), Close> {
        self.resolve_alias(&mut publish)?;
        if publish.qos == QoS::ExactlyOnce {
            return if codec.version() == Version::V3 { Ok(()) } else { Err(Close::Qos) };
        }
        if publish.payload.len() > PAYLOAD_BYTES {
            return Err(Close::Quota);
        }
        match topic::check_name(&publish.topic) {
            Ok(()) if publish.retain && topic::is_reserved(&publish.topic) => return Err(Close::TopicName),
            Ok(()) => {}
            Err(topic::Invalid::Reserved) => return Err(Close::NotAuthorized),
            Err(_) => return Err(Close::TopicName),
        }
        self.broker.meter.publish(
            &self.client_id,
            Direction::FromDevice,
            &publish.topic,
            publish.payload.len(),
        );
        let now = self.broker.now();
        if !self.broker.state().admit_publish(self.id, now) {
            if let (Some(packet_id), Version::V5) = (publish.packet_id, codec.version()) {
                codec.puback(packet_id, PublishAckReason::QuotaExceeded, output);
            }
            return Ok(());
        }
        let message = Message::from_publish(&publish, now.cloud);
        if !may_publish(&self.rules, &message) {
            tracing::info!(client_id = %self.client_id, topic = %publish.topic, "the policy does not allow to publish");
            return Err(Close::NotAuthorized);
        }
        if let Some(packet_id) = publish.packet_id {
            codec.puback(packet_id, PublishAckReason::Success, output);
        }
        let (topic, payload) = (message.topic.clone(), message.payload.clone());
        let asked = topic::jobs_thing(&topic).is_some() || provisioning::ask(&topic).is_some();
        if !asked {
            self.broker.state().publish(message, Some(self.id), now);
        }
        // What is asked of shadows is an ordinary message beside: whoever subscribed hears it.
        if asked || Topic::parse(&topic).is_some() {
            self.service.published(self.id, &self.client_id, self.thing.as_deref(), &topic, &payload);
        }
        Ok(())
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Close> {
        let Some(alias) = publish.properties.as_ref().and_then(|has| has.topic_alias) else { return Ok(()) };
        if alias.get() > TOPIC_ALIASES {
            return Err(Close::TopicAlias);
        }
        self.aliases.resize(usize::from(TOPIC_ALIASES), None);
        let Some(known) = self.aliases.get_mut(usize::from(alias.get() - 1)) else {
            return Err(Close::TopicAlias);
        };
        if publish.topic.is_empty() {
            publish.topic = known.clone().ok_or(Close::TopicAlias)?;
        } else {
            *known = Some(ByteString::from(&*publish.topic));
        }
        Ok(())
    }
}

fn rules_for(client_id: &str, connect: &Connect, principal: Option<&Principal>, broker: &Embedded) -> Rules {
    let Some(principal) = principal else { return Rules::everything() };
    let persistent = (!connect.clean || connect.session_expiry > 0).then_some("PersistentConnect");
    let will = connect.will.as_ref().map(|_| "LastWill");
    let attributes: Vec<_> = persistent.into_iter().chain(will).collect();
    let thing = principal.things.contains(client_id).then_some(client_id);
    let subject = Subject { client_id, thing, attributes: &attributes };
    Rules::compile(&principal.documents, &subject, &broker.arn_prefix)
}
