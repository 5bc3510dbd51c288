//! How MQTT travels, and which of two ways is next.

#[cfg(feature = "websocket")]
use crate::Signer;
use crate::{DisconnectCause, Step};

/// The ALPN of MQTT with a client certificate on port 443.
pub(crate) const MQTT_CA: &[u8] = b"x-amzn-mqtt-ca";
/// A way that worked gets so many chances before the other one is tried.
const PATIENCE: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub transport: Transport,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// MQTT over TLS: AWS's port 8883.
    Tls,
    /// The same with the ALPN `x-amzn-mqtt-ca`, without which AWS's port 443 takes it for HTTP.
    Alpn,
    /// Over a WebSocket on port 443, signed with AWS credentials instead of a certificate.
    #[cfg(feature = "websocket")]
    WebSocket(Signer),
}

impl Route {
    pub const TLS: Self = Self { transport: Transport::Tls, port: 8883 };
    pub const ALPN: Self = Self { transport: Transport::Alpn, port: 443 };

    #[cfg(feature = "websocket")]
    pub fn websocket(signer: Signer) -> Self {
        Self { transport: Transport::WebSocket(signer), port: 443 }
    }
}

/// Of a route and its fallback. As long as neither has worked they take turns; one that has worked is given up only after
/// it failed several times in a row, so that a short outage does not move a whole fleet to another port.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    fallback: bool,
    has_worked: bool,
    failures: u32,
}

impl Choice {
    pub(crate) fn is_fallback(&self) -> bool {
        self.fallback
    }

    pub(crate) fn worked(&mut self) {
        self.has_worked = true;
        self.failures = 0;
    }

    pub(crate) fn failed(&mut self, cause: &DisconnectCause) {
        if !blames_the_route(cause) {
            return;
        }
        self.failures += 1;
        if self.failures >= if self.has_worked { PATIENCE } else { 1 } {
            *self = Self { fallback: !self.fallback, ..Self::default() };
        }
    }
}

/// A firewall, a proxy or a middlebox may be nicer to another port. A name that cannot be resolved, a certificate or a
/// policy that is refused would be the same there.
pub(crate) fn blames_the_route(cause: &DisconnectCause) -> bool {
    use DisconnectCause as Cause;
    match cause {
        Cause::ConnectTimeout { step, .. } => *step != Step::Resolving,
        Cause::ClosedEarly { step, .. } => *step == Step::TlsHandshake,
        Cause::Unreachable { .. }
        | Cause::Proxy { .. }
        | Cause::Tls(_)
        | Cause::OtherRoot(_)
        | Cause::OtherName(_)
        | Cause::Broken(_)
        | Cause::Protocol(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn unreachable() -> DisconnectCause {
        DisconnectCause::ConnectTimeout { step: Step::Connecting, after: Duration::from_secs(20) }
    }

    /// `x`: this way failed; `o`: it worked; `-`: a failure that is not the way's. Then whether each attempt was over the
    /// fallback.
    #[test]
    fn routes_take_turns_until_one_works_and_that_one_is_not_given_up_lightly() {
        for (story, expected) in [
            ("xxxx", "0101"),
            ("----x-", "000001"),
            ("oxxxo", "00001"),
            ("xoxxxxo", "0111101"),
            ("oxxoxxoxx", "000000000"),
            ("xo-x-x-x", "01111111"),
        ] {
            let mut choice = Choice::default();
            let mut attempts = String::new();
            for event in story.chars() {
                attempts.push(if choice.is_fallback() { '1' } else { '0' });
                match event {
                    'o' => choice.worked(),
                    'x' => choice.failed(&unreachable()),
                    _ => choice.failed(&DisconnectCause::Refused { code: 5, client_id: String::new() }),
                }
            }
            assert_eq!(attempts, expected, "{story}");
        }
    }
}
