//! Is a body coming in fast enough? Only time spent waiting for the network counts: slow storage is not its fault.

use std::time::Duration;

use crate::Limits;

#[derive(Debug)]
pub(crate) struct Rate {
    window: Duration,
    /// Bytes that a window must bring.
    least: u64,
    waited: Duration,
    bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Slow,
    /// Nothing at all: the connection is as good as broken.
    Dead,
}

impl Rate {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            window: limits.rate_window,
            least: limits.least_per_window(),
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// How long to wait for more before asking [`add`](Self::add).
    pub(crate) fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited)
    }

    pub(crate) fn add(&mut self, waited: Duration, bytes: usize) -> Verdict {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < self.window {
            return Verdict::Fine;
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.waited = Duration::ZERO;
        match bytes {
            enough if enough >= self.least => Verdict::Fine,
            0 => Verdict::Dead,
            _ => Verdict::Slow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_judged_when_it_is_over() {
        let second = Duration::from_secs(1);
        let rate = |min_rate, rate_window| Rate::new(&Limits { min_rate, rate_window, ..Limits::default() });
        let unlimited = || rate(0, second);
        let mut rate = rate(100, 10 * second);
        assert_eq!(rate.add(9 * second, 0), Verdict::Fine);
        assert_eq!(rate.left(), second);
        assert_eq!(rate.add(second, 1000), Verdict::Fine, "a window's bytes may all come at its end");
        assert_eq!(rate.left(), 10 * second, "the next window has begun");
        assert_eq!(rate.add(10 * second, 999), Verdict::Slow);
        assert_eq!(rate.add(10 * second, 0), Verdict::Dead);
        assert_eq!(unlimited().add(second, 0), Verdict::Dead, "no minimum rate still notices a dead link");
        assert_eq!(unlimited().add(second, 1), Verdict::Fine);
    }
}
