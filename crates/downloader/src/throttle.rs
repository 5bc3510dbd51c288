//! No faster than configured: after each piece, a pause that makes up for it. The server is slowed down by TCP, which
//! has room for so much and no more.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes a second; 0 is without a limit.
    rate: u64,
    /// When what was taken so far is paid for.
    free_at: Instant,
}

impl Throttle {
    pub(crate) fn new(rate: u64, now: Instant) -> Self {
        Self { rate, free_at: now }
    }

    /// When the next read may be. Time in which nothing came is not saved up.
    pub(crate) fn took(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        let costs = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.free_at = self.free_at.max(now) + costs;
        Some(self.free_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pieces_are_paid_for_one_after_the_other() {
        let start = Instant::now();
        let mut throttle = Throttle::new(1000, start);
        assert_eq!(throttle.took(1000, start), Some(start + SECOND));
        // Read at once, late, or on time: two thousand bytes are two seconds.
        assert_eq!(throttle.took(500, start), Some(start + SECOND * 3 / 2));
        assert_eq!(throttle.took(500, start + SECOND * 3 / 2), Some(start + 2 * SECOND));
    }

    #[test]
    fn a_quiet_minute_is_not_made_up_for() {
        let start = Instant::now();
        let mut throttle = Throttle::new(1000, start);
        assert_eq!(throttle.took(1000, start + 60 * SECOND), Some(start + 61 * SECOND));
    }

    #[test]
    fn without_a_limit_there_is_no_pause() {
        assert_eq!(Throttle::new(0, Instant::now()).took(usize::MAX, Instant::now()), None);
    }
}
