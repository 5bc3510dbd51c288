//! Why a connection ends or does not begin, in MQTT's terms and in those of AWS's lifecycle events.

use rmqtt_codec::v3::ConnectAckReason as V3;
use rmqtt_codec::v5::{ConnectAckReason as V5, DisconnectReasonCode as Code};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// The client said DISCONNECT, and whether its will is to be sent nevertheless (MQTT 5).
    Client {
        with_will: bool,
    },
    Lost,
    KeepAlive,
    TakenOver,
    Malformed,
    Protocol,
    NotAuthorized,
    TopicName,
    TopicFilter,
    TopicAlias,
    Quota,
    Qos,
    SubscriptionIdentifier,
    SlowReader,
    Administrative,
    /// A day after the signature, or with the credentials that made it.
    SignatureEnded,
}

impl Close {
    /// What MQTT 5 says in its DISCONNECT; MQTT 3 only closes. None: there is no one to say it to.
    pub(super) fn code(self) -> Option<Code> {
        Some(match self {
            Self::Client { .. } | Self::Lost | Self::SlowReader => return None,
            Self::KeepAlive => Code::KeepAliveTimeout,
            Self::TakenOver => Code::SessionTakenOver,
            Self::Malformed => Code::MalformedPacket,
            Self::Protocol => Code::ProtocolError,
            Self::NotAuthorized => Code::NotAuthorized,
            Self::TopicName => Code::TopicNameInvalid,
            Self::TopicFilter => Code::TopicFilterInvalid,
            Self::TopicAlias => Code::TopicAliasInvalid,
            Self::Quota => Code::QuotaExceeded,
            Self::Qos => Code::QosNotSupported,
            Self::SubscriptionIdentifier => Code::SubscriptionIdentifiersNotSupported,
            Self::Administrative => Code::AdministrativeAction,
            Self::SignatureEnded => Code::NotAuthorized,
        })
    }

    /// `disconnectReason` of the lifecycle event.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Client { .. } => "CLIENT_INITIATED_DISCONNECT",
            Self::Lost => "CONNECTION_LOST",
            Self::KeepAlive => "MQTT_KEEP_ALIVE_TIMEOUT",
            Self::TakenOver => "DUPLICATE_CLIENTID",
            Self::NotAuthorized => "FORBIDDEN_ACCESS",
            Self::SlowReader => "THROTTLED",
            Self::Administrative => "SERVER_INITIATED_DISCONNECT",
            Self::SignatureEnded => "WEBSOCKET_TTL_EXPIRATION",
            Self::Malformed
            | Self::Protocol
            | Self::TopicName
            | Self::TopicFilter
            | Self::TopicAlias
            | Self::Quota
            | Self::Qos
            | Self::SubscriptionIdentifier => "CLIENT_ERROR",
        }
    }

    pub(super) fn by_client(self) -> bool {
        matches!(self, Self::Client { .. })
    }

    pub(super) fn sends_will(self) -> bool {
        self != Self::Client { with_will: false }
    }
}

/// Why a CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    ProtocolVersion,
    ClientId,
    NotAuthorized,
    Qos,
    Rate,
    /// A fault that was asked for.
    Unavailable,
}

impl Refusal {
    pub(super) fn v3(self) -> V3 {
        match self {
            Self::ProtocolVersion => V3::UnacceptableProtocolVersion,
            Self::ClientId => V3::IdentifierRejected,
            Self::NotAuthorized => V3::NotAuthorized,
            Self::Qos | Self::Rate | Self::Unavailable => V3::ServiceUnavailable,
        }
    }

    pub(super) fn v5(self) -> V5 {
        match self {
            Self::ProtocolVersion => V5::UnsupportedProtocolVersion,
            Self::ClientId => V5::ClientIdentifierNotValid,
            Self::NotAuthorized => V5::NotAuthorized,
            Self::Qos => V5::QosNotSupported,
            Self::Rate => V5::QuotaExceeded,
            Self::Unavailable => V5::UnspecifiedError,
        }
    }
}
