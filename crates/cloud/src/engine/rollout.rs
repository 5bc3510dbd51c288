//! How many executions a job may make in a minute, and making them.

use super::Engine;
use super::config::RolloutConfig;
use super::interface::Time;
use super::model::Status;

const DEFAULT_PER_MINUTE: i64 = 1000;

/// Executions for the minute that begins, after `notified` things got theirs and `succeeded` reported success.
pub fn rate(config: Option<&RolloutConfig>, notified: u64, succeeded: u64) -> u64 {
    let maximum = config.and_then(|config| config.maximum_per_minute).unwrap_or(DEFAULT_PER_MINUTE);
    let maximum = u64::try_from(maximum).unwrap_or(1);
    let Some(exponential) = config.and_then(|config| config.exponential_rate.as_ref()) else {
        return maximum;
    };
    let criteria = &exponential.rate_increase_criteria;
    let passed = |count: u64, every: Option<i64>| {
        every
            .and_then(|every| u64::try_from(every).ok())
            .and_then(|every| count.checked_div(every))
            .unwrap_or(0)
    };
    let steps = passed(notified, criteria.number_of_notified_things)
        .max(passed(succeeded, criteria.number_of_succeeded_things));
    let steps = i32::try_from(steps).unwrap_or(i32::MAX);
    // Factors have one decimal; a hair above the product keeps 10 × 1.1² from being floored below 12.1.
    let grown = exponential.base_rate_per_minute as f64 * exponential.increment_factor.powi(steps) + 1e-6;
    if grown >= maximum as f64 { maximum } else { grown.floor() as u64 }
}

impl Engine {
    /// A minute boundary: makes this minute's executions and sets the timer for the next boundary.
    pub(super) fn rollout(&mut self, now: Time, job_id: &str) {
        let Some(job) = self.jobs.get(job_id) else { return };
        let config = job.config.job_executions_rollout_config.as_ref();
        let rate = rate(config, job.live.counts.total(), job.live.counts.of(Status::Succeeded));
        let turn: Vec<String> =
            job.live.waiting.values().take(usize::try_from(rate).unwrap_or(usize::MAX)).cloned().collect();
        for thing in turn {
            self.queue_execution(now, job_id, &thing, 0);
        }
        self.plan_rollout(now, job_id);
        self.complete_if_done(now, job_id);
    }

    fn plan_rollout(&mut self, now: Time, job_id: &str) {
        let Some(job) = self.jobs.get(job_id) else { return };
        let next = (!job.live.waiting.is_empty()).then(|| now.plus_minutes(1));
        self.edit_job(job_id, |job| job.next_rollout = next);
    }
}
