//! Why a link ended or never began, in words for the person who reads the log.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::{ConnectReturnCode, mqttbytes};
use rustls::CertificateError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectCause {
    #[error("the name {host} cannot be resolved: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("{address} cannot be reached: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("no connection within {after:?}: still {step} when the time was up")]
    ConnectTimeout { step: Step, after: Duration },
    #[error("{0:?} is neither a host name nor an IP address")]
    InvalidEndpoint(String),
    /// Certificates look wrong because a clock is, most often the device's own.
    #[error("TLS: {error}; this device's clock says {now}: is it right?")]
    Clock { error: rustls::Error, now: String },
    #[error("TLS: {0}")]
    Tls(rustls::Error),
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
    #[error("the server closed the connection")]
    Closed,
    #[error(
        "the server closed the connection soon after it was made, {times} times in a row: another client probably uses \
         the client id {client_id}, or the policy forbids something this device publishes"
    )]
    TakenOver { client_id: String, times: u32 },
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
    TlsHandshake,
    Connack,
    Suback,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving the name",
            Self::Connecting => "opening the TCP connection",
            Self::TlsHandshake => "in the TLS handshake",
            Self::Connack => "waiting for CONNACK",
            Self::Suback => "waiting for SUBACK",
        })
    }
}

impl DisconnectCause {
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

/// `2026-01-31T12:00:00Z`: all of calendar arithmetic that this crate needs.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: years begin in March, eras have 400 years.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_a_person_writes_them() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

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
