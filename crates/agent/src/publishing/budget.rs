//! How much may be taken at a time. Pure: `now` is passed in.

use std::time::{Duration, Instant};

/// Bytes that come back at a rate, up to so many.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: u64,
    most: u64,
    left: u64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(per_second: u64, most: u64, now: Instant) -> Self {
        Self { per_second, most, left: most, at: now }
    }

    /// Beyond what is left is nothing: the last one is taken as a whole.
    pub(super) fn spend(&mut self, now: Instant, bytes: usize) {
        self.refill(now);
        self.left = self.left.saturating_sub(bytes as u64);
    }

    /// When there is something again, if there is nothing now.
    pub(super) fn empty_until(&mut self, now: Instant) -> Option<Instant> {
        self.refill(now);
        (self.left == 0).then(|| now + Duration::from_millis(100))
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_millis().min(60_000) as u64;
        let back = passed * self.per_second / 1000;
        if back > 0 {
            self.left = self.left.saturating_add(back).min(self.most);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_comes_back_at_the_rate() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut budget = Budget::new(1000, 500, start);
        assert_eq!(budget.empty_until(start), None);
        budget.spend(start, 500);
        assert_eq!(budget.empty_until(start), Some(at(100)));
        assert_eq!(budget.empty_until(at(100)), None);
        budget.spend(at(100), 60);
        budget.spend(at(100), 4000);
        assert!(budget.empty_until(at(100)).is_some());
        // No more than at first, however long nothing was spent.
        budget.spend(at(100_000), 499);
        assert_eq!(budget.empty_until(at(100_000)), None);
        budget.spend(at(100_000), 1);
        assert!(budget.empty_until(at(100_000)).is_some());
    }
}
