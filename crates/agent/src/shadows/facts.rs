//! What the device says of itself in the classic shadow. Coarse where it changes all the time, because a message costs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ::shadow::{Members, Session};
use connection::{Validity, utc};
use serde_json::{Value, json};

use crate::config::{Member, Report};
use crate::history::Settled;
use crate::status::Firmware;

/// How often it is looked at, where the loop turns at all.
const EVERY: Duration = Duration::from_secs(60);
/// Less than this is no news.
const PERCENT: u64 = 10;
const MINUTES: Duration = Duration::from_secs(120);

/// What is known elsewhere in the agent.
pub struct Facts<'a> {
    pub firmware: &'a Firmware,
    pub certificate: Option<Validity>,
    /// The last job that the cloud knows the end of.
    pub last: Option<&'a Settled>,
}

pub struct Classic {
    report: Report,
    pub session: Session,
    state_directory: PathBuf,
    looked: Option<Instant>,
    free: Option<u64>,
    booted: Option<SystemTime>,
}

impl Classic {
    pub fn new(report: Report, session: Session, state_directory: &Path) -> Self {
        let state_directory = state_directory.to_owned();
        Self { report, session, state_directory, looked: None, free: None, booted: None }
    }

    pub fn look_again(&mut self) {
        self.looked = None;
    }

    pub fn note(&mut self, now: Instant, facts: &Facts<'_>) {
        if self.looked.is_some_and(|looked| now - looked < EVERY) {
            return;
        }
        self.looked = Some(now);
        self.free = settled(self.free, free_percent(&self.state_directory), PERCENT);
        let booted = boot_time().filter(|booted| {
            let before = self.booted.unwrap_or(SystemTime::UNIX_EPOCH);
            let apart = booted.duration_since(before).or_else(|_| before.duration_since(*booted));
            apart.is_ok_and(|apart| apart >= MINUTES)
        });
        self.booted = booted.or(self.booted);
        let is = self.members(facts);
        self.session.report(now, &is);
    }

    fn members(&self, facts: &Facts<'_>) -> Members {
        let said = Member::ALL.into_iter().filter(|member| !self.report.without.contains(member));
        said.filter_map(|member| Some((member.name().to_owned(), self.value(member, facts)?))).collect()
    }

    fn value(&self, member: Member, facts: &Facts<'_>) -> Option<Value> {
        match member {
            Member::Agent => Some(json!({"version": env!("CARGO_PKG_VERSION")})),
            Member::Firmware => serde_json::to_value(facts.firmware).ok().filter(|value| *value != json!({})),
            Member::Job => facts.last.map(|Settled { execution, update, .. }| {
                let reason = update.details.get("reason");
                json!({"jobId": execution.job_id.as_str(), "status": update.status.name(), "reason": reason})
            }),
            Member::BootTime => self.booted.map(|booted| utc(booted).into()),
            Member::FreeSpace => self.free.map(Value::from),
            Member::Certificate => {
                facts.certificate.map(|validity| json!({"expires": utc(validity.not_after)}))
            }
        }
    }
}

/// A new value only where it is news.
fn settled(before: Option<u64>, now: Option<u64>, news: u64) -> Option<u64> {
    match (before, now) {
        (Some(before), Some(now)) if before.abs_diff(now) < news => Some(before),
        (_, Some(now)) => Some(now / 5 * 5),
        (before, None) => before,
    }
}

fn free_percent(folder: &Path) -> Option<u64> {
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    let (free, all) = (found.blocks_available(), found.blocks());
    (free.saturating_mul(100)).checked_div(all)
}

/// To the minute: the kernel reckons it from a clock that is still being set.
fn boot_time() -> Option<SystemTime> {
    release::plausible(SystemTime::now())?;
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds: u64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds / 60 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_little_is_no_news() {
        let said = [43, 47, 52, 53, 60, 64, 39].into_iter().scan(None, |before, now| {
            *before = settled(*before, Some(now), PERCENT);
            *before
        });
        assert_eq!(said.collect::<Vec<_>>(), [40, 40, 50, 50, 60, 60, 35]);
        assert_eq!(settled(Some(40), None, PERCENT), Some(40));
        assert!(free_percent(Path::new("/")).unwrap() <= 100);
        assert!(boot_time().unwrap() < SystemTime::now());
    }
}
