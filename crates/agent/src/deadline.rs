//! How long an operation may still take: as long as its document or the configuration allows, and never longer than
//! the cloud waits for it.
//!
//! The cloud tells how long it waits only when it is asked, and what it tells is the sooner of two timers: the job's
//! own, and the step timer, which we arm ourselves with every report. Only where it tells less than our step timer has
//! left, the job's own timer is the one that counts.

use std::time::{Duration, Instant};

/// Most operations are over before the question is worth its two metered messages.
const FIRST_LOOK: Duration = Duration::from_secs(120);
/// After each report the step timer is long again, and the job's own timer may show from behind it.
const LOOK_AFTER_REPORT: Duration = Duration::from_secs(10);
/// What the cloud tells is an estimate.
const SLACK: Duration = Duration::from_secs(90);
/// To end, undo and report before the cloud has given up.
const MARGIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Deadline {
    ours: Instant,
    /// Since when time does not count.
    paused: Option<Instant>,
    clouds: Option<Instant>,
    /// Whether there is a step timer, and when the last report's ends.
    steps: bool,
    step_ends: Option<Instant>,
    look_at: Option<Instant>,
}

impl Deadline {
    pub fn new(now: Instant, limit: Duration, step: Option<Duration>) -> Self {
        Self {
            ours: now + limit,
            paused: None,
            clouds: None,
            steps: step.is_some(),
            step_ends: None,
            look_at: Some(now + FIRST_LOOK),
        }
    }

    /// A report has armed the step timer. The first one is that of IN_PROGRESS.
    pub fn armed(&mut self, now: Instant, step: Duration) {
        if self.step_ends.replace(now + step).is_some() {
            self.look_at = Some(now + LOOK_AFTER_REPORT);
        }
    }

    pub fn cloud_waits(&mut self, now: Instant, left: Duration) {
        let step_left = match (self.steps, self.step_ends) {
            (false, _) => None,
            (true, Some(ends)) => Some(ends.saturating_duration_since(now)),
            // It runs since before a restart: what is told may be what is left of it.
            (true, None) => return,
        };
        if step_left.is_none_or(|step_left| left + SLACK < step_left) {
            let at = now + left.saturating_sub(MARGIN);
            self.clouds = Some(self.clouds.map_or(at, |clouds| clouds.min(at)));
        }
    }

    /// While it waits on purpose, for something whose time is known, our own limit stands still. The cloud's does not.
    pub fn pause(&mut self, now: Instant, waits: bool) {
        match self.paused {
            None if waits => self.paused = Some(now),
            Some(since) if !waits => {
                self.ours += now - since;
                self.paused = None;
            }
            _ => {}
        }
    }

    /// When something is to be done next.
    pub fn due(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.end()).min()
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.end().is_some_and(|end| end <= now)
    }

    fn end(&self) -> Option<Instant> {
        let ours = Some(self.ours).filter(|_| self.paused.is_none());
        ours.into_iter().chain(self.clouds).min()
    }

    /// Is the cloud to be asked? Says yes once each time.
    pub fn look(&mut self, now: Instant) -> bool {
        self.look_at.take_if(|at| *at <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    /// (the step timer, armed after, told after, what is told) and after how long the operation is over.
    #[test]
    fn the_sooner_of_ours_and_the_jobs_own_timer() {
        let cases = [
            (None, None, 2, minutes(20), minutes(22) - MARGIN),
            (None, None, 2, minutes(90), HOUR),
            (Some(minutes(30)), Some(0), 2, minutes(28), HOUR),
            (Some(minutes(30)), Some(0), 2, minutes(27), HOUR),
            (Some(minutes(30)), Some(0), 2, minutes(18), minutes(20) - MARGIN),
            (Some(minutes(30)), Some(15), 15, minutes(25), minutes(40) - MARGIN),
            (Some(minutes(30)), None, 2, minutes(1), HOUR),
            (None, None, 2, Duration::ZERO, minutes(2)),
        ];
        for (step, armed, told, left, expected) in cases {
            let start = Instant::now();
            let mut deadline = Deadline::new(start, HOUR, step);
            if let Some(armed) = armed {
                deadline.armed(start + minutes(armed), minutes(30));
            }
            deadline.cloud_waits(start + minutes(told), left);
            assert!(deadline.is_over(start + expected), "{step:?} {left:?}");
            assert!(!deadline.is_over(start + expected - Duration::from_secs(1)), "{step:?} {left:?}");
        }
    }

    #[test]
    fn the_cloud_is_asked_once_and_again_after_each_report() {
        let start = Instant::now();
        let mut deadline = Deadline::new(start, HOUR, Some(minutes(30)));
        deadline.armed(start, minutes(30));
        assert_eq!(deadline.due(), Some(start + FIRST_LOOK));
        assert!(!deadline.look(start));
        assert!(deadline.look(start + FIRST_LOOK) && !deadline.look(start + FIRST_LOOK));
        assert_eq!(deadline.due(), Some(start + HOUR));
        deadline.armed(start + minutes(15), minutes(30));
        assert!(deadline.look(start + minutes(16)));
    }

    #[test]
    fn a_wait_on_purpose_does_not_count_but_the_cloud_does_not_wait_for_it() {
        let start = Instant::now();
        let mut deadline = Deadline::new(start, HOUR, Some(minutes(30)));
        deadline.armed(start, minutes(30));
        deadline.look(start + FIRST_LOOK);
        deadline.pause(start + minutes(10), true);
        deadline.pause(start + minutes(20), true);
        assert_eq!(deadline.due(), None);
        assert!(!deadline.is_over(start + 100 * HOUR));
        deadline.pause(start + minutes(610), false);
        deadline.pause(start + minutes(620), false);
        assert_eq!(deadline.due(), Some(start + 11 * HOUR));
        deadline.pause(start + minutes(620), true);
        // The step timer is armed for a long wait, and the job's own timer shows from behind it.
        deadline.armed(start + minutes(620), 12 * HOUR);
        deadline.cloud_waits(start + minutes(621), HOUR);
        assert!(deadline.is_over(start + minutes(681)) && !deadline.is_over(start + minutes(680)));
    }
}
