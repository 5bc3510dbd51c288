//! AWS's limits on one connection. They are values and not constants so that a test need not wait for AWS's
//! minutes, and so that the few which get in the way of a benchmark can be lifted.

use std::time::Duration;

pub(crate) const PAYLOAD_BYTES: usize = 128 * 1024;
pub(crate) const TOPIC_BYTES: usize = 256;
pub(crate) const TOPIC_SLASHES: usize = 7;
pub(crate) const CLIENT_ID_BYTES: usize = 128;
pub(crate) const FILTERS_PER_SUBSCRIBE: usize = 8;
pub(crate) const SUBSCRIPTIONS: usize = 50;
/// Unacknowledged QoS 1 messages in either direction: MQTT 5's Receive Maximum.
pub(crate) const IN_FLIGHT: u16 = 100;
pub(crate) const TOPIC_ALIASES: u16 = 8;
/// For MQTT 3, whose clients cannot ask for another.
pub(crate) const SESSION_EXPIRY_SECONDS: u32 = 3600;
pub(crate) const SESSION_EXPIRY_MAX_SECONDS: u32 = 604_800;
/// Stored messages sent per second after a session was resumed.
pub(crate) const REPLAY_PER_SECOND: usize = 10;
pub(crate) const MESSAGE_EXPIRY_MAX_SECONDS: u32 = 604_800;

/// What MQTT 5 clients are told, as at AWS. More is read, so that the limit on payloads is what is met.
pub(crate) const PACKET_BYTES_ANNOUNCED: u32 = 128 * 1024;
/// The largest packet read: a PUBLISH of the largest payload, its topic, and properties of MQTT 5.
pub(crate) const PACKET_BYTES: u32 = 146 * 1024;

/// Ours, not AWS's: what is kept for a session that is not connected, or whose client does not acknowledge. Messages
/// beyond it are dropped, the new ones.
pub(crate) const STORED_MESSAGES: usize = 1000;
/// Ours: topics with a retained message. A message for one more is delivered, and not retained.
pub(crate) const RETAINED_MESSAGES: usize = 10_000;
/// Ours: what is held for a client that does not read. Beyond it, it is disconnected.
pub(crate) const OUTBOX_BYTES: usize = 1024 * 1024;
pub(crate) const OUTBOX_MESSAGES: usize = 2000;
/// Ours: how long a write may make no progress.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Smallest and largest effective keep-alive, in seconds.
    pub(crate) keep_alive: (u16, u16),
    /// PUBLISH packets a second on one connection, in plus out; what exceeds it is discarded.
    pub(crate) publishes_per_second: Option<u32>,
    /// Bytes a second read from one connection; what exceeds it is delayed.
    pub(crate) bytes_per_second: Option<usize>,
    /// CONNECTs a second of one client id. Off by default: tests and people restart agents faster than AWS allows.
    pub(crate) connects_per_second: Option<u32>,
    /// A handshake without SNI is refused, as at AWS. Off by default: who connects to 127.0.0.1 sends none.
    pub(crate) require_sni: bool,
    /// Time for the TLS handshake, and again for the CONNECT packet.
    pub(crate) handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keep_alive: (30, 1200),
            publishes_per_second: Some(100),
            bytes_per_second: Some(512 * 1024),
            connects_per_second: None,
            require_sni: false,
            handshake: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// What a requested keep-alive amounts to, in seconds; none is the longest.
    pub(crate) fn keep_alive(&self, requested: u16) -> u16 {
        let (shortest, longest) = self.keep_alive;
        if requested == 0 { longest } else { requested.clamp(shortest, longest) }
    }
}

/// Events within the current second.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    second: u64,
    count: u32,
}

impl Rate {
    /// Counts one event at `millis`; false when it is one too many.
    pub(crate) fn admit(&mut self, millis: u64, limit: Option<u32>) -> bool {
        let Some(limit) = limit else { return true };
        // A window that opens with its first event, so that a burst is not cut in two by the clock.
        if self.count == 0 || millis.saturating_sub(self.second) >= 1000 {
            *self = Self { second: millis, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= limit
    }

    /// Whether the second it counts in has passed.
    pub(crate) fn is_over(&self, millis: u64) -> bool {
        millis.saturating_sub(self.second) >= 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alives() {
        let limits = Limits::default();
        for (requested, effective) in
            [(0, 1200), (1, 30), (10, 30), (29, 30), (30, 30), (60, 60), (1200, 1200)]
        {
            assert_eq!(limits.keep_alive(requested), effective, "{requested}");
        }
        assert_eq!(limits.keep_alive(3600), 1200);
    }

    #[test]
    fn a_second_of_publishes() {
        let mut rate = Rate::default();
        let admitted = (0..150).filter(|n| rate.admit(500 + n, Some(100))).count();
        assert_eq!(admitted, 100);
        assert!(!rate.admit(1499, Some(100)));
        assert!(rate.admit(1500, Some(100)));
        assert!((0..1000).all(|_| rate.admit(0, None)));
    }
}
