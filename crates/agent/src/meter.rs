//! What the link cost, month by month, kept over restarts.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use device::{Durability, write_atomically};
use meter::{Month, Months, Tally};

#[derive(Debug)]
pub struct Meter {
    path: PathBuf,
    months: Months,
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
        Self { path, months }
    }

    /// Written when something is done anyway, and not synced: no disk is woken for it.
    pub fn add(&mut self, tally: &Tally) {
        if tally.is_empty() {
            return;
        }
        self.months.add(Month::of(SystemTime::now()), tally);
        let written = serde_json::to_vec(&self.months)
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&self.path, &bytes, Durability::Process));
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
            meter.add(&Tally::default());
            meter.add(&tally);
            let units: u64 = meter.months.iter().map(|(_, tally)| tally.units()).sum();
            assert_eq!(units, starts);
        }
        std::fs::write(folder.path().join("meter.json"), b"{torn").unwrap();
        assert_eq!(Meter::open(folder.path()).months, Months::default());
    }
}
