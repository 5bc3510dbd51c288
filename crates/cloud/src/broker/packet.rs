//! MQTT 3.1.1 and MQTT 5 as one: what clients say, whichever of them they speak.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;
use rmqtt_codec::types::{MQTT_LEVEL_31, Publish};
use rmqtt_codec::v5::PublishProperties;
use rmqtt_codec::{v3, v5};

use super::close::Refusal;
use super::limits::{
    IN_FLIGHT, MESSAGE_EXPIRY_MAX_SECONDS, SESSION_EXPIRY_MAX_SECONDS, SESSION_EXPIRY_SECONDS,
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

pub(super) fn connect_v3(connect: v3::Connect) -> Result<Connect, Refusal> {
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

pub(super) fn connect_v5(connect: v5::Connect, now: u64) -> Result<Connect, Refusal> {
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

pub(super) fn packet_v3(packet: v3::Packet) -> Packet {
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

pub(super) fn packet_v5(packet: v5::Packet) -> Packet {
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
