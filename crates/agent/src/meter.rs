//! What the link cost, month by month, kept over restarts.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use device::{Durability, write_atomically};
use meter::{Month, Months, Tally};

use crate::status::{LastMonth, Metered};

/// A link that comes and goes writes no more often.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
pub struct Meter {
    path: PathBuf,
    months: Months,
    written: Option<Instant>,
}

impl Meter {
    /// A file that cannot be read is begun anew: nothing depends on it but somebody's curiosity.
    pub fn open(state_directory: &Path) -> Self {
        let path = state_directory.join("meter.json");
        let months = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the meter cannot be read, and is begun anew");
                Months::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Months::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the meter cannot be read");
                Months::default()
            }
        };
        Self { path, months, written: None }
    }

    /// What a person sees of it.
    pub fn report(&self) -> Metered {
        let month = Month::of(SystemTime::now());
        let lines = self.months.get(&month).cloned().unwrap_or_default();
        let before = month.previous().and_then(|month| {
            let units = self.months.get(&month)?.units();
            Some(LastMonth { month, units })
        });
        Metered { month, units: lines.units(), lines, last_month: before }
    }

    pub fn add(&mut self, tally: &Tally) {
        self.months.add(Month::of(SystemTime::now()), tally);
    }

    /// A job has ended since: the next time that nothing is pending, it is written.
    pub fn job_ended(&mut self) {
        self.written = None;
    }

    pub fn save_if_due(&mut self) {
        if self.written.is_none_or(|written| written.elapsed() >= INTERVAL) {
            self.save();
        }
    }

    /// Synced: a file that is empty after a power cut would have lost the month.
    pub fn save(&mut self) {
        self.written = Some(Instant::now());
        let written = serde_json::to_vec(&self.months)
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&self.path, &bytes, Durability::PowerCut));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "the meter cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use meter::{Class, Direction};

    use super::*;

    #[test]
    fn a_month_goes_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut tally = Tally::default();
        tally.count(Class::Connect, Direction::Sent, 20);
        for starts in 1..=3 {
            let mut meter = Meter::open(folder.path());
            meter.add(&tally);
            meter.save_if_due();
            // What comes within the hour is written when a job has ended, or at the stop.
            meter.add(&Tally::default());
            meter.save_if_due();
            let units: u64 = meter.months.iter().map(|(_, tally)| tally.units()).sum();
            assert_eq!(units, starts);
        }
        std::fs::write(folder.path().join("meter.json"), b"{torn").unwrap();
        assert_eq!(Meter::open(folder.path()).months, Months::default());
    }
}
