//! How often progress is reported: not too often, because each report is two metered messages and wakes a modem; and
//! often enough that the cloud's step timer, which sees a device that died, does not run out on one that works.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// So long before the step timer ends, a report goes out even with nothing new.
    spare: Duration,
    last: Option<Instant>,
    feed_at: Option<Instant>,
    waiting: bool,
}

impl Pace {
    pub fn new(interval: Duration, spare: Duration) -> Self {
        Self { interval, spare, last: None, feed_at: None, waiting: false }
    }

    /// An update was sent, and has armed the cloud's step timer: both times start again.
    pub fn sent(&mut self, now: Instant, armed: Option<Duration>) {
        self.last = Some(now);
        self.feed_at = armed.map(|armed| now + armed.saturating_sub(self.spare));
        self.waiting = false;
    }

    /// There is something new to report.
    pub fn changed(&mut self) {
        self.waiting = true;
    }

    /// Nothing runs any more that could be reported on.
    pub fn reset(&mut self) {
        (self.last, self.feed_at, self.waiting) = (None, None, false);
    }

    /// When the next report should go out.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let new = self.waiting.then(|| self.last.map_or(now, |last| last + self.interval));
        new.into_iter().chain(self.feed_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_report_in_an_interval_and_the_last_is_not_lost() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Duration::from_secs(10), Duration::ZERO);
        assert_eq!(pace.due(start), None);
        pace.sent(start, None);
        pace.changed();
        pace.changed();
        assert_eq!(pace.due(after(1)), Some(after(10)));
        pace.sent(after(10), None);
        assert_eq!(pace.due(after(25)), None);
        pace.changed();
        assert_eq!(pace.due(after(25)), Some(after(20)));
        pace.reset();
        assert_eq!(pace.due(after(25)), None);
    }

    #[test]
    fn the_step_timer_is_fed_while_something_runs_and_only_then() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let step = Some(Duration::from_secs(1800));
        let mut pace = Pace::new(Duration::from_secs(10), Duration::from_secs(900));
        assert_eq!(pace.due(start), None);
        pace.sent(start, step);
        assert_eq!(pace.due(start), Some(after(900)));
        pace.changed();
        assert_eq!(pace.due(start), Some(after(10)));
        pace.sent(after(10), step);
        assert_eq!(pace.due(start), Some(after(910)));
        pace.reset();
        assert_eq!(pace.due(after(1000)), None);
    }

    /// It waits for six hours, and the step timer is armed for six and a half.
    #[test]
    fn a_wait_that_the_cloud_knows_of_is_not_reported_again() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(10), Duration::from_secs(900));
        pace.sent(start, Some(Duration::from_secs(6 * 3600 + 1800)));
        assert_eq!(pace.due(start), Some(start + Duration::from_secs(6 * 3600 + 900)));
    }
}
