//! Why a link ended or never began, in words for the person who reads the log.

use std::io;
use std::time::{Duration, SystemTime};

use rumqttc::{ConnectReturnCode, mqttbytes};
use rustls::CertificateError;

use crate::ProxyError;
use crate::calendar::utc;
#[cfg(feature = "websocket")]
use crate::{CredentialsError, UpgradeError};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectCause {
    #[error("the name {host} cannot be resolved: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("{address} cannot be reached: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("the proxy {proxy}: {error}")]
    Proxy { proxy: String, error: ProxyError },
    #[error("no connection within {after:?}: still {step} when the time was up")]
    ConnectTimeout { step: Step, after: Duration },
    #[error("{0:?} is neither a host name nor an IP address")]
    InvalidEndpoint(String),
    /// Certificates look wrong because a clock is, most often the device's own.
    #[error("TLS: {error}; this device's clock says {now}: is it right?")]
    Clock { error: rustls::Error, now: String },
    #[error(
        "TLS: the server's certificate does not come from root_ca ({0}): for AWS that is Amazon Root CA 1, and something on \
         the way that opens TLS has a root of its own"
    )]
    OtherRoot(rustls::Error),
    #[error(
        "TLS: {0}: is the endpoint spelled right, and is it the cloud that answers, not a portal or a proxy?"
    )]
    OtherName(rustls::Error),
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// Of a key in a token: one in a file was read at the start.
    #[error("the device's private key cannot be used: {0}")]
    Key(String),
    /// The way a server says no to a client certificate.
    #[error(
        "the server refuses this device's certificate ({0}): is it registered and ACTIVE at this endpoint's account \
         and region?"
    )]
    CertificateRefused(rustls::Error),
    #[error("CONNECT refused ({code}): {}", advice(*.code, .client_id))]
    Refused { code: u8, client_id: String },
    #[error(
        "the server closed the connection while {step}: is the certificate ACTIVE, does its policy allow iot:Connect \
         on client/{client_id} and iot:Subscribe on what is subscribed to?"
    )]
    ClosedEarly { step: Step, client_id: String },
    #[error(
        "the server refuses the subscription to {filter}: does the policy allow iot:Subscribe on topicfilter/{filter}?"
    )]
    SubscriptionRefused { filter: String },
    #[error(
        "the server closed the connection when {topic} was published to: does the policy allow iot:Publish on \
         topic/{topic}?"
    )]
    PublishRefused { topic: String },
    #[error(
        "nothing came back within {after:?} for what was published to {topic}: does the policy allow iot:Receive on \
         topic/{topic}/…?"
    )]
    NoAnswer { topic: String, after: Duration },
    #[error("the server closed the connection")]
    Closed,
    #[error(
        "the server closed the connection soon after it was made, {times} times in a row: another client probably uses \
         the client id {client_id}, or the policy forbids something this device publishes"
    )]
    TakenOver { client_id: String, times: u32 },
    #[cfg(feature = "websocket")]
    #[error("{0}")]
    Credentials(CredentialsError),
    #[cfg(feature = "websocket")]
    #[error("WebSocket: {0}")]
    Upgrade(UpgradeError),
    /// Before the cloud does it, which would lose what is under way then.
    #[error("what it was signed with ends soon: it is made anew")]
    Renewal,
    #[error("nothing was heard for {after:?}: the link is dead")]
    Silent { after: Duration },
    #[error("the server broke the MQTT protocol: {0}")]
    Protocol(String),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
}

/// How far a connect has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Resolving,
    Connecting,
    /// Only where there is one.
    Proxy,
    TlsHandshake,
    /// Of a WebSocket alone: before anything else, and behind TLS.
    Credentials,
    Upgrade,
    Connack,
    Suback,
    /// Of a [`probe`](crate::probe::probe) alone.
    Answer,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving the name",
            Self::Connecting => "opening the TCP connection",
            Self::Proxy => "asking the proxy for a way through",
            Self::TlsHandshake => "in the TLS handshake",
            Self::Credentials => "fetching AWS credentials",
            Self::Upgrade => "opening the WebSocket",
            Self::Connack => "waiting for CONNACK",
            Self::Suback => "waiting for SUBACK",
            Self::Answer => "waiting for an answer",
        })
    }
}

impl DisconnectCause {
    pub(crate) fn proxy(proxy: impl Into<String>, error: ProxyError) -> Self {
        Self::Proxy { proxy: proxy.into(), error }
    }

    /// Sorts out what rustls hides in an `io::Error`.
    pub(crate) fn from_io(error: io::Error) -> Self {
        let hidden = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match hidden.cloned() {
            Some(tls) => Self::from_tls(tls),
            None if is_close(error.kind()) => Self::Closed,
            None => Self::Broken(error),
        }
    }

    fn from_tls(error: rustls::Error) -> Self {
        use rustls::AlertDescription as Alert;
        match &error {
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::Clock { error, now: utc(SystemTime::now()) },
            // The latter where a private root was made anew, under the same name.
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Self::OtherRoot(error),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::OtherName(error),
            rustls::Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::CertificateRequired
                | Alert::DecryptError,
            ) => Self::CertificateRefused(error),
            rustls::Error::Other(key) => Self::Key(key.to_string()),
            _ => Self::Tls(error),
        }
    }

    pub(crate) fn from_codec(error: mqttbytes::Error) -> Self {
        match error {
            mqttbytes::Error::Io(error) => Self::from_io(error),
            // AWS is said to have used 7, which MQTT 3.1.1 does not know.
            mqttbytes::Error::InvalidConnectReturnCode(code) => {
                Self::Refused { code, client_id: String::new() }
            }
            other => Self::Protocol(other.to_string()),
        }
    }

    /// Meant to be, and over at once.
    pub fn is_planned(&self) -> bool {
        matches!(self, Self::Renewal)
    }

    /// What a person can do, where the message itself does not say it.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Resolve { .. } => {
                Some("check how the endpoint is spelled, and the device's network and name server")
            }
            Self::Unreachable { .. } | Self::ConnectTimeout { step: Step::Connecting, .. } => Some(
                "check the device's network, and that nothing on the way blocks outgoing TCP to this port",
            ),
            Self::ConnectTimeout { .. } | Self::Broken(_) => Some(
                "something on the way lets TCP through and not what comes then: a firewall or a proxy perhaps",
            ),
            Self::Proxy { .. } => {
                Some("check `[connection] proxy`, and what the proxy's own configuration allows")
            }
            Self::Clock { .. } => Some("set the clock, best by NTP (`timedatectl`)"),
            _ => None,
        }
    }

    /// Is it this device's certificate, or what its policy allows, that the server does not take? Another certificate may
    /// help; with all else it would fail in the same way.
    pub fn is_about_identity(&self) -> bool {
        match self {
            Self::CertificateRefused(_)
            | Self::SubscriptionRefused { .. }
            | Self::PublishRefused { .. }
            | Self::NoAnswer { .. } => true,
            Self::Refused { code, .. } => matches!(code, 4 | 5 | 7),
            Self::ClosedEarly { step, .. } => {
                matches!(step, Step::TlsHandshake | Step::Connack | Step::Suback)
            }
            _ => false,
        }
    }

    /// During the handshake a plain close has a reason that can be guessed at.
    pub(crate) fn while_at(self, step: Step, client_id: &str) -> Self {
        let client_id = client_id.to_owned();
        match self {
            Self::Closed => Self::ClosedEarly { step, client_id },
            Self::Refused { code, .. } => Self::Refused { code, client_id },
            other => other,
        }
    }

    pub(crate) fn from_connack(code: ConnectReturnCode, client_id: &str) -> Self {
        Self::Refused { code: code as u8, client_id: client_id.to_owned() }
    }
}

fn is_close(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

fn advice(code: u8, client_id: &str) -> String {
    match code {
        1 => "the server does not speak MQTT 3.1.1".to_owned(),
        2 => format!("the client id {client_id:?} is not accepted (1 to 128 bytes, not beginning with $)"),
        3 => "the service is not available".to_owned(),
        _ => format!(
            "not authorised. Is the certificate ACTIVE, has it a policy, and does that allow iot:Connect on \
             client/{client_id}?"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connect_says_what_to_check() {
        for (code, expected) in [
            (2, "the client id \"pump-7\""),
            (3, "not available"),
            (4, "iot:Connect on client/pump-7"),
            (5, "iot:Connect on client/pump-7"),
            (7, "ACTIVE"),
        ] {
            let client_id = "pump-7".to_owned();
            let said = DisconnectCause::Refused { code, client_id }.to_string();
            assert!(said.contains(expected), "{code}: {said}");
        }
    }
}
