//! One request that has not been answered: what to publish, and when again.

use std::time::{Duration, Instant};

use crate::wire::Rejected;

const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(640);

/// Keeps its client token and its bytes however often it is sent: an answer to any copy is its answer, and taken
/// twice it changes nothing more.
#[derive(Debug)]
pub(super) struct Request {
    topic: String,
    payload: Vec<u8>,
    token: String,
    timeout: Duration,
    /// Refused for a while or unanswered, so many times in a row.
    failures: u32,
    next: Next,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Send { answer_by: Instant },
    Answer { by: Instant },
    Retry { at: Instant },
}

impl Request {
    pub fn new(now: Instant, timeout: Duration, topic: String, payload: Vec<u8>, token: String) -> Self {
        let next = Next::Send { answer_by: now + timeout };
        Self { topic, payload, token, timeout, failures: 0, next }
    }

    /// The service asked for patience.
    pub fn back_off(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.next = Next::Retry { at: now + backoff(self.failures, rng) };
        self.failures = self.failures.saturating_add(1);
    }

    pub fn tick(&mut self, now: Instant) {
        match self.next {
            Next::Answer { by } if by <= now => self.failures = self.failures.saturating_add(1),
            Next::Retry { at } if at <= now => {}
            _ => return,
        }
        self.next = Next::Send { answer_by: now + doubled(self.timeout, self.failures) };
    }

    /// What to publish, once each time it falls due.
    pub fn take(&mut self) -> Option<(String, Vec<u8>)> {
        let Next::Send { answer_by } = self.next else { return None };
        self.next = Next::Answer { by: answer_by };
        Some((self.topic.clone(), self.payload.clone()))
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self.next {
            Next::Send { .. } => None,
            Next::Answer { by: at } | Next::Retry { at } => Some(at),
        }
    }

    pub fn is_answered_by(&self, token: Option<&str>) -> bool {
        token == Some(self.token.as_str())
    }

    /// A rejection may name no token: what is too large is not read as far as that.
    pub fn is_rejected_by(&self, rejected: &Rejected) -> bool {
        rejected.client_token.as_ref().is_none_or(|token| *token == self.token)
    }
}

/// 10 s doubling to 640 s, with full jitter: a fleet that was refused together does not come back together.
pub(super) fn backoff(failures: u32, rng: &mut fastrand::Rng) -> Duration {
    doubled(FIRST_BACKOFF, failures).mul_f64(rng.f64())
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(LONGEST_BACKOFF.max(first))
}
