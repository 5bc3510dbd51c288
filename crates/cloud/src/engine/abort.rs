//! When a job's failures are too many.

use super::compat::AbortBase;
use super::config::{AbortConfig, AbortCriteria, FailureType};
use super::model::{Counts, Status};
use super::names::Named;

/// The first criterion that is met, in the words that the job will carry.
pub fn verdict(config: Option<&AbortConfig>, counts: &Counts, base: AbortBase) -> Option<String> {
    let hit = config?.criteria_list.iter().find(|criterion| is_met(criterion, counts, base))?;
    let (kind, percent) = (hit.failure_type.name(), hit.threshold_percentage);
    Some(format!(
        "Job was canceled automatically: the threshold of {percent} percent for {kind} executions was reached"
    ))
}

fn is_met(criterion: &AbortCriteria, counts: &Counts, base: AbortBase) -> bool {
    let base = match base {
        AbortBase::Finished => counts.finished(),
        AbortBase::Notified => counts.total(),
    };
    let failed = match criterion.failure_type {
        FailureType::Failed => counts.of(Status::Failed),
        FailureType::Rejected => counts.of(Status::Rejected),
        FailureType::TimedOut => counts.of(Status::TimedOut),
        FailureType::All => counts.finished() - counts.of(Status::Succeeded),
    };
    let least = u64::try_from(criterion.min_number_of_executed_things).unwrap_or(u64::MAX);
    base > 0 && base >= least && 100.0 * failed as f64 >= criterion.threshold_percentage * base as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config::AbortAction;

    fn counts(list: &[(Status, usize)]) -> Counts {
        let mut counts = Counts::default();
        for (status, times) in list {
            (0..*times).for_each(|_| counts.add(*status));
        }
        counts
    }

    fn config(kind: FailureType, percent: f64, least: i64) -> AbortConfig {
        AbortConfig {
            criteria_list: vec![AbortCriteria {
                failure_type: kind,
                action: AbortAction::Cancel,
                threshold_percentage: percent,
                min_number_of_executed_things: least,
            }],
        }
    }

    #[test]
    fn table() {
        use FailureType::{All, Failed};
        use Status::{Canceled, Failed as F, Queued, Rejected, Removed, Succeeded, TimedOut};
        type Case = (FailureType, f64, i64, &'static [(Status, usize)], bool);
        let cases: &[Case] = &[
            (Failed, 50.0, 2, &[(F, 1), (Succeeded, 1)], true),
            (Failed, 50.0, 3, &[(F, 1), (Succeeded, 1)], false),
            (Failed, 50.01, 2, &[(F, 1), (Succeeded, 1)], false),
            (Failed, 33.33, 3, &[(F, 1), (Succeeded, 2)], true),
            (Failed, 66.67, 3, &[(F, 2), (Succeeded, 1)], false),
            (Failed, 10.0, 1, &[(Rejected, 5)], false),
            (All, 100.0, 3, &[(Rejected, 1), (TimedOut, 1), (F, 1)], true),
            // What was canceled or removed is neither a failure nor finished.
            (All, 100.0, 1, &[(F, 1), (Canceled, 9), (Removed, 9), (Queued, 9)], true),
            (All, 1.0, 1, &[(Canceled, 9), (Removed, 9)], false),
        ];
        for (kind, percent, least, list, expected) in cases {
            let hit = verdict(Some(&config(*kind, *percent, *least)), &counts(list), AbortBase::Finished);
            assert_eq!(hit.is_some(), *expected, "{kind:?} {percent} {least} {list:?}");
        }
    }

    #[test]
    fn a_zero_threshold_waits_for_the_first_thing() {
        let config = config(FailureType::Failed, 0.0, 1);
        assert!(verdict(Some(&config), &Counts::default(), AbortBase::Finished).is_none());
    }
}
