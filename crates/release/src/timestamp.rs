//! RFC 3339, as far as a moment needs it.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A moment from 1970 to 9999, and the text that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    text: String,
    time: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a time like 2030-12-31T23:59:59Z or 2030-12-31T23:59:59+02:00")]
pub struct TimestampError;

impl Timestamp {
    pub fn time(&self) -> SystemTime {
        self.time
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let seconds = seconds(text).and_then(|seconds| u64::try_from(seconds).ok()).ok_or(TimestampError)?;
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(TimestampError)?;
        Ok(Self { text: text.to_owned(), time })
    }
}

/// Seconds since 1970. Fractions of a second are not understood: nothing that is signed needs them.
fn seconds(text: &str) -> Option<i64> {
    let (date_and_time, zone) = text.split_at_checked(19)?;
    let pattern = |c: char| if c.is_ascii_digit() { '0' } else { c };
    if date_and_time.chars().map(pattern).collect::<String>() != "0000-00-00T00:00:00" {
        return None;
    }
    let number = |from, to| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let local = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(local - offset(zone)?)
}

/// Years begin in March, so that a leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_march = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before_march + (153 * month + 2) / 5 + day - 1 - 719_468
}

fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = match zone.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let two_digits = |text: &str| {
        let good = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if good { text.parse::<i64>().ok() } else { None }
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds are those of `date -u -d … +%s`.
    #[test]
    fn moments_are_those_of_the_calendar() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-01T00:00:00Z", 1_793_491_200),
            ("2028-02-29T23:59:59-05:30", 1_835_501_399),
            ("2038-01-19T03:14:08Z", 2_147_483_648),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ];
        for (text, expected) in cases {
            let read: Timestamp = text.parse().unwrap();
            assert_eq!(read.time().duration_since(UNIX_EPOCH).unwrap().as_secs(), expected, "{text}");
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2030",
            "2030-01-01",
            "2030-01-01T00:00:00",
            "2030-01-01 00:00:00Z",
            "2030-13-01T00:00:00Z",
            "2030-00-01T00:00:00Z",
            "2030-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2030-04-31T00:00:00Z",
            "2030-01-00T00:00:00Z",
            "2030-01-01T24:00:00Z",
            "2030-01-01T00:60:00Z",
            "2030-01-01T00:00:60Z",
            "2030-01-01T00:00:00z",
            "2030-01-01T00:00:00.5Z",
            "2030-01-01T00:00:00+0100",
            "2030-01-01T00:00:00+1:00",
            "2030-01-01T00:00:00+24:00",
            "1969-12-31T23:59:59Z",
            "+030-01-01T00:00:00Z",
            "2030-01-01T00:00:0éZ",
            "1970-01-01T00:00:00+01:00",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }
}
