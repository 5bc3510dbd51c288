//! One client's connection, from its CONNECT to its end: reads packets, has the state decide, writes what comes of it.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::PublishAckReason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::close::{Close, Refusal};
use super::limits::{CLIENT_ID_BYTES, Limits, PAYLOAD_BYTES, TOPIC_ALIASES, WRITE_TIMEOUT};
use super::outbox::Outbox;
use super::packet::{Accepted, Codec, Connect, Filter, Grant, Message, Packet, QoS, Version};
use super::state::{Arrival, may_publish};
use super::{ConnectionId, Embedded, Service, topic};
use crate::identity::{Action, Principal, Rules, Subject};

/// Read at a time, and kept for an idle connection. A larger packet gets a buffer of its own for as long as it takes.
const READ_BYTES: usize = 1024;
/// Written at a time.
const WRITE_BYTES: usize = 64 * 1024;
/// How long a client that is being disconnected has for reading why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who is at the other end, before it has said anything.
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// None on the plain listener.
    pub(super) principal: Option<Principal>,
}

/// Serves one connection until it ends.
pub(super) async fn run(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    broker: Arc<Embedded>,
    service: Arc<dyn Service>,
) {
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let first = timeout(broker.limits.handshake, read_connect(&mut stream, &mut input, &broker)).await;
    let Ok(Some((mut codec, connect))) = first else { return };
    let mut output = BytesMut::new();
    match Connection::admit(connect, codec.version(), peer, broker, service) {
        Err(refusal) => {
            tracing::debug!(?refusal, "CONNECT refused");
            codec.refuse(refusal, &mut output);
            let _ = timeout(FAREWELL, write(&mut stream, &mut output)).await;
            let _ = timeout(FAREWELL, stream.shutdown()).await;
        }
        Ok((mut connection, accepted)) => {
            connection.accept(accepted, &mut codec, &mut output);
            let close = connection.serve(&mut stream, &mut codec, &mut input, &mut output).await;
            connection.broker.disconnect(connection.id, close, connection.expiry_at_end);
            codec.disconnect(close, &mut output);
            let _ = timeout(FAREWELL, write(&mut stream, &mut output)).await;
            let _ = timeout(FAREWELL, stream.shutdown()).await;
        }
    }
}

/// None when what comes is not a CONNECT.
async fn read_connect(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    broker: &Embedded,
) -> Option<(Codec, Result<Connect, Refusal>)> {
    let mut codec = None;
    loop {
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
        if codec.is_none() {
            codec = Codec::detect(input).ok()?;
        }
        if let Some(mut known) = codec.take() {
            match known.decode_connect(input, broker.now().cloud) {
                Ok(Some(connect)) => return Some((known, connect)),
                Ok(None) => codec = Some(known),
                Err(error) => {
                    tracing::debug!(%error, "CONNECT cannot be read");
                    return None;
                }
            }
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> std::io::Result<()> {
    stream.write_all(output).await?;
    stream.flush().await?;
    if output.capacity() > READ_BYTES {
        *output = BytesMut::new();
    }
    output.clear();
    Ok(())
}

/// What the CONNACK says.
struct Welcome {
    session_present: bool,
    assigned_client_id: bool,
    session_expiry: u32,
    keep_alive: u16,
}

struct Connection {
    id: ConnectionId,
    client_id: Arc<str>,
    thing: Option<Arc<str>>,
    rules: Arc<Rules>,
    outbox: Arc<Outbox>,
    /// Silence after which the client is taken for dead.
    patience: Duration,
    may_extend_session: bool,
    expiry_at_end: Option<u32>,
    aliases: Vec<Option<ByteString>>,
    broker: Arc<Embedded>,
    service: Arc<dyn Service>,
}

impl Connection {
    fn admit(
        connect: Result<Connect, Refusal>,
        version: Version,
        peer: Peer,
        broker: Arc<Embedded>,
        service: Arc<dyn Service>,
    ) -> Result<(Self, Welcome), Refusal> {
        let connect = connect?;
        let assigned_client_id = connect.client_id.is_empty();
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
        let arrival = Arrival {
            connect,
            version,
            client_id: Arc::clone(&client_id),
            rules: Arc::clone(&rules),
            principal: peer.principal,
            address: peer.address,
        };
        let thing = arrival.thing();
        let connected = broker.state().connect(arrival, broker.now())?;
        let connection = Self {
            id: connected.id,
            client_id,
            thing,
            rules,
            outbox: connected.outbox,
            patience: Duration::from_secs(u64::from(keep_alive)) * 3 / 2,
            may_extend_session: session_expiry > 0,
            expiry_at_end: None,
            aliases: Vec::new(),
            broker,
            service,
        };
        let session_present = connected.session_present;
        Ok((connection, Welcome { session_present, assigned_client_id, session_expiry, keep_alive }))
    }

    fn accept(&self, welcome: Welcome, codec: &mut Codec, output: &mut BytesMut) {
        let accepted = Accepted {
            session_present: welcome.session_present,
            assigned_client_id: welcome.assigned_client_id.then_some(&*self.client_id),
            session_expiry: welcome.session_expiry,
            keep_alive: welcome.keep_alive,
        };
        codec.accept(&accepted, output);
    }

    async fn serve(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        codec: &mut Codec,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Close {
        // AWS asks clients to wait for the CONNACK. Whether one that does not is noticed would be chance here, so
        // none is blamed for it.
        if let Err(close) = self.handle_all(codec, input, output) {
            return self.leave(close, stream, output).await;
        }
        let mut heard = Instant::now();
        let mut throttle = Throttle::new(&self.broker.limits);
        let mut replays = self.broker.state().replay(self.id, self.broker.now()).then(next_second);
        loop {
            self.take_deliveries(codec, output);
            if !output.is_empty() {
                if let Err(close) = self.write(stream, output).await {
                    return close;
                }
                continue;
            }
            if let Some(close) = self.outbox.closing() {
                return close;
            }
            let paused = throttle.paused();
            let wake_at = [Some(heard + self.patience), replays, paused].into_iter().flatten().min();
            tokio::select! {
                () = self.outbox.changed() => {}
                read = stream.read_buf(input), if paused.is_none() => match read {
                    Ok(0) | Err(_) => return Close::Lost,
                    Ok(bytes) => {
                        throttle.count(bytes);
                        match self.handle_all(codec, input, output) {
                            Ok(true) => heard = Instant::now(),
                            Ok(false) => {}
                            Err(close) => return self.leave(close, stream, output).await,
                        }
                    }
                },
                () = sleep_until(wake_at.unwrap_or(heard + self.patience)) => {
                    if heard.elapsed() >= self.patience {
                        return Close::KeepAlive;
                    }
                    if replays.is_some_and(|at| at <= Instant::now()) {
                        replays = self.broker.state().replay(self.id, self.broker.now()).then(next_second);
                    }
                }
            }
        }
    }

    /// What was answered before the offence, such as a SUBACK with the refusal, still goes out.
    async fn leave(
        &self,
        close: Close,
        stream: &mut (impl AsyncWrite + Unpin),
        output: &mut BytesMut,
    ) -> Close {
        tracing::info!(client_id = %self.client_id, ?close, "disconnecting");
        let _ = timeout(FAREWELL, write(stream, output)).await;
        output.clear();
        close
    }

    fn take_deliveries(&self, codec: &mut Codec, output: &mut BytesMut) {
        while output.len() < WRITE_BYTES {
            let Some(next) = self.outbox.pop() else { return };
            let now = self.broker.now().cloud;
            if !codec.publish(&next.message, next.packet_id, next.retain, now, output) {
                // Larger than the client takes: MQTT 5 has it discarded, as if it had been delivered.
                if let Some(packet_id) = next.packet_id {
                    self.broker.state().acknowledge(self.id, packet_id, self.broker.now());
                }
            }
        }
    }

    /// A client that does not read holds up nobody but itself, and not for ever.
    async fn write(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        output: &mut BytesMut,
    ) -> Result<(), Close> {
        let abandoned = async {
            let close = self.outbox.closed().await;
            sleep(FAREWELL).await;
            close
        };
        tokio::select! {
            biased;
            written = write(stream, output) => written.map_err(|_| Close::Lost),
            close = abandoned => { output.clear(); Err(close) }
            () = sleep(WRITE_TIMEOUT) => { output.clear(); Err(Close::SlowReader) }
        }
    }

    /// Whether there was a whole packet.
    fn handle_all(
        &mut self,
        codec: &mut Codec,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<bool, Close> {
        let mut any = false;
        loop {
            match codec.decode(input) {
                Ok(Some(packet)) => self.handle(packet, codec, output)?,
                Ok(None) => break,
                Err(rmqtt_codec::error::DecodeError::MaxSizeExceeded { .. }) => return Err(Close::Quota),
                Err(error) => {
                    tracing::debug!(client_id = %self.client_id, %error, "not a packet");
                    return Err(Close::Malformed);
                }
            }
            any = true;
        }
        if input.is_empty() && input.capacity() > READ_BYTES {
            *input = BytesMut::with_capacity(READ_BYTES);
        }
        input.reserve(READ_BYTES / 4);
        Ok(any)
    }

    fn handle(&mut self, packet: Packet, codec: &mut Codec, output: &mut BytesMut) -> Result<(), Close> {
        let broker = Arc::clone(&self.broker);
        match packet {
            Packet::Publish(publish) => self.publish(*publish, codec, output)?,
            Packet::Puback(packet_id) => broker.state().acknowledge(self.id, packet_id, broker.now()),
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
        if topic::jobs_thing(&message.topic).is_some() {
            let thing = self.thing.as_deref();
            self.service.published(self.id, &self.client_id, thing, &message.topic, &message.payload);
        } else {
            self.broker.state().publish(message, Some(self.id), now);
        }
        Ok(())
    }

    /// MQTT 5's numbers in the place of topics.
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

fn next_second() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

/// Bytes within the current second; beyond the limit, reading waits for the next one.
struct Throttle {
    limit: Option<usize>,
    until: Instant,
    bytes: usize,
}

impl Throttle {
    fn new(limits: &Limits) -> Self {
        Self { limit: limits.bytes_per_second, until: next_second(), bytes: 0 }
    }

    fn count(&mut self, bytes: usize) {
        if Instant::now() >= self.until {
            (self.until, self.bytes) = (next_second(), 0);
        }
        self.bytes += bytes;
    }

    /// When reading may go on, if it has to wait.
    fn paused(&self) -> Option<Instant> {
        let over = self.limit.is_some_and(|limit| self.bytes >= limit);
        (over && Instant::now() < self.until).then_some(self.until)
    }
}
