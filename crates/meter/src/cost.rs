//! The month of a fleet, message class by class, out of what one device sends and receives. All messages of a job fit in
//! one unit each: status details are made to, and documents that are not are said by the agent's log.

use crate::{Class, Count, Direction, Line};

/// Of US East (N. Virginia), the first billion messages of a month.
pub const DOLLARS_PER_MILLION: f64 = 1.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fleet {
    pub devices: u64,
    pub jobs_per_month: u64,
    /// Of each job, beside the first and the last status.
    pub progress_reports: u64,
    pub reconnects_per_month: u64,
    /// How often an idle device asks whether it missed something.
    pub asks_per_month: u64,
    /// Files that are kept as shadows desire.
    pub shadow_files: u64,
    /// Of each of them.
    pub shadow_changes_per_month: u64,
    /// Of the classic shadow, and of packages.
    pub shadow_reports_per_month: u64,
}

/// What happens, and what it costs one device each time.
const CONNECT: [(Class, Direction, u64); 4] = [
    (Class::Connect, Direction::Sent, 1),
    (Class::Subscribe, Direction::Sent, 1),
    (Class::JobsAsk, Direction::Sent, 1),
    (Class::JobsAsk, Direction::Received, 1),
];
const ASK: [(Class, Direction, u64); 2] =
    [(Class::JobsAsk, Direction::Sent, 1), (Class::JobsAsk, Direction::Received, 1)];
/// It is announced, begun and ended; when it has ended, the next one is announced, or that there is none.
const JOB: [(Class, Direction, u64); 3] = [
    (Class::JobsNotify, Direction::Received, 2),
    (Class::JobsUpdate, Direction::Sent, 2),
    (Class::JobsUpdate, Direction::Received, 2),
];
const REPORT: [(Class, Direction, u64); 2] =
    [(Class::JobsUpdate, Direction::Sent, 1), (Class::JobsUpdate, Direction::Received, 1)];

const SHADOW_ASK: [(Class, Direction, u64); 2] =
    [(Class::Shadow, Direction::Sent, 1), (Class::Shadow, Direction::Received, 1)];
/// What is desired comes in as an update and as a delta; what is in force is reported, and accepted.
const SHADOW_CHANGE: [(Class, Direction, u64); 2] =
    [(Class::Shadow, Direction::Sent, 1), (Class::Shadow, Direction::Received, 3)];

impl Fleet {
    /// Units of all devices in a month. Bytes are not known.
    pub fn month(&self) -> Vec<(Line, Count)> {
        let jobs = self.devices.saturating_mul(self.jobs_per_month);
        let files = self.devices.saturating_mul(self.shadow_files);
        let happens = [
            (&CONNECT[..], self.devices.saturating_mul(self.reconnects_per_month)),
            (&ASK[..], self.devices.saturating_mul(self.asks_per_month)),
            (&JOB[..], jobs),
            (&REPORT[..], jobs.saturating_mul(self.progress_reports)),
            (&SHADOW_ASK[..], files.saturating_mul(self.reconnects_per_month)),
            (&SHADOW_CHANGE[..], files.saturating_mul(self.shadow_changes_per_month)),
            (&SHADOW_ASK[..], self.devices.saturating_mul(self.shadow_reports_per_month)),
        ];
        let mut lines = std::collections::BTreeMap::<Line, Count>::new();
        for (messages, times) in happens {
            for (class, direction, each) in messages {
                let count = lines.entry(Line { class: *class, direction: *direction }).or_default();
                count.messages = count.messages.saturating_add(each.saturating_mul(times));
                count.units = count.messages;
            }
        }
        lines.into_iter().filter(|(_, count)| count.units > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(fleet: Fleet) -> u64 {
        fleet.month().iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(count.units))
    }

    #[test]
    fn a_job_is_six_units_a_report_two_a_reconnect_four_and_idling_none() {
        let idle = Fleet {
            devices: 1,
            jobs_per_month: 0,
            progress_reports: 9,
            reconnects_per_month: 0,
            asks_per_month: 0,
            shadow_files: 0,
            shadow_changes_per_month: 9,
            shadow_reports_per_month: 0,
        };
        assert_eq!(units(idle), 0);
        let file = Fleet { shadow_files: 1, shadow_changes_per_month: 0, ..idle };
        assert_eq!(units(Fleet { shadow_changes_per_month: 2, ..file }), 8);
        assert_eq!(units(Fleet { reconnects_per_month: 1, ..file }), 6);
        assert_eq!(units(Fleet { shadow_reports_per_month: 3, ..idle }), 6);
        assert_eq!(units(Fleet { jobs_per_month: 1, progress_reports: 0, ..idle }), 6);
        assert_eq!(units(Fleet { jobs_per_month: 1, progress_reports: 3, ..idle }), 12);
        assert_eq!(units(Fleet { reconnects_per_month: 1, ..idle }), 4);
        assert_eq!(units(Fleet { asks_per_month: 30, ..idle }), 60);
        assert_eq!(units(Fleet { devices: 10_000, jobs_per_month: 1, progress_reports: 0, ..idle }), 60_000);
        assert_eq!(
            units(Fleet { devices: u64::MAX, jobs_per_month: 2, progress_reports: 0, ..idle }),
            u64::MAX
        );
    }
}
