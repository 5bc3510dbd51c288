//! When to ping, and when a silent link is dead. Pure: `now` is passed in.

use std::time::Duration;
use tokio::time::Instant;

/// One deadline at a time, so that an idle link wakes the process once per keep-alive.
///
/// A ping is due a keep-alive after the last packet in *either* direction: the broker wants to hear from us, and
/// our own QoS 0 publishes prove nothing about whether it still does. Without the latter half a device that reports
/// often would postpone its pings for ever and never notice that the link is dead.
#[derive(Debug)]
pub(crate) struct Pulse {
    keep_alive: Duration,
    sent: Instant,
    heard: Instant,
    pinged: bool,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Beat {
    Ping,
    Dead,
}

impl Pulse {
    pub(crate) fn new(keep_alive: Duration, now: Instant) -> Self {
        Self { keep_alive, sent: now, heard: now, pinged: false }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = false;
    }

    pub(crate) fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    pub(crate) fn pinged(&mut self, now: Instant) {
        self.sent = now;
        self.pinged = true;
    }

    /// What is due next, and when.
    pub(crate) fn next(&self) -> (Instant, Beat) {
        if self.pinged {
            (self.dead_at(), Beat::Dead)
        } else {
            (self.sent.min(self.heard) + self.keep_alive, Beat::Ping)
        }
    }

    /// Nothing heard until then means dead: a write that still hangs by then will never end either. A ping always
    /// has at least half a keep-alive for its answer, because it is sent a keep-alive after `heard` at the latest.
    pub(crate) fn dead_at(&self) -> Instant {
        self.heard + self.keep_alive * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(60);

    /// (what happens, at which second) and then what is due, at which second.
    #[test]
    fn what_is_due_follows_from_what_was_sent_and_heard() {
        type Case = (&'static [(char, u64)], u64, Beat);
        let cases: &[Case] = &[
            (&[], 60, Beat::Ping),
            // An idle link: one ping a keep-alive, answered.
            (&[('p', 60)], 90, Beat::Dead),
            (&[('p', 60), ('h', 61)], 120, Beat::Ping),
            (&[('p', 60), ('h', 61), ('p', 120)], 151, Beat::Dead),
            // Talking without being answered does not postpone the ping.
            (&[('s', 10), ('s', 20), ('s', 59)], 60, Beat::Ping),
            // Nor does being talked to: the broker must hear from us.
            (&[('h', 10), ('h', 59)], 60, Beat::Ping),
            (&[('h', 59), ('p', 60)], 149, Beat::Dead),
            (&[('s', 30), ('h', 31)], 90, Beat::Ping),
        ];
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        for (history, due, beat) in cases {
            let mut pulse = Pulse::new(KEEP_ALIVE, start);
            for (what, second) in *history {
                match what {
                    'h' => pulse.heard(at(*second)),
                    's' => pulse.sent(at(*second)),
                    _ => pulse.pinged(at(*second)),
                }
            }
            assert_eq!(pulse.next(), (at(*due), *beat), "after {history:?}");
        }
    }
}
