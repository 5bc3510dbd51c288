//! How fast it goes, and how long it still takes.

use std::time::{Duration, Instant};

use dispatcher::Progress;

/// What is older counts no more: a link that became slow is slow.
const WINDOW: Duration = Duration::from_secs(15);
/// A rate of less time than this says nothing.
const ENOUGH: Duration = Duration::from_secs(1);

/// Two looks at one phase: the older one is that which rates are counted from.
#[derive(Debug, Clone)]
pub struct Rate {
    phase: &'static str,
    older: (Instant, u64),
    newer: (Instant, u64),
}

impl Rate {
    pub fn new(now: Instant) -> Self {
        Self { phase: "", older: (now, 0), newer: (now, 0) }
    }

    pub fn note(&mut self, now: Instant, progress: &Progress) {
        let seen = (now, progress.done);
        if progress.phase != self.phase || progress.done < self.newer.1 {
            *self = Self { phase: progress.phase, older: seen, newer: seen };
        } else if now - self.newer.0 >= WINDOW {
            (self.older, self.newer) = (self.newer, seen);
        }
    }

    /// So much of `done` in a second.
    pub fn per_second(&self, now: Instant, progress: &Progress) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.older.0);
        if progress.phase != self.phase || elapsed < ENOUGH {
            return None;
        }
        let done = progress.done.checked_sub(self.older.1)?;
        Some((done as f64 / elapsed.as_secs_f64()) as u64)
    }

    pub fn seconds_left(&self, now: Instant, progress: &Progress) -> Option<u64> {
        let rate = self.per_second(now, progress).filter(|rate| *rate > 0)?;
        Some(progress.total?.saturating_sub(progress.done).div_ceil(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_half_minute_of_this_phase() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let of = |done| Progress { done, total: Some(100_000), ..Progress::phase("downloading") };
        let mut rate = Rate::new(start);
        rate.note(start, &of(5_000));
        assert_eq!(rate.per_second(start, &of(5_000)), None);
        // A restart of the agent goes on in the middle: what was there before is no speed.
        assert_eq!(rate.per_second(at(5), &of(10_000)), Some(1_000));
        assert_eq!(rate.seconds_left(at(5), &of(10_000)), Some(90));
        rate.note(at(15), &of(20_000));
        rate.note(at(30), &of(20_150));
        assert_eq!(rate.per_second(at(30), &of(20_150)), Some(10));
        assert_eq!(rate.seconds_left(at(30), &of(20_150)), Some(7_985));
        // The object has changed, and begins again.
        rate.note(at(31), &of(0));
        assert_eq!(rate.per_second(at(33), &of(400)), Some(200));
        // It stands still, or is another phase.
        assert_eq!((rate.per_second(at(33), &of(0)), rate.seconds_left(at(33), &of(0))), (Some(0), None));
        assert_eq!(rate.per_second(at(33), &Progress::phase("verifying")), None);
    }
}
