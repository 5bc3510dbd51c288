//! MQTT 3.1.1 and MQTT 5 as one: what the rest of the broker reads and writes, whichever the client speaks.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::error::{DecodeError, EncodeError};
use rmqtt_codec::types::{MQTT_LEVEL_31, Publish};
use rmqtt_codec::v5::PublishProperties;
use rmqtt_codec::version::{ProtocolVersion, VersionCodec};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder, Encoder};

use super::close::{Close, Refusal};
use super::limits::{
    IN_FLIGHT, MESSAGE_EXPIRY_MAX_SECONDS, PACKET_BYTES, PACKET_BYTES_ANNOUNCED, SESSION_EXPIRY_MAX_SECONDS,
    SESSION_EXPIRY_SECONDS, TOPIC_ALIASES,
};
use super::routes::Options;

pub(super) use rmqtt_codec::types::QoS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V3,
    V5,
}

/// A message on its way to subscribers, shared by all who get it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(super) topic: ByteString,
    pub(super) payload: Bytes,
    /// QoS 1 rather than 0.
    pub(super) at_least_once: bool,
    pub(super) retain: bool,
    /// When it is no longer worth delivering, in the cloud's milliseconds.
    pub(super) expires: Option<u64>,
    /// MQTT 5's, for subscribers who speak it.
    pub(super) properties: Option<Box<PublishProperties>>,
}

impl Message {
    pub(super) fn new(topic: &str, payload: Bytes) -> Self {
        Self {
            topic: topic.into(),
            payload,
            at_least_once: true,
            retain: false,
            expires: None,
            properties: None,
        }
    }

    /// The payload is copied: it would otherwise keep alive whatever was read along with it.
    pub(super) fn from_publish(publish: &Publish, now: u64) -> Self {
        let properties = publish.properties.as_ref().filter(|has| **has != PublishProperties::default());
        let seconds = properties.and_then(|has| has.message_expiry_interval);
        let seconds = seconds.map(|seconds| u64::from(seconds.get().min(MESSAGE_EXPIRY_MAX_SECONDS)));
        let forwarded = properties.map(|has| PublishProperties {
            topic_alias: None,
            subscription_ids: Vec::new(),
            ..has.clone()
        });
        Self {
            topic: ByteString::from(&*publish.topic),
            payload: Bytes::copy_from_slice(&publish.payload),
            at_least_once: publish.qos == QoS::AtLeastOnce,
            retain: publish.retain,
            expires: seconds.map(|seconds| now + seconds * 1000),
            properties: forwarded.map(Box::new),
        }
    }

    pub(super) fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

#[derive(Debug)]
pub(super) struct Will {
    pub(super) message: Message,
    pub(super) delay_seconds: u32,
}

pub(super) struct Connect {
    pub(super) client_id: ByteString,
    pub(super) clean: bool,
    pub(super) keep_alive: u16,
    pub(super) session_expiry: u32,
    pub(super) will: Option<Will>,
    pub(super) receive_maximum: u16,
    pub(super) max_packet: Option<u32>,
}

/// What a client sends after its CONNECT.
pub(super) enum Packet {
    Publish(Box<Publish>),
    Puback(NonZeroU16),
    Subscribe {
        packet_id: NonZeroU16,
        filters: Vec<Filter>,
        identifier: bool,
    },
    Unsubscribe {
        packet_id: NonZeroU16,
        filters: Vec<ByteString>,
    },
    Ping,
    Disconnect {
        with_will: bool,
        session_expiry: Option<u32>,
    },
    /// One that is never right here: a second CONNECT, what only servers send, QoS 2's, AUTH.
    Unexpected,
}

pub(super) struct Filter {
    pub(super) filter: ByteString,
    pub(super) qos: QoS,
    pub(super) options: Options,
    pub(super) retained: Retained,
}

/// Whether a subscription wants what is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retained {
    Always,
    WhenNew,
    Never,
}

/// The answer to one filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Granted { at_least_once: bool },
    NotAuthorized,
    Invalid,
    Quota,
}

/// The answer to a CONNECT that is accepted.
pub(super) struct Accepted<'a> {
    pub(super) session_present: bool,
    pub(super) assigned_client_id: Option<&'a str>,
    pub(super) session_expiry: u32,
    pub(super) keep_alive: u16,
}

pub(super) enum Codec {
    V3(v3::Codec),
    V5(v5::Codec),
}

impl Codec {
    /// None until enough of the CONNECT is there to tell.
    pub(super) fn detect(input: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        Ok(VersionCodec.decode(input)?.map(|version| match version {
            ProtocolVersion::MQTT3 => Self::V3(v3::Codec::new(PACKET_BYTES)),
            ProtocolVersion::MQTT5 => Self::V5(v5::Codec::new(PACKET_BYTES, 0)),
        }))
    }

    pub(super) fn version(&self) -> Version {
        match self {
            Self::V3(_) => Version::V3,
            Self::V5(_) => Version::V5,
        }
    }

    /// None until all of it is there.
    pub(super) fn decode_connect(
        &mut self,
        input: &mut BytesMut,
        now: u64,
    ) -> Result<Option<Result<Connect, Refusal>>, DecodeError> {
        let connect = match self {
            Self::V3(codec) => match codec.decode(input) {
                Ok(Some((v3::Packet::Connect(connect), _))) => from_v3(*connect),
                Ok(Some(_)) => return Err(DecodeError::UnsupportedPacketType),
                Ok(None) => return Ok(None),
                Err(DecodeError::InvalidClientId) => Err(Refusal::ClientId),
                Err(error) => return Err(error),
            },
            Self::V5(codec) => match codec.decode(input) {
                Ok(Some((v5::Packet::Connect(connect), _))) => from_v5(*connect, now),
                Ok(Some(_)) => return Err(DecodeError::UnsupportedPacketType),
                Ok(None) => return Ok(None),
                Err(DecodeError::InvalidClientId) => Err(Refusal::ClientId),
                Err(error) => return Err(error),
            },
        };
        if let (Self::V5(codec), Ok(Connect { max_packet: Some(most), .. })) = (self, &connect) {
            codec.set_max_outbound_size(*most);
        }
        Ok(Some(connect))
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        Ok(match self {
            Self::V3(codec) => codec.decode(input)?.map(|(packet, _)| packet_v3(packet)),
            Self::V5(codec) => codec.decode(input)?.map(|(packet, _)| packet_v5(packet)),
        })
    }

    pub(super) fn accept(&mut self, accepted: &Accepted, out: &mut BytesMut) {
        self.write(
            || {
                v3::Packet::ConnectAck(v3::ConnectAck {
                    return_code: v3::ConnectAckReason::ConnectionAccepted,
                    session_present: accepted.session_present,
                })
            },
            || {
                v5::ConnectAck {
                    session_present: accepted.session_present,
                    session_expiry_interval_secs: Some(accepted.session_expiry),
                    receive_max: NonZeroU16::new(IN_FLIGHT).unwrap_or(NonZeroU16::MAX),
                    max_qos: QoS::AtLeastOnce,
                    max_packet_size: Some(PACKET_BYTES_ANNOUNCED),
                    assigned_client_id: accepted.assigned_client_id.map(ByteString::from),
                    topic_alias_max: TOPIC_ALIASES,
                    subscription_identifiers_available: false,
                    server_keepalive_sec: Some(accepted.keep_alive),
                    ..v5::ConnectAck::default()
                }
                .into()
            },
            out,
        );
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, out: &mut BytesMut) {
        self.write(
            || v3::Packet::ConnectAck(v3::ConnectAck { return_code: refusal.v3(), session_present: false }),
            || v5::ConnectAck { reason_code: refusal.v5(), ..v5::ConnectAck::default() }.into(),
            out,
        );
    }

    pub(super) fn puback(&mut self, packet_id: NonZeroU16, reason: v5::PublishAckReason, out: &mut BytesMut) {
        self.write(
            || v3::Packet::PublishAck { packet_id },
            || {
                v5::Packet::PublishAck(v5::PublishAck {
                    packet_id,
                    reason_code: reason,
                    properties: Vec::new(),
                    reason_string: None,
                })
            },
            out,
        );
    }

    pub(super) fn suback(&mut self, packet_id: NonZeroU16, grants: &[Grant], out: &mut BytesMut) {
        let v3 = |grant: &Grant| match grant {
            Grant::Granted { at_least_once: true } => v3::SubscribeReturnCode::Success(QoS::AtLeastOnce),
            Grant::Granted { at_least_once: false } => v3::SubscribeReturnCode::Success(QoS::AtMostOnce),
            _ => v3::SubscribeReturnCode::Failure,
        };
        let v5 = |grant: &Grant| match grant {
            Grant::Granted { at_least_once: true } => v5::SubscribeAckReason::GrantedQos1,
            Grant::Granted { at_least_once: false } => v5::SubscribeAckReason::GrantedQos0,
            Grant::NotAuthorized => v5::SubscribeAckReason::NotAuthorized,
            Grant::Invalid => v5::SubscribeAckReason::TopicFilterInvalid,
            Grant::Quota => v5::SubscribeAckReason::QuotaExceeded,
        };
        self.write(
            || v3::Packet::SubscribeAck { packet_id, status: grants.iter().map(v3).collect() },
            || {
                v5::Packet::SubscribeAck(v5::SubscribeAck {
                    packet_id,
                    properties: Vec::new(),
                    reason_string: None,
                    status: grants.iter().map(v5).collect(),
                })
            },
            out,
        );
    }

    /// `existed`: of each filter, whether there was such a subscription.
    pub(super) fn unsuback(&mut self, packet_id: NonZeroU16, existed: &[bool], out: &mut BytesMut) {
        let reason = |existed: &bool| match existed {
            true => v5::UnsubscribeAckReason::Success,
            false => v5::UnsubscribeAckReason::NoSubscriptionExisted,
        };
        self.write(
            || v3::Packet::UnsubscribeAck { packet_id },
            || {
                v5::Packet::UnsubscribeAck(v5::UnsubscribeAck {
                    packet_id,
                    properties: Vec::new(),
                    reason_string: None,
                    status: existed.iter().map(reason).collect(),
                })
            },
            out,
        );
    }

    pub(super) fn pong(&mut self, out: &mut BytesMut) {
        self.write(|| v3::Packet::PingResponse, || v5::Packet::PingResponse, out);
    }

    /// MQTT 3 has no such packet from a server.
    pub(super) fn disconnect(&mut self, close: Close, out: &mut BytesMut) {
        if let (Self::V5(codec), Some(code)) = (self, close.code()) {
            report(codec.encode(v5::Disconnect::new(code).into(), out));
        }
    }

    /// False when it cannot be sent: the client does not take packets that large.
    pub(super) fn publish(
        &mut self,
        message: &Message,
        packet_id: Option<NonZeroU16>,
        retain: bool,
        now: u64,
        out: &mut BytesMut,
    ) -> bool {
        let remaining = message.expires.map(|expires| expires.saturating_sub(now).div_ceil(1000));
        let remaining = remaining.and_then(|seconds| NonZeroU32::new(seconds.try_into().unwrap_or(u32::MAX)));
        let properties = message
            .properties
            .as_deref()
            .map(|has| PublishProperties { message_expiry_interval: remaining, ..has.clone() });
        let publish = Publish {
            dup: false,
            retain,
            qos: if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            topic: message.topic.clone(),
            packet_id,
            payload: message.payload.clone(),
            properties: None,
        };
        let start = out.len();
        let done = match self {
            Self::V3(codec) => codec.encode(v3::Packet::Publish(Box::new(publish)), out),
            Self::V5(codec) => {
                codec.encode(v5::Packet::Publish(Box::new(Publish { properties, ..publish })), out)
            }
        };
        if done.is_err() {
            // Half a packet would garble all that follows.
            out.truncate(start);
        }
        done.is_ok()
    }

    fn write(
        &mut self,
        v3: impl FnOnce() -> v3::Packet,
        v5: impl FnOnce() -> v5::Packet,
        out: &mut BytesMut,
    ) {
        report(match self {
            Self::V3(codec) => codec.encode(v3(), out),
            Self::V5(codec) => codec.encode(v5(), out),
        });
    }
}

/// Acknowledgements are a few bytes; one that does not fit is a client with an absurd Maximum Packet Size.
fn report(encoded: Result<(), EncodeError>) {
    if let Err(error) = encoded {
        tracing::debug!(%error, "a packet was not sent");
    }
}

fn from_v3(connect: v3::Connect) -> Result<Connect, Refusal> {
    if connect.protocol.level() == MQTT_LEVEL_31 {
        return Err(Refusal::ProtocolVersion);
    }
    let will = connect.last_will.map(|will| {
        let message = Message { retain: will.retain, ..Message::new(&will.topic, will.message) };
        will_of(message, will.qos, 0)
    });
    Ok(Connect {
        client_id: ByteString::from(&*connect.client_id),
        clean: connect.clean_session,
        keep_alive: connect.keep_alive,
        session_expiry: if connect.clean_session { 0 } else { SESSION_EXPIRY_SECONDS },
        will: will.transpose()?,
        receive_maximum: IN_FLIGHT,
        max_packet: None,
    })
}

fn from_v5(connect: v5::Connect, now: u64) -> Result<Connect, Refusal> {
    let will = connect.last_will.map(|will| {
        let properties = PublishProperties {
            correlation_data: will.correlation_data,
            content_type: will.content_type,
            user_properties: will.user_properties,
            is_utf8_payload: will.is_utf8_payload.unwrap_or_default(),
            response_topic: will.response_topic,
            ..PublishProperties::default()
        };
        let seconds = will.message_expiry_interval.map(|seconds| u64::from(seconds.get()));
        let message = Message {
            retain: will.retain,
            properties: Some(Box::new(properties)),
            expires: seconds.map(|seconds| now + seconds * 1000),
            ..Message::new(&will.topic, will.message)
        };
        will_of(message, will.qos, will.will_delay_interval_sec.unwrap_or(0))
    });
    Ok(Connect {
        client_id: ByteString::from(&*connect.client_id),
        clean: connect.clean_start,
        keep_alive: connect.keep_alive,
        session_expiry: connect.session_expiry_interval_secs.min(SESSION_EXPIRY_MAX_SECONDS),
        will: will.transpose()?,
        receive_maximum: connect.receive_max.map_or(u16::MAX, NonZeroU16::get).min(IN_FLIGHT),
        max_packet: connect.max_packet_size.map(NonZeroU32::get),
    })
}

fn will_of(message: Message, qos: QoS, delay_seconds: u32) -> Result<Will, Refusal> {
    let payload = Bytes::copy_from_slice(&message.payload);
    match qos {
        QoS::ExactlyOnce => Err(Refusal::Qos),
        _ => Ok(Will {
            message: Message { at_least_once: qos == QoS::AtLeastOnce, payload, ..message },
            delay_seconds,
        }),
    }
}

fn packet_v3(packet: v3::Packet) -> Packet {
    match packet {
        v3::Packet::Publish(publish) => Packet::Publish(publish),
        v3::Packet::PublishAck { packet_id } => Packet::Puback(packet_id),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let filters = topic_filters.into_iter().map(|(filter, qos)| Filter {
                filter,
                qos,
                options: Options { at_least_once: qos != QoS::AtMostOnce, ..Options::default() },
                retained: Retained::Always,
            });
            Packet::Subscribe { packet_id, filters: filters.collect(), identifier: false }
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            Packet::Unsubscribe { packet_id, filters: topic_filters }
        }
        v3::Packet::PingRequest => Packet::Ping,
        v3::Packet::Disconnect => Packet::Disconnect { with_will: false, session_expiry: None },
        _ => Packet::Unexpected,
    }
}

fn packet_v5(packet: v5::Packet) -> Packet {
    match packet {
        v5::Packet::Publish(publish) => Packet::Publish(publish),
        v5::Packet::PublishAck(ack) => Packet::Puback(ack.packet_id),
        v5::Packet::Subscribe(subscribe) => {
            let filters = subscribe.topic_filters.into_iter().map(|(filter, asked)| Filter {
                filter,
                qos: asked.qos,
                options: Options {
                    at_least_once: asked.qos != QoS::AtMostOnce,
                    no_local: asked.no_local,
                    retain_as_published: asked.retain_as_published,
                },
                retained: match asked.retain_handling {
                    v5::RetainHandling::AtSubscribe => Retained::Always,
                    v5::RetainHandling::AtSubscribeNew => Retained::WhenNew,
                    v5::RetainHandling::NoAtSubscribe => Retained::Never,
                },
            });
            Packet::Subscribe {
                packet_id: subscribe.packet_id,
                filters: filters.collect(),
                identifier: subscribe.id.is_some(),
            }
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe { packet_id: unsubscribe.packet_id, filters: unsubscribe.topic_filters }
        }
        v5::Packet::PingRequest => Packet::Ping,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect {
            with_will: disconnect.reason_code != v5::DisconnectReasonCode::NormalDisconnection,
            session_expiry: disconnect.session_expiry_interval_secs,
        },
        _ => Packet::Unexpected,
    }
}
