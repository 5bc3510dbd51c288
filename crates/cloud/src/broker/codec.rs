//! Reads packets of either version of MQTT, and writes what the broker says in the client's.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::error::{DecodeError, EncodeError};
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::PublishProperties;
use rmqtt_codec::version::{ProtocolVersion, VersionCodec};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder, Encoder};

use super::close::{Close, Refusal};
use super::limits::{IN_FLIGHT, PACKET_BYTES, PACKET_BYTES_ANNOUNCED, TOPIC_ALIASES};
use super::packet::{Connect, Message, Packet, QoS, Version, connect_v3, connect_v5, packet_v3, packet_v5};

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
                Ok(Some((v3::Packet::Connect(connect), _))) => connect_v3(*connect),
                Ok(Some(_)) => return Err(DecodeError::UnsupportedPacketType),
                Ok(None) => return Ok(None),
                Err(DecodeError::InvalidClientId) => Err(Refusal::ClientId),
                Err(error) => return Err(error),
            },
            Self::V5(codec) => match codec.decode(input) {
                Ok(Some((v5::Packet::Connect(connect), _))) => connect_v5(*connect, now),
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
