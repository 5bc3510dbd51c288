//! All of calendar arithmetic that this crate needs: Howard Hinnant's, where years begin in March and eras have 400.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-01-31T12:00:00Z`.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// A certificate's time: `YYMMDDHHMMSSZ` (UTCTime, of the years from 1950) or `YYYYMMDDHHMMSSZ` (GeneralizedTime).
/// What lies before 1970 is 1970.
pub(crate) fn parse_der(text: &[u8]) -> Option<SystemTime> {
    let digits = std::str::from_utf8(text.strip_suffix(b"Z")?).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match digits.len() {
        12 => {
            let year: u64 = digits.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, digits.get(2..)?)
        }
        14 => (digits.get(..4)?.parse().ok()?, digits.get(4..)?),
        _ => return None,
    };
    let number = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day, hour, minute, second) = (number(0)?, number(2)?, number(4)?, number(6)?, number(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if year < 1970 {
        return Some(UNIX_EPOCH);
    }
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_a_person_writes_them_and_read_as_a_certificate_does() {
        for (seconds, told, der) in [
            (0, "1970-01-01T00:00:00Z", "19700101000000Z"),
            (951_782_399, "2000-02-28T23:59:59Z", "000228235959Z"),
            (951_782_400, "2000-02-29T00:00:00Z", "000229000000Z"),
            (951_868_800, "2000-03-01T00:00:00Z", "20000301000000Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z", "251231235959Z"),
            (2_524_607_999, "2049-12-31T23:59:59Z", "491231235959Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "21000301000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z", "99991231235959Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(utc(time), told);
            assert_eq!(parse_der(der.as_bytes()), Some(time), "{der}");
        }
        assert_eq!(parse_der(b"500101000000Z"), Some(UNIX_EPOCH));
        for not in
            ["", "Z", "251231235959", "2512312359Z", "251331235959Z", "25123123595xZ", "25123123595\u{fc}Z"]
        {
            assert_eq!(parse_der(not.as_bytes()), None, "{not}");
        }
    }
}
