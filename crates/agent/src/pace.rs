//! How often progress is reported: not too often, because each report is two metered messages and wakes a modem; and
//! often enough that the cloud's step timer, which sees a device that died, does not run out on one that works.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// Even with nothing new.
    at_least_every: Option<Duration>,
    last: Option<Instant>,
    waiting: bool,
}

impl Pace {
    pub fn new(interval: Duration, at_least_every: Option<Duration>) -> Self {
        Self { interval, at_least_every, last: None, waiting: false }
    }

    /// An update was sent: both times start again.
    pub fn sent(&mut self, now: Instant) {
        self.last = Some(now);
        self.waiting = false;
    }

    /// There is something new to report.
    pub fn changed(&mut self) {
        self.waiting = true;
    }

    /// Nothing runs any more that could be reported on.
    pub fn reset(&mut self) {
        (self.last, self.waiting) = (None, false);
    }

    /// When the next report should go out.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let new = self.waiting.then(|| self.last.map_or(now, |last| last + self.interval));
        let anyway = self.last.zip(self.at_least_every).map(|(last, time)| last + time);
        new.into_iter().chain(anyway).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_report_in_an_interval_and_the_last_is_not_lost() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Duration::from_secs(10), None);
        assert_eq!(pace.due(start), None);
        pace.sent(start);
        pace.changed();
        pace.changed();
        assert_eq!(pace.due(after(1)), Some(after(10)));
        pace.sent(after(10));
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
        let mut pace = Pace::new(Duration::from_secs(10), Some(Duration::from_secs(900)));
        assert_eq!(pace.due(start), None);
        pace.sent(start);
        assert_eq!(pace.due(start), Some(after(900)));
        pace.changed();
        assert_eq!(pace.due(start), Some(after(10)));
        pace.sent(after(10));
        assert_eq!(pace.due(start), Some(after(910)));
        pace.reset();
        assert_eq!(pace.due(after(1000)), None);
    }
}
