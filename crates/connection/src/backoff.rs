//! How long to wait between two connects.

use std::time::Duration;

/// Exponential, with full jitter between `min` and a ceiling that doubles up to `max`. The floor of `min` is there
/// because AWS takes one CONNECT a second per client id; the first ceiling is already twice that, so that a fleet
/// that lost its connection at one moment does not come back at one moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
    jitter: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max: max.max(min), ceiling: min, jitter: fastrand::Rng::with_seed(seed) }
    }

    pub(crate) fn next(&mut self) -> Duration {
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        let span = self.ceiling - self.min;
        self.min + span.mul_f64(self.jitter.f64())
    }

    pub(crate) fn reset(&mut self) {
        self.ceiling = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_ceiling_doubles_from_min_to_max_and_a_reset_starts_again() {
        let mut backoff = Backoff::new(s(1), s(32), 7);
        for round in 0..2 {
            for ceiling in [2, 4, 8, 16, 32, 32, 32] {
                let wait = backoff.next();
                assert!(
                    wait >= s(1) && wait <= s(ceiling),
                    "round {round}: {wait:?} is outside 1..={ceiling}"
                );
                assert_eq!(backoff.ceiling, s(ceiling));
            }
            backoff.reset();
        }
    }

    #[test]
    fn waits_fill_the_whole_span() {
        let waits: Vec<_> =
            (0..1000).map(|seed| Backoff::new(s(1), s(32), seed).next().as_secs_f64()).collect();
        let mean = waits.iter().sum::<f64>() / 1000.0;
        assert!((1.45..1.55).contains(&mean), "mean of U(1,2) is {mean}");
        assert!(waits.iter().any(|w| *w < 1.05) && waits.iter().any(|w| *w > 1.95));
    }

    #[test]
    fn odd_settings_are_harmless() {
        for (min, max, expected) in
            [(s(5), s(1), s(5)), (s(0), s(0), s(0)), (Duration::MAX, Duration::MAX, Duration::MAX)]
        {
            assert_eq!(Backoff::new(min, max, 0).next(), expected);
        }
    }
}
