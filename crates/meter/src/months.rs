//! A tally of each month: the bill is by the month, and in UTC.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Tally;

/// A year, and the month that it is.
const KEPT: usize = 13;

/// `2026-11`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Month(String);

impl Month {
    /// Of a clock that is far off, the month that it says: what was sent was sent.
    pub fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let date =
            i64::try_from(seconds).ok().and_then(|seconds| tz::UtcDateTime::from_timespec(seconds, 0).ok());
        Self(date.map_or("1970-01".to_owned(), |date| format!("{:04}-{:02}", date.year(), date.month())))
    }
}

impl Month {
    /// The one before it.
    pub fn previous(&self) -> Option<Self> {
        let (year, month) = self.0.split_once('-')?;
        let (year, month): (u32, u32) = (year.parse().ok()?, month.parse().ok()?);
        let (year, month) = if month > 1 { (year, month - 1) } else { (year.checked_sub(1)?, 12) };
        Some(Self(format!("{year:04}-{month:02}")))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Months(BTreeMap<Month, Tally>);

impl Months {
    pub fn add(&mut self, month: Month, tally: &Tally) {
        if tally.is_empty() {
            return;
        }
        self.0.entry(month).or_default().merge(tally);
        while self.0.len() > KEPT {
            self.0.pop_first();
        }
    }

    pub fn get(&self, month: &Month) -> Option<&Tally> {
        self.0.get(month)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Month, &Tally)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Class, Direction};

    fn at(seconds: u64) -> Month {
        Month::of(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn a_month_ends_at_midnight_utc() {
        let cases = [
            (0, "1970-01"),
            (1_793_491_199, "2026-10"),
            (1_793_491_200, "2026-11"),
            (4_102_444_800, "2100-01"),
            (u64::MAX / 2, "1970-01"),
        ];
        for (seconds, expected) in cases {
            if let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
                assert_eq!(Month::of(time).to_string(), expected, "{seconds}");
            }
        }
        assert_eq!(Month::of(UNIX_EPOCH - Duration::from_secs(1)).to_string(), "1970-01");
    }

    #[test]
    fn before_january_is_december() {
        let previous = |month: &str| Month(month.to_owned()).previous().map(|month| month.to_string());
        for (month, expected) in
            [("2026-11", Some("2026-10")), ("2027-01", Some("2026-12")), ("0000-01", None)]
        {
            assert_eq!(previous(month).as_deref(), expected, "{month}");
        }
        // Of a file that somebody wrote by hand.
        assert_eq!(previous("november"), None);
    }

    #[test]
    fn the_oldest_months_go() {
        let mut tally = Tally::default();
        tally.count(Class::Connect, Direction::Sent, 20);
        let mut months = Months::default();
        for month in 0..40 {
            months.add(at(month * 31 * 24 * 3600), &tally);
            months.add(at(month * 31 * 24 * 3600), &tally);
        }
        assert_eq!(months.iter().count(), KEPT);
        assert!(months.get(&at(0)).is_none());
        assert_eq!(months.get(&at(39 * 31 * 24 * 3600)).map(Tally::units), Some(2));
    }
}
