//! Days and minutes of the calendar in UTC, and AWS's six-field cron.

use super::interface::Time;

const MINUTES_A_DAY: i64 = 24 * 60;

/// Days since 1970-01-01 of a date.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// (year, month, day) of a day number.
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    day_number(next_year, next, 1) - day_number(year, month, 1)
}

/// `YYYY-MM-DD HH:MM` in UTC; also with a `T`, with seconds, and with `Z` or an offset.
pub fn parse_moment(text: &str) -> Option<Time> {
    let (date, rest) = text.trim().split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (clock, offset) = match rest.find(['Z', '+', '-']) {
        None => (rest, 0),
        Some(at) => (rest.get(..at)?, offset_minutes(rest.get(at..)?)?),
    };
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let second = parts.next().map_or(Some(0.0), |second| second.parse::<f64>().ok())?;
    let plausible = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..60.0).contains(&second);
    let minutes = || day_number(year, month, day) * MINUTES_A_DAY + hour * 60 + minute - offset;
    plausible.then(|| Time::from_secs(minutes() * 60 + second as i64))
}

fn offset_minutes(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) = (digits.get(..2)?.parse::<i64>().ok()?, digits.get(2..4)?.parse::<i64>().ok()?);
    (digits.len() == 4).then_some(sign * (hours * 60 + minutes))
}

/// `YYYY-MM-DD HH:MM`, the form in which AWS shows moments of a schedule.
pub fn show_moment(time: Time) -> String {
    let minutes = time.secs().div_euclid(60);
    let (year, month, day) = date(minutes.div_euclid(MINUTES_A_DAY));
    let of_day = minutes.rem_euclid(MINUTES_A_DAY);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", of_day / 60, of_day % 60)
}

/// `cron(minute hour day-of-month month day-of-week year)`; `*`, `?`, lists, ranges, steps and names.
#[derive(Clone, Debug, PartialEq)]
pub struct Cron {
    minutes: Vec<i64>,
    hours: Vec<i64>,
    days: Vec<i64>,
    months: Vec<i64>,
    /// 1 is Sunday.
    weekdays: Vec<i64>,
    years: Vec<i64>,
}

const MONTHS: &[&str] = &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Cron {
    pub fn parse(text: &str) -> Option<Cron> {
        let inner = text.trim().strip_prefix("cron(")?.strip_suffix(')')?;
        let fields: Vec<&str> = inner.split_whitespace().collect();
        let [minute, hour, day, month, weekday, year] = fields.as_slice() else { return None };
        Some(Cron {
            minutes: field(minute, 0, 59, &[])?,
            hours: field(hour, 0, 23, &[])?,
            days: field(day, 1, 31, &[])?,
            months: field(month, 1, 12, MONTHS)?,
            weekdays: field(weekday, 1, 7, WEEKDAYS)?,
            years: field(year, 1970, 2199, &[])?,
        })
    }

    /// The moments in `from..=until`, in order, at most `most`.
    pub fn moments(&self, from: Time, until: Time, most: usize) -> Vec<Time> {
        let days = from.secs().div_euclid(86_400)..=until.secs().div_euclid(86_400);
        let of_day = |day: i64| {
            let hours = self.hours.iter().copied().filter(move |_| self.has_day(day));
            hours.flat_map(move |hour| {
                self.minutes
                    .iter()
                    .map(move |minute| Time::from_secs(day * 86_400 + hour * 3600 + minute * 60))
            })
        };
        days.flat_map(of_day).filter(|at| (from..=until).contains(at)).take(most).collect()
    }

    fn has_day(&self, day: i64) -> bool {
        let (year, month, of_month) = date(day);
        let weekday = (day + 4).rem_euclid(7) + 1;
        self.years.contains(&year)
            && self.months.contains(&month)
            && self.days.contains(&of_month)
            && self.weekdays.contains(&weekday)
    }
}

fn field(text: &str, low: i64, high: i64, names: &[&str]) -> Option<Vec<i64>> {
    let number = |text: &str| {
        let name = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match name {
            Some(position) => i64::try_from(position).ok()? + low,
            None => text.parse().ok()?,
        };
        (low..=high).contains(&value).then_some(value)
    };
    let mut values = Vec::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(step.parse::<usize>().ok().filter(|step| *step > 0)?)),
        };
        let (first, last) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (low, high),
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, if step.is_some() { high } else { number(range)? }),
        };
        values.extend((first..=last).step_by(step.unwrap_or(1)));
    }
    values.sort_unstable();
    values.dedup();
    (!values.is_empty()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_shown() {
        let cases = [
            ("2023-11-14 22:13", 1_699_999_980),
            ("2023-11-14T22:13", 1_699_999_980),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000),
            ("2024-02-29 00:00", 1_709_164_800),
            ("2000-03-01 00:00", 951_868_800),
        ];
        for (text, secs) in cases {
            assert_eq!(parse_moment(text), Some(Time::from_secs(secs)), "{text}");
        }
        assert_eq!(show_moment(Time::from_secs(1_700_000_000)), "2023-11-14 22:13");
        for day in (0..200_000).step_by(37) {
            let (y, m, d) = date(day);
            assert_eq!(day_number(y, m, d), day);
        }
    }

    #[test]
    fn nonsense_is_no_moment() {
        for text in [
            "",
            "2023-11-14",
            "2023-13-01 00:00",
            "2023-02-29 00:00",
            "2023-11-14 24:00",
            "a-b-c d:e",
            "2023-11-14T10:00+1",
            "9223372036854775807-01-01 00:00",
        ] {
            assert_eq!(parse_moment(text), None, "{text}");
        }
    }

    #[test]
    fn cron_fields() {
        let all = Time::from_secs(1_700_000_000);
        let first = |text: &str| {
            Cron::parse(text)
                .unwrap()
                .moments(all, all.plus_minutes(60 * 24 * 40), 1)
                .first()
                .map(|t| show_moment(*t))
        };
        // 2023-11-14 was a Tuesday; the search begins at 22:13:20.
        assert_eq!(first("cron(0 23 * * ? *)").as_deref(), Some("2023-11-14 23:00"));
        assert_eq!(first("cron(0 18 * * ? *)").as_deref(), Some("2023-11-15 18:00"));
        assert_eq!(first("cron(0/15 * * * ? *)").as_deref(), Some("2023-11-14 22:15"));
        assert_eq!(first("cron(30 6 ? * MON-FRI *)").as_deref(), Some("2023-11-15 06:30"));
        assert_eq!(first("cron(0 6 ? * SUN *)").as_deref(), Some("2023-11-19 06:00"));
        assert_eq!(first("cron(0 6 1 DEC ? *)").as_deref(), Some("2023-12-01 06:00"));
        assert_eq!(first("cron(0 6 1 * ? 2030)"), None);
    }

    #[test]
    fn cron_that_is_none() {
        for text in [
            "",
            "0 18 * * ? *",
            "cron(0 18 * * ?)",
            "cron(60 18 * * ? *)",
            "cron(x 1 * * ? *)",
            "cron(0/0 1 * * ? *)",
            "cron(0 1 L * ? *)",
        ] {
            assert_eq!(Cron::parse(text), None, "{text}");
        }
    }
}
