//! When a job may run: start time, end time, maintenance windows.

use serde::{Deserialize, Serialize};

use super::Engine;
use super::calendar::{Cron, parse_moment};
use super::errors::Violation;
use super::interface::Time;
use super::lifecycle::{Cancellation, at_limit};
use super::model::JobStatus;
use super::names::named;
use super::validate::{Input, Text, broken};

named!(EndBehavior { StopRollout = "STOP_ROLLOUT", Cancel = "CANCEL", ForceCancel = "FORCE_CANCEL" });

const DAY_MINUTES: i64 = 24 * 60;
/// How far ahead windows are looked for: a cron may name one day in four years.
const HORIZON_MINUTES: i64 = 4 * 366 * DAY_MINUTES;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchedulingConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_behavior: Option<EndBehavior>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maintenance_windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    pub start_time: String,
    pub duration_in_minutes: i64,
}

impl Window {
    pub fn parse_list(input: &Input) -> Result<Vec<Window>, Violation> {
        let window = |item: Input| {
            let start_time = item.need("startTime", item.text("startTime", &Text::any(1..=256))?)?;
            if Cron::parse(&start_time).is_none() {
                let rule = "be a cron expression such as cron(0 18 * * ? *)";
                return Err(broken(&item.path("startTime"), &start_time, rule));
            }
            let minutes = item.integer("durationInMinutes", 1..=1430)?;
            Ok(Window { start_time, duration_in_minutes: item.need("durationInMinutes", minutes)? })
        };
        let list = input.children("maintenanceWindows", 0..=usize::MAX)?.unwrap_or_default();
        list.into_iter().map(window).collect()
    }

    fn starts(&self, from: Time, until: Time, most: usize) -> Vec<Time> {
        Cron::parse(&self.start_time).map(|cron| cron.moments(from, until, most)).unwrap_or_default()
    }

    fn is_open(&self, at: Time) -> bool {
        // Open from its start until just before start + duration.
        let earliest = Time::from_millis(at.plus_minutes(-self.duration_in_minutes).millis() + 1);
        !self.starts(earliest, at, 1).is_empty()
    }
}

impl SchedulingConfig {
    pub fn parse(now: Time, input: &Input) -> Result<SchedulingConfig, Violation> {
        let moment = |name: &str| -> Result<Option<(String, Time)>, Violation> {
            let Some(text) = input.text(name, &Text::any(1..=64))? else { return Ok(None) };
            let rule = "have the form YYYY-MM-DD HH:MM";
            let at = parse_moment(&text).ok_or_else(|| broken(&input.path(name), &text, rule))?;
            Ok(Some((text, at)))
        };
        let in_span =
            |name: &str, value: &Option<(String, Time)>, from: Time, until: Time, rule: &str| match value {
                Some((text, at)) if *at < from || *at > until => Err(broken(&input.path(name), text, rule)),
                _ => Ok(()),
            };
        let (start, end) = (moment("startTime")?, moment("endTime")?);
        let soon = now.plus_minutes(30);
        let year = 366 * DAY_MINUTES;
        in_span("startTime", &start, soon, now.plus_minutes(year), "be 30 minutes to one year ahead")?;
        in_span("endTime", &end, soon, now.plus_minutes(2 * year), "be 30 minutes to two years ahead")?;
        if let Some((_, start)) = &start {
            let far = now.plus_minutes(3 * year);
            in_span("endTime", &end, start.plus_minutes(30), far, "be at least 30 minutes after startTime")?;
        }
        Ok(SchedulingConfig {
            start_time: start.map(|(text, _)| text),
            end_time: end.map(|(text, _)| text),
            end_behavior: input.choice("endBehavior")?,
            maintenance_windows: Window::parse_list(input)?,
        })
    }

    fn start(&self) -> Option<Time> {
        self.start_time.as_deref().and_then(parse_moment)
    }

    pub fn end(&self) -> Option<Time> {
        self.end_time.as_deref().and_then(parse_moment)
    }

    pub fn is_open(&self, at: Time) -> bool {
        let windows = &self.maintenance_windows;
        self.start().is_none_or(|start| at >= start)
            && (windows.is_empty() || windows.iter().any(|window| window.is_open(at)))
    }

    /// The next moment after `now` at which the schedule may say something else.
    pub fn next_change(&self, now: Time) -> Option<Time> {
        let after = Time::from_millis(now.millis() + 1);
        let opens = self.next_starts(now, 1).into_iter();
        let closes = self.maintenance_windows.iter().filter_map(|window| {
            let from = after.plus_minutes(-window.duration_in_minutes);
            let start = window.starts(from, now.plus_minutes(HORIZON_MINUTES), 1).first().copied()?;
            Some(start.plus_minutes(window.duration_in_minutes))
        });
        let fixed = [self.start(), self.end()].into_iter().flatten();
        fixed.chain(opens).chain(closes).filter(|at| *at > now).min()
    }

    /// The next window starts after `now`.
    pub fn next_starts(&self, now: Time, most: usize) -> Vec<Time> {
        let from = Time::from_millis(now.millis() + 1).max(self.start().unwrap_or(now));
        let until = self.end().unwrap_or(now.plus_minutes(HORIZON_MINUTES));
        let mut starts: Vec<Time> =
            self.maintenance_windows.iter().flat_map(|window| window.starts(from, until, most)).collect();
        starts.sort_unstable();
        starts.truncate(most);
        starts
    }
}

impl Engine {
    /// A moment of the job's schedule has come.
    pub(super) fn phase(&mut self, now: Time, job_id: &str) {
        let Some(job) = self.jobs.get(job_id).filter(|job| job.status.is_active()) else { return };
        let Some(schedule) = job.scheduling.clone() else { return };
        let (selection, first) = (job.selection, !job.started);
        if schedule.end().is_some_and(|end| now >= end) {
            self.end_time(now, job_id, schedule.end_behavior.unwrap_or(EndBehavior::StopRollout));
            return;
        }
        let (open, was_open) = (schedule.is_open(now), job.is_visible());
        self.edit_job(job_id, |job| job.next_phase = schedule.next_change(now));
        if open && !was_open {
            if first && at_limit(&self.jobs, selection, &self.settings.compat) {
                let comment = Some("The limit of active jobs was reached at the job's start time".to_owned());
                let reason_code = Some("ACTIVE_JOBS_LIMIT_EXCEEDED".to_owned());
                self.cancel_job(now, job_id, Cancellation { force: false, reason_code, comment });
            } else {
                self.open(now, job_id);
            }
        } else if was_open && !open {
            self.edit_job(job_id, |job| {
                job.status = JobStatus::Scheduled;
                job.updated_at = now;
            });
        }
    }

    /// The job runs, from here on its minutes are counted.
    pub(super) fn open(&mut self, now: Time, job_id: &str) {
        self.edit_job(job_id, |job| {
            job.status = JobStatus::InProgress;
            job.started = true;
            job.updated_at = now;
        });
        self.rollout(now, job_id);
    }

    fn end_time(&mut self, now: Time, job_id: &str, behavior: EndBehavior) {
        match behavior {
            EndBehavior::StopRollout => {
                self.edit_job(job_id, |job| {
                    job.status = JobStatus::InProgress;
                    job.started = true;
                    job.ended = true;
                    job.next_phase = None;
                    job.next_rollout = None;
                    job.updated_at = now;
                });
                self.stop_waiting(job_id);
                self.complete_if_done(now, job_id);
            }
            EndBehavior::Cancel | EndBehavior::ForceCancel => {
                let force = behavior == EndBehavior::ForceCancel;
                self.edit_job(job_id, |job| job.ended = true);
                self.cancel_job(now, job_id, Cancellation { force, reason_code: None, comment: None });
            }
        }
    }
}
