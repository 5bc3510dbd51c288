//! What to do after a start, and when the cloud offers an execution: two pure functions. Their truth table is
//! `docs/resume.md`; the tests below walk through it.

use crate::journal::{Entry, ExecutionId, Phase};
use crate::outcome::Outcome;

/// A kernel that has the same boot id after this many orders to reboot will not reboot.
pub(crate) const MAX_REBOOT_ATTEMPTS: u32 = 3;
/// An execution on which the agent ended this often, without being stopped, is failed instead of tried again.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// What is decided from the journal and the boot id alone, before there is any connection.
#[derive(Debug, Clone, PartialEq)]
pub enum AfterStart {
    /// Nothing is owed: remove what may lie beside the targets.
    Clean,
    /// Nothing has changed on the device: the cloud says whether to go on.
    AskCloud,
    /// The swap may be half done: finish it, whatever the network does.
    FinishActivation,
    FinishRollback,
    RebootAgain,
    Report(Outcome),
}

/// What to do with an execution that the cloud offers while nothing runs.
#[derive(Debug, Clone, PartialEq)]
pub enum OnOffer {
    /// Report IN_PROGRESS, wait until that is accepted, then begin.
    Begin,
    /// It is ours and accepted already: go on without saying so again.
    Continue,
    Report(Outcome),
}

pub fn after_start(entry: Option<&Entry>, boot_id: &str) -> AfterStart {
    let Some(entry) = entry else { return AfterStart::Clean };
    match &entry.phase {
        Phase::Reporting { outcome } => AfterStart::Report(outcome.clone()),
        Phase::RollingBack { .. } => AfterStart::FinishRollback,
        Phase::Rebooting { boot_id: before, .. } if before != boot_id => AfterStart::Report(rebooted()),
        Phase::Rebooting { attempts, .. } if *attempts >= MAX_REBOOT_ATTEMPTS => {
            AfterStart::Report(Outcome::failed(
                "reboot-did-not-happen",
                format!("the boot id is still {boot_id} after {attempts} attempts"),
            ))
        }
        Phase::Rebooting { .. } => AfterStart::RebootAgain,
        Phase::Activating { .. } if entry.attempts >= MAX_ATTEMPTS => AfterStart::FinishRollback,
        Phase::Activating { .. } => AfterStart::FinishActivation,
        Phase::Accepted | Phase::Downloading { .. } if entry.attempts >= MAX_ATTEMPTS => {
            AfterStart::Report(agent_crashed(entry.attempts))
        }
        Phase::Accepted | Phase::Downloading { .. } => AfterStart::AskCloud,
    }
}

/// `in_progress`: the cloud knows that it was begun. `rebooted_from`: the boot id that its status details name,
/// which a reboot leaves there before it happens.
pub fn on_offer(
    entry: Option<&Entry>,
    offered: &ExecutionId,
    in_progress: bool,
    rebooted_from: Option<&str>,
    boot_id: &str,
) -> OnOffer {
    match entry.filter(|entry| entry.execution == *offered) {
        Some(entry) => match &entry.phase {
            Phase::Reporting { outcome } => OnOffer::Report(outcome.clone()),
            _ if in_progress => OnOffer::Continue,
            _ => OnOffer::Begin,
        },
        // The state directory was lost over the reboot that this execution ordered: not once more.
        None if in_progress && rebooted_from.is_some_and(|before| before != boot_id) => {
            OnOffer::Report(rebooted())
        }
        None => OnOffer::Begin,
    }
}

fn rebooted() -> Outcome {
    Outcome::succeeded("rebooted", "the kernel has another boot id")
}

pub(crate) fn agent_crashed(attempts: u32) -> Outcome {
    Outcome::failed("agent-crashed", format!("the agent ended {attempts} times while it worked on this"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Before, Target};

    fn id(job_id: &str) -> ExecutionId {
        ExecutionId { job_id: job_id.into(), execution_number: 1, queued_at: 7 }
    }

    fn entry(attempts: u32, phase: Phase) -> Entry {
        Entry { execution: id("a"), attempts, phase }
    }

    fn digest() -> downloader::Digest {
        format!("sha256:{}", "00".repeat(32)).parse().unwrap()
    }

    fn failed() -> Outcome {
        Outcome::failed("command-failed", "exit code 1")
    }

    #[test]
    fn after_a_start() {
        let downloading = Phase::Downloading { digest: digest(), resume: Default::default() };
        let activating = Phase::Activating {
            target: Target::Firmware,
            digest: digest(),
            before: Before::Absent,
            commit: None,
        };
        let rolling_back =
            Phase::RollingBack { target: Target::Config, before: Before::Absent, outcome: failed() };
        let rebooting = |attempts| Phase::Rebooting { boot_id: "old".into(), attempts };
        let reporting = Phase::Reporting { outcome: failed() };
        let cases = [
            (None, "new", AfterStart::Clean),
            (Some(entry(1, Phase::Accepted)), "new", AfterStart::AskCloud),
            (Some(entry(3, Phase::Accepted)), "new", AfterStart::Report(agent_crashed(3))),
            (Some(entry(1, downloading.clone())), "new", AfterStart::AskCloud),
            (Some(entry(3, downloading)), "new", AfterStart::Report(agent_crashed(3))),
            (Some(entry(1, activating.clone())), "new", AfterStart::FinishActivation),
            (Some(entry(3, activating)), "new", AfterStart::FinishRollback),
            (Some(entry(9, rolling_back)), "new", AfterStart::FinishRollback),
            (Some(entry(9, reporting)), "new", AfterStart::Report(failed())),
            (Some(entry(9, rebooting(1))), "new", AfterStart::Report(rebooted())),
            (Some(entry(1, rebooting(3))), "new", AfterStart::Report(rebooted())),
            (Some(entry(1, rebooting(2))), "old", AfterStart::RebootAgain),
        ];
        for (entry, boot_id, expected) in cases {
            assert_eq!(after_start(entry.as_ref(), boot_id), expected, "{entry:?}");
        }
        let AfterStart::Report(outcome) = after_start(Some(&entry(1, rebooting(3))), "old") else { panic!() };
        assert_eq!(outcome.reason, "reboot-did-not-happen");
    }

    #[test]
    fn when_the_cloud_offers() {
        let ours = entry(1, Phase::Accepted);
        let reporting = entry(1, Phase::Reporting { outcome: failed() });
        let cases = [
            (None, "a", false, None, OnOffer::Begin),
            (None, "a", true, None, OnOffer::Begin),
            (None, "a", true, Some("boot"), OnOffer::Begin),
            (None, "a", true, Some("earlier"), OnOffer::Report(rebooted())),
            (None, "a", false, Some("earlier"), OnOffer::Begin),
            (Some(&ours), "a", false, None, OnOffer::Begin),
            (Some(&ours), "a", true, None, OnOffer::Continue),
            (Some(&ours), "b", false, None, OnOffer::Begin),
            (Some(&ours), "b", true, None, OnOffer::Begin),
            (Some(&reporting), "a", true, None, OnOffer::Report(failed())),
        ];
        for (entry, offered, in_progress, details, expected) in cases {
            let decided = on_offer(entry, &id(offered), in_progress, details, "boot");
            assert_eq!(decided, expected, "{entry:?} {offered} {in_progress} {details:?}");
        }
    }
}
