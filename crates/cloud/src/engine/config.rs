//! How a job is to run: rollout, abort, timeout, retry, signing. The same members on jobs and templates.

use serde::{Deserialize, Serialize};

use super::compat::Compat;
use super::errors::Violation;
use super::names::named;
use super::validate::{Input, Text, broken};

named!(FailureType { Failed = "FAILED", Rejected = "REJECTED", TimedOut = "TIMED_OUT", All = "ALL" });
named!(RetryType { Failed = "FAILED", TimedOut = "TIMED_OUT", All = "ALL" });
named!(AbortAction { Cancel = "CANCEL" });

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presigned_url_config: Option<PresignedUrlConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_executions_rollout_config: Option<RolloutConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_config: Option<AbortConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_config: Option<TimeoutConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_executions_retry_config: Option<RetryConfig>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresignedUrlConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    pub expires_in_sec: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_per_minute: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential_rate: Option<ExponentialRate>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExponentialRate {
    pub base_rate_per_minute: i64,
    pub increment_factor: f64,
    pub rate_increase_criteria: RateIncreaseCriteria,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateIncreaseCriteria {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_notified_things: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_succeeded_things: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbortConfig {
    pub criteria_list: Vec<AbortCriteria>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbortCriteria {
    pub failure_type: FailureType,
    pub action: AbortAction,
    pub threshold_percentage: f64,
    pub min_number_of_executed_things: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeoutConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_progress_timeout_in_minutes: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryConfig {
    pub criteria_list: Vec<RetryCriteria>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryCriteria {
    pub failure_type: RetryType,
    pub number_of_retries: i64,
}

impl JobConfig {
    pub fn parse(input: &Input, compat: &Compat) -> Result<JobConfig, Violation> {
        let of = |name| input.child(name);
        Ok(JobConfig {
            presigned_url_config: of("presignedUrlConfig")?.map(|part| presigned(&part)).transpose()?,
            job_executions_rollout_config: of("jobExecutionsRolloutConfig")?
                .map(|part| rollout(&part, compat))
                .transpose()?,
            abort_config: of("abortConfig")?.map(|part| abort(&part)).transpose()?,
            timeout_config: of("timeoutConfig")?.map(|part| timeout(&part)).transpose()?,
            job_executions_retry_config: of("jobExecutionsRetryConfig")?
                .map(|part| retry(&part))
                .transpose()?,
        })
    }

    /// What this leaves open is taken from `base`, a template or the job before its update.
    pub fn or(self, base: JobConfig) -> JobConfig {
        JobConfig {
            presigned_url_config: self.presigned_url_config.or(base.presigned_url_config),
            job_executions_rollout_config: self
                .job_executions_rollout_config
                .or(base.job_executions_rollout_config),
            abort_config: self.abort_config.or(base.abort_config),
            timeout_config: self.timeout_config.or(base.timeout_config),
            job_executions_retry_config: self
                .job_executions_retry_config
                .or(base.job_executions_retry_config),
        }
    }

    /// Rules between members: retries of TIMED_OUT need a timer that can run out.
    pub fn check(&self) -> Result<(), Violation> {
        let retried = |config: &RetryConfig| {
            config
                .criteria_list
                .iter()
                .any(|c| c.failure_type == RetryType::TimedOut && c.number_of_retries > 0)
        };
        if self.job_executions_retry_config.as_ref().is_some_and(retried)
            && self.in_progress_minutes().is_none()
        {
            return Err(Violation(
                "Value null at 'timeoutConfig' failed to satisfy constraint: \
                 Member must not be null when TIMED_OUT executions are retried"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    pub fn in_progress_minutes(&self) -> Option<i64> {
        self.timeout_config.as_ref().and_then(|config| config.in_progress_timeout_in_minutes)
    }

    /// Lifetime of signed URLs, in seconds.
    pub fn expires_in(&self) -> u32 {
        let seconds = self.presigned_url_config.as_ref().map_or(3600, |config| config.expires_in_sec);
        u32::try_from(seconds).unwrap_or(3600)
    }
}

fn presigned(input: &Input) -> Result<PresignedUrlConfig, Violation> {
    Ok(PresignedUrlConfig {
        role_arn: input.text("roleArn", &Text::any(20..=2048))?,
        expires_in_sec: input.integer("expiresInSec", 60..=3600)?.unwrap_or(3600),
    })
}

fn rollout(input: &Input, compat: &Compat) -> Result<RolloutConfig, Violation> {
    let highest =
        if compat.maximum_per_minute == 0 { i64::from(i32::MAX) } else { compat.maximum_per_minute.into() };
    let mut maximum = input.integer("maximumPerMinute", 1..=highest)?;
    let rate = match input.child("exponentialRate")? {
        None => None,
        Some(rate) => {
            if compat.nested_maximum.on() && maximum.is_none() {
                maximum = rate.integer("maximumPerMinute", 1..=highest)?;
            }
            Some(exponential(&rate)?)
        }
    };
    Ok(RolloutConfig { maximum_per_minute: maximum, exponential_rate: rate })
}

fn exponential(input: &Input) -> Result<ExponentialRate, Violation> {
    let base = input.need("baseRatePerMinute", input.integer("baseRatePerMinute", 1..=1000)?)?;
    let factor = input.need("incrementFactor", input.number("incrementFactor", 1.1..=5.0)?)?;
    decimals(input, "incrementFactor", factor, 1)?;
    let criteria = input.need("rateIncreaseCriteria", input.child("rateIncreaseCriteria")?)?;
    let notified = criteria.integer("numberOfNotifiedThings", 1..=i64::from(i32::MAX))?;
    let succeeded = criteria.integer("numberOfSucceededThings", 1..=i64::from(i32::MAX))?;
    if notified.is_none() {
        criteria.need("numberOfNotifiedThings", succeeded)?;
    }
    Ok(ExponentialRate {
        base_rate_per_minute: base,
        increment_factor: factor,
        rate_increase_criteria: RateIncreaseCriteria {
            number_of_notified_things: notified,
            number_of_succeeded_things: succeeded,
        },
    })
}

fn decimals(input: &Input, name: &str, value: f64, digits: i32) -> Result<(), Violation> {
    let scaled = value * 10f64.powi(digits);
    if (scaled - scaled.round()).abs() > 1e-6 {
        let rule = format!("have at most {digits} digits after the decimal point");
        return Err(broken(&input.path(name), &value.to_string(), &rule));
    }
    Ok(())
}

fn abort(input: &Input) -> Result<AbortConfig, Violation> {
    let list = input.need("criteriaList", input.children("criteriaList", 1..=usize::MAX)?)?;
    let criteria = |item: Input| {
        let threshold = item.need("thresholdPercentage", item.number("thresholdPercentage", 0.0..=100.0)?)?;
        decimals(&item, "thresholdPercentage", threshold, 2)?;
        Ok(AbortCriteria {
            failure_type: item.need("failureType", item.choice("failureType")?)?,
            action: item.need("action", item.choice("action")?)?,
            threshold_percentage: threshold,
            min_number_of_executed_things: item.need(
                "minNumberOfExecutedThings",
                item.integer("minNumberOfExecutedThings", 1..=i64::from(i32::MAX))?,
            )?,
        })
    };
    Ok(AbortConfig { criteria_list: list.into_iter().map(criteria).collect::<Result<_, _>>()? })
}

fn timeout(input: &Input) -> Result<TimeoutConfig, Violation> {
    let minutes = input.integer("inProgressTimeoutInMinutes", 1..=10080)?;
    Ok(TimeoutConfig { in_progress_timeout_in_minutes: minutes })
}

fn retry(input: &Input) -> Result<RetryConfig, Violation> {
    let list = input.need("criteriaList", input.children("criteriaList", 1..=2)?)?;
    let criteria = |item: Input| {
        Ok(RetryCriteria {
            failure_type: item.need("failureType", item.choice("failureType")?)?,
            number_of_retries: item.need("numberOfRetries", item.integer("numberOfRetries", 0..=10)?)?,
        })
    };
    let list: Vec<RetryCriteria> = list.into_iter().map(criteria).collect::<Result<_, _>>()?;
    let path = input.path("criteriaList");
    let total: i64 = list.iter().map(|c| c.number_of_retries).sum();
    if total > 10 {
        return Err(broken(&path, &total.to_string(), "have at most 10 retries in total"));
    }
    if let [first, second] = list.as_slice()
        && (first.failure_type == second.failure_type
            || [first, second].iter().any(|c| c.failure_type == RetryType::All))
    {
        return Err(broken(&path, "[2 members]", "name each failure type once"));
    }
    Ok(RetryConfig { criteria_list: list })
}
