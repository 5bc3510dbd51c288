//! The cloud's clock: the machine's own, or one that stands still until it is moved.

use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engine::Time;

/// Both kinds can be moved: a real clock that was moved runs on from there.
#[derive(Debug)]
pub(crate) struct Clock {
    manual: bool,
    /// Milliseconds: the time itself when manual, the distance from the machine's time when real.
    value: AtomicI64,
}

impl Clock {
    pub(crate) fn new(kind: Kind) -> Clock {
        let (manual, value) = match kind {
            Kind::Real => (false, 0),
            Kind::Manual(at) => (true, at.millis()),
        };
        Clock { manual, value: AtomicI64::new(value) }
    }

    pub(crate) fn now(&self) -> Time {
        let value = self.value.load(Ordering::Acquire);
        if self.manual {
            Time::from_millis(value)
        } else {
            Time::from_millis(machine_millis().saturating_add(value))
        }
    }

    pub(crate) fn set(&self, to: Time) {
        let value = if self.manual { to.millis() } else { to.millis().saturating_sub(machine_millis()) };
        self.value.store(value, Ordering::Release);
    }

    /// How long to sleep until `at`; none when only somebody moving the clock can bring that about.
    pub(crate) fn until(&self, at: Time) -> Option<Duration> {
        let millis = at.millis().saturating_sub(self.now().millis()).max(0);
        (!self.manual).then(|| Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    }

    pub(crate) fn is_manual(&self) -> bool {
        self.manual
    }
}

/// The machine's own time: what clients sign their requests with, whatever the cloud's clock says.
pub(crate) fn machine_time() -> Time {
    Time::from_millis(machine_millis())
}

fn machine_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn system_time(at: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.millis()).unwrap_or(0))
}

/// Which clock, as the command line says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Real,
    Manual(Time),
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        if text == "real" {
            return Ok(Kind::Real);
        }
        let seconds = text.strip_prefix("manual:").and_then(|seconds| seconds.parse::<u32>().ok());
        let seconds =
            seconds.ok_or_else(|| format!("found `{text}`, expected `real` or `manual:EPOCH_SECONDS`"))?;
        Ok(Kind::Manual(Time::from_secs(i64::from(seconds))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_real_or_manual_with_whole_seconds() {
        assert_eq!("real".parse(), Ok(Kind::Real));
        assert_eq!("manual:1700000000".parse(), Ok(Kind::Manual(Time::from_secs(1_700_000_000))));
        for wrong in ["", "manual", "manual:", "manual:-1", "manual:1.5", "Real"] {
            assert!(wrong.parse::<Kind>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_manual_clock_stands_still_and_a_real_one_runs_on_from_where_it_was_put() {
        let manual = Clock::new(Kind::Manual(Time::from_secs(100)));
        assert_eq!(manual.now(), Time::from_secs(100));
        manual.set(Time::from_secs(160));
        assert_eq!(manual.now(), Time::from_secs(160));
        assert_eq!(manual.until(Time::from_secs(200)), None);

        let real = Clock::new(Kind::Real);
        let ahead = machine_time().plus_secs(3600);
        real.set(ahead);
        assert!(real.now() >= ahead);
        assert!(real.until(ahead.plus_secs(60)).is_some_and(|sleep| sleep <= Duration::from_secs(60)));
    }
}
