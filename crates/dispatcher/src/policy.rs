//! The device's own will: when it may be disturbed. Fetching disturbs nobody; putting firmware in force and rebooting do.

mod gate;
mod schedule;
mod window;
mod zone;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use schedule::{Schedule, ScheduleError};
pub use window::Window;
pub use zone::{Zone, ZoneError};

use crate::outcome::{Until, Wait};
use window::Time;

/// June 2026, when this was written. A clock that shows less was never set.
const WRITTEN: Time = 1_780_272_000;
/// Between two looks at the clock, which somebody may set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// None: at any time.
    pub windows: Vec<Window>,
    pub zone: Zone,
    /// How long after a "not now" the hook is asked again.
    pub hook_interval: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { windows: Vec::new(), zone: Zone::system(), hook_interval: Duration::from_secs(300) }
    }
}

/// Of the windows, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    Open,
    At(SystemTime),
    /// Before a clock is set, no window is open: that would be at a random time.
    ClockNotSet,
    /// The time zone cannot be known; that was said in the log.
    Unknown,
}

impl Policy {
    pub fn opening(&self, now: SystemTime) -> Opening {
        if self.windows.is_empty() {
            return Opening::Open;
        }
        let now = seconds(now);
        if now < WRITTEN {
            return Opening::ClockNotSet;
        }
        let zone = match self.zone.load() {
            Ok(zone) => zone,
            Err(error) => {
                tracing::error!(%error, "no maintenance window opens");
                return Opening::Unknown;
            }
        };
        if self.windows.iter().any(|window| window.is_open(now, &zone)) {
            return Opening::Open;
        }
        let next = self.windows.iter().filter_map(|window| window.next_opening(now, &zone)).min();
        match next.and_then(|next| u64::try_from(next).ok()) {
            Some(next) => Opening::At(UNIX_EPOCH + Duration::from_secs(next)),
            None => Opening::Unknown,
        }
    }

    /// What a closed window means: what to say, and how long to sleep before looking again. `None`: go on.
    pub(crate) fn closed(&self, now: SystemTime) -> Option<(Wait, Duration)> {
        match self.opening(now) {
            Opening::Open => None,
            Opening::At(opens) => {
                let left = opens.duration_since(now).unwrap_or_default();
                Some((Wait { until: Until::Time(opens), lasts: Some(left) }, left.min(LOOK_AGAIN)))
            }
            Opening::ClockNotSet => Some((Wait { until: Until::ClockSet, lasts: None }, LOOK_AGAIN)),
            Opening::Unknown => Some((Wait { until: Until::Unknown, lasts: None }, LOOK_AGAIN)),
        }
    }

    /// What a hook means that says "not now". Nobody knows how often it will.
    pub(crate) fn postponed(&self, now: SystemTime) -> (Wait, Duration) {
        (Wait { until: shown(self.hook_interval, now), lasts: None }, self.hook_interval)
    }
}

/// A wait that the monotonic clock measures.
pub(crate) fn delay(delay: Duration, now: SystemTime) -> Wait {
    Wait { until: shown(delay, now), lasts: Some(delay) }
}

/// What the wall clock will show then, if it shows anything.
fn shown(after: Duration, now: SystemTime) -> Until {
    if seconds(now) < WRITTEN { Until::Unknown } else { Until::Time(now + after) }
}

/// Before 1970: less than any time that counts.
fn seconds(time: SystemTime) -> Time {
    time.duration_since(UNIX_EPOCH).map_or(-1, |since| Time::try_from(since.as_secs()).unwrap_or(Time::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(windows: &[(&str, u32)], zone: &str) -> Policy {
        let windows = windows
            .iter()
            .map(|(start, minutes)| Window { start: start.parse().unwrap(), minutes: *minutes });
        Policy { windows: windows.collect(), zone: Zone::named(zone), ..Policy::default() }
    }

    fn at(seconds: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
    }

    /// Midnight of 1 January 2030, a Tuesday.
    const MIDNIGHT: i64 = 1_893_456_000;

    #[test]
    fn one_open_window_of_several_is_enough_and_the_next_is_the_soonest() {
        let policy = policy(&[("0 2 * * *", 60), ("0 12 * * *", 30)], "UTC");
        let cases = [
            (0, Opening::At(at(MIDNIGHT + 2 * 3600))),
            (2 * 3600, Opening::Open),
            (3 * 3600, Opening::At(at(MIDNIGHT + 12 * 3600))),
            (12 * 3600 + 1799, Opening::Open),
            (12 * 3600 + 1800, Opening::At(at(MIDNIGHT + 26 * 3600))),
        ];
        for (since, expected) in cases {
            assert_eq!(policy.opening(at(MIDNIGHT + since)), expected, "{since}");
        }
    }

    #[test]
    fn before_the_clock_is_set_windows_are_closed_and_without_windows_no_clock_is_needed() {
        let always = policy(&[("* * * * *", 1)], "UTC");
        for unset in [at(0), at(100), UNIX_EPOCH - Duration::from_secs(9), at(WRITTEN - 1)] {
            assert_eq!(always.opening(unset), Opening::ClockNotSet);
            assert_eq!(Policy::default().opening(unset), Opening::Open);
            assert_eq!(always.postponed(unset).0.until, Until::Unknown);
        }
        assert_eq!(always.opening(at(WRITTEN)), Opening::Open);
    }

    #[test]
    fn without_its_time_zone_no_window_opens() {
        assert_eq!(policy(&[("* * * * *", 1)], "No/Where").opening(at(MIDNIGHT)), Opening::Unknown);
    }

    /// A clock that is set meanwhile is noticed, and the opening itself is not slept through.
    #[test]
    fn the_clock_is_looked_at_each_minute() {
        let policy = policy(&[("0 2 * * *", 60)], "UTC");
        let (wait, sleep) = policy.closed(at(MIDNIGHT)).unwrap();
        assert_eq!((wait.lasts, sleep), (Some(Duration::from_secs(7200)), LOOK_AGAIN));
        let (wait, sleep) = policy.closed(at(MIDNIGHT + 7195)).unwrap();
        assert_eq!((wait.lasts, sleep), (Some(Duration::from_secs(5)), Duration::from_secs(5)));
        assert_eq!(policy.closed(at(MIDNIGHT + 7200)), None);
        assert_eq!(policy.closed(at(0)).unwrap().1, LOOK_AGAIN);
    }
}
