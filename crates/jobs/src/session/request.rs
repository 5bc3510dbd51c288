//! One request that has not been answered: what to publish, and when again.

use std::time::{Duration, Instant};

use crate::wire::Rejection;

const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(640);

/// Keeps its client token and its bytes however often it is sent: any answer to any copy is its answer.
#[derive(Debug)]
pub(super) struct Request {
    topic: String,
    payload: Vec<u8>,
    token: String,
    /// The wait for an answer, before it doubles.
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
    /// To be sent at once.
    pub(super) fn new(
        now: Instant,
        timeout: Duration,
        topic: String,
        payload: Vec<u8>,
        token: String,
    ) -> Self {
        let next = Next::Send { answer_by: now + timeout };
        Self { topic, payload, token, timeout, failures: 0, next }
    }

    /// Not before `wait` is over.
    pub(super) fn delayed(mut self, now: Instant, wait: Duration) -> Self {
        self.next = Next::Retry { at: now + wait };
        self
    }

    /// Sends it again, whatever it was waiting for: the connection is new.
    pub(super) fn send_again(&mut self, now: Instant) {
        let answer_by = now + doubled(self.timeout, self.failures);
        self.next = Next::Send { answer_by };
    }

    /// The service asked for patience.
    pub(super) fn back_off(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.next = Next::Retry { at: now + backoff(self.failures, rng) };
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn tick(&mut self, now: Instant) {
        match self.next {
            Next::Answer { by } if by <= now => {
                self.failures = self.failures.saturating_add(1);
                self.send_again(now);
            }
            Next::Retry { at } if at <= now => self.send_again(now),
            _ => {}
        }
    }

    /// What to publish, once each time it falls due.
    pub(super) fn take(&mut self) -> Option<(String, Vec<u8>)> {
        let Next::Send { answer_by } = self.next else { return None };
        self.next = Next::Answer { by: answer_by };
        Some((self.topic.clone(), self.payload.clone()))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.next {
            Next::Send { .. } => None,
            Next::Answer { by: at } | Next::Retry { at } => Some(at),
        }
    }

    pub(super) fn is_answered_by(&self, token: Option<&str>) -> bool {
        token == Some(self.token.as_str())
    }

    /// A rejection of JSON that the service could not read names no token; its topic then has to do.
    pub(super) fn is_rejected_by(&self, topic: &str, rejection: &Rejection) -> bool {
        match &rejection.client_token {
            Some(token) => *token == self.token,
            None => topic.strip_suffix("/rejected") == Some(self.topic.as_str()),
        }
    }
}

/// 10 s doubling to 640 s, with full jitter: a fleet that was refused together does not come back together.
pub(super) fn backoff(failures: u32, rng: &mut fastrand::Rng) -> Duration {
    doubled(FIRST_BACKOFF, failures).mul_f64(rng.f64())
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(LONGEST_BACKOFF.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_to_its_limit_and_stays_there() {
        let caps: Vec<u64> =
            [0, 1, 2, 5, 6, 7, 40, u32::MAX].map(|n| doubled(FIRST_BACKOFF, n).as_secs()).into();
        assert_eq!(caps, [10, 20, 40, 320, 640, 640, 640, 640]);
        let mut rng = fastrand::Rng::with_seed(1);
        let waits: Vec<Duration> = (0..200).map(|_| backoff(3, &mut rng)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(80)));
        // Full jitter spreads over the whole interval.
        assert!(waits.iter().any(|wait| *wait < Duration::from_secs(10)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(70)));
    }

    #[test]
    fn a_request_is_sent_once_each_time_it_is_due() {
        let start = Instant::now();
        let mut request =
            Request::new(start, Duration::from_secs(10), "t".to_owned(), b"{}".to_vec(), "1".to_owned());
        assert!(request.take().is_some());
        assert_eq!(request.take(), None);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let due = request.deadline().unwrap();
            request.tick(due - Duration::from_millis(1));
            assert_eq!(request.take(), None);
            request.tick(due);
            assert!(request.take().is_some());
            waits.push((request.deadline().unwrap() - due).as_secs());
        }
        assert_eq!(waits, [20, 40, 80, 160]);
    }
}
