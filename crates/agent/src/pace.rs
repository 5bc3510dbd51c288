//! How often progress may be reported: each report is two metered messages, and wakes a modem.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// Reports before this have to wait.
    next: Option<Instant>,
    waiting: bool,
}

impl Pace {
    pub fn new(interval: Duration) -> Self {
        Self { interval, next: None, waiting: false }
    }

    /// An update was sent anyway: the interval starts again.
    pub fn sent(&mut self, now: Instant) {
        self.next = Some(now + self.interval);
        self.waiting = false;
    }

    /// There is something new to report.
    pub fn changed(&mut self) {
        self.waiting = true;
    }

    /// What was to be reported is not of interest any more.
    pub fn reset(&mut self) {
        self.waiting = false;
    }

    /// When the new should be reported; `None` while there is nothing new.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.waiting.then(|| self.next.unwrap_or(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_report_in_an_interval_and_the_last_is_not_lost() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Duration::from_secs(10));
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
}
