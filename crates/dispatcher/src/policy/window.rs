//! A maintenance window: it opens at times of a [`Schedule`] in local time, and stays open for so many minutes.
//!
//! Where the clocks are put forward over a time at which it would open, it opens at the first moment after the gap:
//! a monthly window is not lost. Where they are put back, that time comes twice, and it opens twice. The minutes are
//! minutes that pass, whatever the clocks do.

use tz::datetime::FoundDateTimeKind;
use tz::{DateTime, TimeZone, UtcDateTime};

use super::schedule::Schedule;

const DAY: i64 = 24 * 60 * 60;
/// Between two leap days lie eight years at most (1896 to 1904, and again about 2100).
const HORIZON: i64 = 8 * 366;

/// Seconds since 1970.
pub type Time = i64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub start: Schedule,
    pub minutes: u32,
}

impl Window {
    pub fn is_open(&self, now: Time, zone: &TimeZone) -> bool {
        let length = i64::from(self.minutes) * 60;
        self.next_opening(now - length, zone).is_some_and(|opened| opened <= now)
    }

    /// The first time after `now` at which it opens, whether or not it is open. `None` where the zone's file does not
    /// say what the local time will be.
    pub fn next_opening(&self, now: Time, zone: &TimeZone) -> Option<Time> {
        let offset = zone.find_local_time_type(now).ok()?.ut_offset();
        let today = (now + i64::from(offset)).div_euclid(DAY);
        let mut first = None;
        for day in today - 1..today + HORIZON {
            let on_this_day = self.openings(day, zone)?.into_iter().filter(|time| *time > now).min();
            let before = first;
            first = before.into_iter().chain(on_this_day).min();
            // Where the clocks are put back over midnight, the next day may have begun once already.
            if before.is_some() {
                break;
            }
        }
        first
    }

    /// `day`: days since 1970, of the local calendar.
    fn openings(&self, day: i64, zone: &TimeZone) -> Option<Vec<Time>> {
        let date = UtcDateTime::from_timespec(day * DAY, 0).ok()?;
        let mut openings = Vec::new();
        if self.start.has_day(date.month(), date.month_day(), date.week_day()) {
            for (hour, minute) in self.start.times() {
                let (year, month, day) = (date.year(), date.month(), date.month_day());
                let found = DateTime::find(year, month, day, hour, minute, 0, 0, zone.as_ref()).ok()?;
                openings.extend(found.into_inner().into_iter().map(|found| match found {
                    FoundDateTimeKind::Normal(time) => time.unix_time(),
                    FoundDateTimeKind::Skipped { after_transition, .. } => after_transition.unix_time(),
                }));
            }
        }
        Some(openings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::zone::Zone;
    use super::*;

    fn zone(name: &str) -> TimeZone {
        Zone::named(name).load().unwrap()
    }

    fn window(start: &str, minutes: u32) -> Window {
        Window { start: start.parse().unwrap(), minutes }
    }

    /// `2026-03-29T01:30`, in UTC.
    fn utc(text: &str) -> Time {
        let number = |range: std::ops::Range<usize>| text[range].parse::<i32>().unwrap();
        let part = |range| number(range) as u8;
        let time = UtcDateTime::new(number(0..4), part(5..7), part(8..10), part(11..13), part(14..16), 0, 0);
        time.unwrap().unix_time()
    }

    fn next(start: &str, zone_name: &str, now: &str) -> String {
        let time = window(start, 60).next_opening(utc(now), &zone(zone_name)).unwrap();
        UtcDateTime::from_timespec(time, 0).unwrap().to_string()[..16].to_owned()
    }

    #[test]
    fn the_next_opening() {
        let berlin = "Europe/Berlin";
        let cases = [
            ("0 2 * * *", "UTC", "2026-06-01T01:59", "2026-06-01T02:00"),
            ("0 2 * * *", "UTC", "2026-06-01T02:00", "2026-06-02T02:00"),
            ("0 2 * * *", berlin, "2026-06-01T01:00", "2026-06-02T00:00"),
            ("0 2 * * *", berlin, "2026-12-01T00:59", "2026-12-01T01:00"),
            ("*/15 * * * *", "Asia/Kathmandu", "2026-06-01T00:00", "2026-06-01T00:15"),
            ("30 23 * * sat", "America/New_York", "2026-06-01T00:00", "2026-06-07T03:30"),
            ("0 0 29 2 *", "UTC", "2026-06-01T00:00", "2028-02-29T00:00"),
            ("0 0 29 2 *", "UTC", "2096-03-01T00:00", "2104-02-29T00:00"),
            // The hour from 02:00 is skipped on the last Sunday of March: it opens where that hour would have been.
            ("30 2 * * *", berlin, "2026-03-29T00:00", "2026-03-29T01:00"),
            ("30 2 29 3 *", berlin, "2026-03-29T00:59", "2026-03-29T01:00"),
            ("30 2 29 3 *", berlin, "2026-03-29T01:00", "2027-03-29T00:30"),
            // 02:30 comes twice on the last Sunday of October.
            ("30 2 * * *", berlin, "2026-10-25T00:00", "2026-10-25T00:30"),
            ("30 2 * * *", berlin, "2026-10-25T00:30", "2026-10-25T01:30"),
            ("30 2 * * *", berlin, "2026-10-25T01:30", "2026-10-26T01:30"),
            // Half an hour back.
            ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:45", "2026-04-04T15:15"),
            // Samoa has had no 30 December 2011.
            ("0 12 30 12 *", "Pacific/Apia", "2011-12-30T00:00", "2011-12-30T10:00"),
            // In Newfoundland the clocks went back at 00:01, into the day before.
            ("30 23 6 11 *", "America/St_Johns", "2010-11-07T02:31", "2010-11-07T03:00"),
        ];
        for (start, zone, now, expected) in cases {
            assert_eq!(next(start, zone, now), expected, "{start} in {zone} after {now}");
        }
    }

    #[test]
    fn it_is_open_from_its_first_second_until_the_last_before_its_end() {
        let berlin = zone("Europe/Berlin");
        let over_midnight = window("0 22 * * sat", 360);
        let cases = [
            ("2026-06-06T19:59", false),
            ("2026-06-06T20:00", true),
            ("2026-06-07T01:59", true),
            ("2026-06-07T02:00", false),
            ("2026-06-07T20:00", false),
        ];
        for (now, open) in cases {
            assert_eq!(over_midnight.is_open(utc(now), &berlin), open, "{now}");
        }
        assert!(over_midnight.is_open(utc("2026-06-07T02:00") - 1, &berlin));
        // As long as its period: never closed.
        let always = window("0 0 * * mon", 7 * 24 * 60);
        assert!((0..1000).all(|hours| always.is_open(utc("2026-06-01T00:00") + hours * 3600, &zone("UTC"))));
    }

    #[test]
    fn its_minutes_are_those_that_pass() {
        let (berlin, window) = (zone("Europe/Berlin"), window("0 1 * * *", 120));
        // From 01:00 to 04:00, or to 02:00 for the second time.
        for day in ["2026-03-29", "2026-10-25"] {
            let midnight = utc(&format!("{day}T00:00"));
            let opened = (-120..240).filter(|minute| window.is_open(midnight + minute * 60, &berlin)).count();
            assert_eq!(opened, 120, "{day}");
        }
    }

    #[test]
    fn a_zone_that_does_not_know_the_future_opens_nothing() {
        let empty = TimeZone::new(
            vec![tz::timezone::Transition::new(0, 0)],
            vec![tz::timezone::LocalTimeType::utc()],
            vec![],
            None,
        );
        let (empty, window) = (empty.unwrap(), window("* * * * *", 5));
        assert_eq!(window.next_opening(utc("2026-06-01T00:00"), &empty), None);
        assert!(!window.is_open(utc("2026-06-01T00:00"), &empty));
        for time in [i64::MAX / 2, i64::MIN / 2] {
            assert_eq!(window.next_opening(time, &zone("Europe/Berlin")), None);
        }
    }

    /// The slow way: at each minute, which minutes has the local clock passed since the one before? Usually one, in a
    /// gap many, and none is passed backwards.
    fn opens(start: &Schedule, time: Time, zone: &TimeZone) -> bool {
        let local = |time: Time| time + i64::from(zone.find_local_time_type(time).unwrap().ut_offset());
        let (before, now) = (local(time - 60), local(time));
        let begin = if before < now { before + 60 } else { now };
        (begin..=now).step_by(60).any(|local| {
            let local = UtcDateTime::from_timespec(local, 0).unwrap();
            start.has_day(local.month(), local.month_day(), local.week_day())
                && start.times().any(|time| time == (local.hour(), local.minute()))
        })
    }

    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Pacific/Chatham",
        "Africa/Casablanca",
    ];

    fn field(low: u8, high: u8) -> impl Strategy<Value = String> {
        prop_oneof![
            2 => Just("*".to_owned()),
            2 => (low..=high).prop_map(|value| value.to_string()),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (1..=high).prop_map(|step| format!("*/{step}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        /// Two days round a moment that is often close to a change of the clocks.
        #[test]
        fn it_agrees_with_the_slow_way(
            name in prop::sample::select(&ZONES[..]),
            (minute, hour) in (field(0, 59), field(0, 23)),
            (day, weekday) in (field(1, 31), field(0, 7)),
            near in prop::sample::select(&["2026-03-08T07:00", "2026-03-29T01:00", "2026-04-04T15:00",
                "2010-11-07T02:31", "2026-10-25T01:00", "2026-11-01T06:00", "2026-02-28T23:00"][..]),
            minutes in prop_oneof![1u32..120, 1440u32..1500],
        ) {
            let zone = zone(name);
            // A schedule that no calendar has is refused elsewhere.
            let start: Schedule = format!("{minute} {hour} {day} * {weekday}").parse().unwrap();
            let window = Window { start, minutes };
            let (begin, end) = (utc(near) - 36 * 3600, utc(near) + 12 * 3600);
            let opened: Vec<Time> =
                (begin..=end).step_by(60).filter(|time| opens(&window.start, *time, &zone)).collect();
            let length = i64::from(minutes) * 60;
            for now in (begin..end).step_by(127 * 60) {
                let next = opened.iter().find(|opened| **opened > now).copied();
                let found = window.next_opening(now, &zone).filter(|next| *next <= end);
                prop_assert_eq!(found, next, "after {}", now);
                let open = opened.iter().any(|opened| (now - length + 1..=now).contains(opened));
                // What opened before the two days is not known here.
                if open || now >= begin + length {
                    prop_assert_eq!(window.is_open(now, &zone), open, "at {}", now);
                }
            }
        }
    }
}
