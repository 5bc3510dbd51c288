//! When something begins, as a crontab says it: minute, hour, day of month, month, day of week.

use std::str::FromStr;

/// One bit for each value that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// As it was written.
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both kinds of day are restricted: then one of them is enough, as in every cron.
    either_day: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error(
        "found {0:?}, expected five fields: minute, hour, day of month, month, day of week, like \"0 2 * * sat-sun\""
    )]
    Fields(String),
    #[error("{field}: found {found:?}, expected {expected}")]
    Field { field: &'static str, found: String, expected: String },
    #[error("found {0:?}, expected a day that the calendar has")]
    NoSuchDay(String),
}

struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    /// Beginning with the one for `low`.
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", low: 0, high: 59, names: &[] };
const HOUR: Field = Field { name: "hour", low: 0, high: 23, names: &[] };
const DAY: Field = Field { name: "day of month", low: 1, high: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// Sunday is 0 and 7.
const WEEKDAY: Field = Field {
    name: "day of week",
    low: 0,
    high: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"],
};

/// In a leap year.
const LONGEST: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl Schedule {
    /// `weekday`: Sunday is 0.
    pub fn has_day(&self, month: u8, day: u8, weekday: u8) -> bool {
        let (day, weekday) = (has(self.days, day), has(self.weekdays, weekday));
        has(self.months, month) && if self.either_day { day || weekday } else { day && weekday }
    }

    /// Hour and minute, on each day that it has.
    pub fn times(&self) -> impl Iterator<Item = (u8, u8)> {
        let hours = (HOUR.low..=HOUR.high).filter(|hour| has(self.hours, *hour));
        hours.flat_map(|hour| {
            let minutes = (MINUTE.low..=MINUTE.high).filter(|minute| has(self.minutes, *minute));
            minutes.map(move |minute| (hour, minute))
        })
    }

    fn is_ever(&self) -> bool {
        let exists = |(month, longest): (u8, u8)| {
            has(self.months, month) && (1..=longest).any(|day| has(self.days, day))
        };
        self.either_day || (1..).zip(LONGEST).any(exists)
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let fields: Vec<_> = text.split_ascii_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::Fields(text.to_owned()));
        };
        let weekdays = WEEKDAY.read(weekday)?;
        let schedule = Self {
            text: fields.join(" "),
            minutes: MINUTE.read(minute)?,
            hours: HOUR.read(hour)?,
            days: DAY.read(day)?,
            months: MONTH.read(month)?,
            weekdays: weekdays | weekdays >> 7 & 1,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        if schedule.is_ever() { Ok(schedule) } else { Err(ScheduleError::NoSuchDay(text.to_owned())) }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Field {
    fn read(&self, text: &str) -> Result<u64, ScheduleError> {
        text.split(',').try_fold(0, |set, item| {
            let range = self.range(item).ok_or_else(|| self.error(item))?;
            Ok(range.fold(set, |set, value| set | 1 << value))
        })
    }

    /// `*`, `5`, `1-5`, `*/2`, `1-5/2`.
    fn range(&self, item: &str) -> Option<impl Iterator<Item = u8> + use<>> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0)?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high),
            Some((first, last)) => (self.value(first)?, self.last(last)?),
            // A step has nothing to step through.
            None if step.is_some() => return None,
            None => (self.value(range)?, self.value(range)?),
        };
        (first <= last).then(|| (first..=last).step_by(usize::from(step.unwrap_or(1))))
    }

    fn value(&self, text: &str) -> Option<u8> {
        self.named(text, self.names.iter().position(|name| name.eq_ignore_ascii_case(text)))
    }

    /// Where a range ends, Sunday is the seventh day.
    fn last(&self, text: &str) -> Option<u8> {
        self.named(text, self.names.iter().rposition(|name| name.eq_ignore_ascii_case(text)))
    }

    fn named(&self, text: &str, position: Option<usize>) -> Option<u8> {
        match position {
            Some(position) => u8::try_from(position).ok().map(|position| self.low + position),
            None => number(text).filter(|value| (self.low..=self.high).contains(value)),
        }
    }

    fn error(&self, item: &str) -> ScheduleError {
        let Self { name, low, high, names } = self;
        let named = match (names.first(), names.last()) {
            (Some(first), Some(last)) => format!(" (or {first} to {last})"),
            _ => String::new(),
        };
        let expected = format!("{low} to {high}{named}, * or an upward range, with /STEP behind those two");
        ScheduleError::Field { field: name, found: item.to_owned(), expected }
    }
}

/// Digits alone: no sign.
fn number(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn has(set: u64, value: u8) -> bool {
    set.checked_shr(value.into()).is_some_and(|set| set & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    /// The set's values, to be compared by eye.
    fn values(set: u64) -> Vec<u8> {
        (0..64).filter(|value| has(set, *value)).collect()
    }

    #[test]
    fn fields_are_read_as_cron_reads_them() {
        let minutes = [
            ("0", vec![0]),
            ("59", vec![59]),
            ("1,5,3", vec![1, 3, 5]),
            ("10-13", vec![10, 11, 12, 13]),
            ("*/20", vec![0, 20, 40]),
            ("5-30/10,59", vec![5, 15, 25, 59]),
            ("*/60", vec![0]),
            ("007", vec![7]),
        ];
        for (text, expected) in minutes {
            assert_eq!(values(schedule(&format!("{text} 2 * * *")).minutes), expected, "{text}");
        }
        let weekdays = [
            ("0", vec![0]),
            ("7", vec![0, 7]),
            ("Sat-Sun", vec![0, 6, 7]),
            ("sun-tue", vec![0, 1, 2]),
            ("mon-FRI", vec![1, 2, 3, 4, 5]),
            ("5-7", vec![0, 5, 6, 7]),
        ];
        for (text, expected) in weekdays {
            assert_eq!(values(schedule(&format!("0 2 * * {text}")).weekdays), expected, "{text}");
        }
        assert_eq!(values(schedule("0 2 1 jan,Apr-jun *").months), [1, 4, 5, 6]);
        assert_eq!(
            schedule("15,45 1-2 * * *").times().collect::<Vec<_>>(),
            [(1, 15), (1, 45), (2, 15), (2, 45)]
        );
    }

    #[test]
    fn one_kind_of_day_is_enough_where_both_are_restricted() {
        // (schedule, is it on a Monday the 13th, on a Friday the 13th, on a Friday the 14th)
        let cases = [
            ("0 2 * * *", [true, true, true]),
            ("0 2 13 * *", [true, true, false]),
            ("0 2 * * fri", [false, true, true]),
            ("0 2 13 * fri", [true, true, true]),
            ("0 2 */13 * fri", [false, false, true]),
            ("0 2 13 feb *", [false, false, false]),
        ];
        for (text, expected) in cases {
            let schedule = schedule(text);
            let days = [(13, 1), (13, 5), (14, 5)].map(|(day, weekday)| schedule.has_day(3, day, weekday));
            assert_eq!(days, expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "found \"\", expected five fields"),
            ("@daily", "expected five fields"),
            ("0 2 * *", "expected five fields"),
            ("0 0 2 * * *", "expected five fields"),
            ("60 2 * * *", "minute: found \"60\", expected 0 to 59, *"),
            ("-1 2 * * *", "minute: found \"-1\""),
            ("+1 2 * * *", "minute: found \"+1\""),
            ("1,,2 2 * * *", "minute: found \"\""),
            ("5/10 2 * * *", "minute: found \"5/10\""),
            ("*/0 2 * * *", "minute: found \"*/0\""),
            ("*/1/2 2 * * *", "minute: found \"*/1/2\""),
            ("0 22-4 * * *", "hour: found \"22-4\", expected 0 to 23, * or an upward range"),
            ("0 256 * * *", "hour: found \"256\""),
            ("0 2 0 * *", "day of month: found \"0\""),
            ("0 2 * foo *", "month: found \"foo\", expected 1 to 12 (or jan to dec)"),
            ("0 2 * * 8", "day of week: found \"8\""),
            ("0 2 * * fri-mon", "day of week: found \"fri-mon\""),
            ("0 2 30 feb *", "expected a day that the calendar has"),
            ("0 2 31 4,6,9,11 *", "expected a day that the calendar has"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for fine in ["0 2 29 2 *", "0 2 30 feb mon", "* * * * *"] {
            schedule(fine);
        }
    }
}
