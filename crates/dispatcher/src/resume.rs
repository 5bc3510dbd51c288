//! What to do after a start, and when the cloud offers an execution: two pure functions. Their truth table is
//! `docs/resume.md`; the tests below walk through it.

use device::{Before, Boot, Change};

use crate::journal::{Entry, ExecutionId, Phase, Then};
use crate::outcome::Outcome;

/// A kernel that has the same boot id after this many orders to reboot will not reboot.
pub(crate) const MAX_REBOOT_ATTEMPTS: u32 = 3;
/// An execution on which the agent ended this often, without being stopped, is failed instead of tried again.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// What is decided from the journal and the boot alone, before there is any connection.
#[derive(Debug, Clone, PartialEq)]
pub enum AfterStart {
    /// Nothing is owed: remove what may lie beside the targets.
    Clean,
    /// Nothing has changed on the device: the cloud says whether to go on.
    AskCloud,
    /// Putting it in force may be half done: finish it, whatever the network does.
    Activate,
    /// It is in force: is the system well with it?
    Confirm,
    /// What was before comes back, and the operation ends with this.
    Undo(Outcome),
    RebootAgain,
    /// Somebody else's reboot has not come yet.
    AwaitReboot,
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

pub fn after_start(entry: Option<&Entry>, boot: &Boot) -> AfterStart {
    let Some(entry) = entry else { return AfterStart::Clean };
    let crashed = entry.attempts >= MAX_ATTEMPTS;
    match &entry.phase {
        Phase::Reporting { outcome } => AfterStart::Report(outcome.clone()),
        Phase::RollingBack { outcome, .. } => AfterStart::Undo(outcome.clone()),
        Phase::Rebooting { boot_id, attempts, then } if *boot_id == boot.id => {
            still_up(*attempts, then, boot)
        }
        Phase::Rebooting { then, .. } => rebooted(then, boot),
        Phase::Activating { .. } | Phase::Confirming { .. } if crashed => {
            AfterStart::Undo(agent_crashed(entry.attempts))
        }
        Phase::Activating { .. } => AfterStart::Activate,
        // A trial may boot more than once, and the bootloader's patience may have ended meanwhile.
        Phase::Confirming { change } => on_trial(change, boot),
        Phase::Accepted | Phase::Downloading { .. } if crashed => {
            AfterStart::Report(agent_crashed(entry.attempts))
        }
        Phase::Accepted | Phase::Downloading { .. } => AfterStart::AskCloud,
    }
}

fn still_up(attempts: u32, then: &Then, boot: &Boot) -> AfterStart {
    if attempts == 0 {
        return AfterStart::AwaitReboot;
    }
    if attempts < MAX_REBOOT_ATTEMPTS {
        return AfterStart::RebootAgain;
    }
    let message = format!("the boot id is still {} after {attempts} attempts", boot.id);
    let outcome = Outcome::failed("reboot-did-not-happen", message);
    match then {
        Then::Done => AfterStart::Report(outcome),
        Then::Confirm { .. } => AfterStart::Undo(outcome),
        Then::Report { outcome: first, .. } => AfterStart::Report(rollback_failed(first, &outcome.message)),
    }
}

fn rebooted(then: &Then, boot: &Boot) -> AfterStart {
    match then {
        Then::Done => AfterStart::Report(reboot_is_done()),
        Then::Confirm { change } => on_trial(change, boot),
        Then::Report { change, outcome } => match &change.before {
            Before::Slot { booted, .. } if boot.slot.as_ref() != Some(booted) => {
                let why = format!("{} runs, not {booted}", name(boot));
                AfterStart::Report(rollback_failed(outcome, &why))
            }
            _ => AfterStart::Report(outcome.clone()),
        },
    }
}

/// Which system runs decides, and not which one was asked for.
fn on_trial(change: &Change, boot: &Boot) -> AfterStart {
    let Before::Slot { booted, written } = &change.before else { return AfterStart::Confirm };
    if boot.slot.as_ref() == Some(written) {
        return AfterStart::Confirm;
    }
    AfterStart::Undo(if boot.slot.as_ref() == Some(booted) {
        let message = format!("the bootloader went back to slot {booted}: slot {written} did not come up");
        Outcome::failed("bootloader-rolled-back", message)
    } else {
        let message = format!("{} runs, neither {written} nor {booted}", name(boot));
        Outcome::failed("booted-slot-unknown", message)
    })
}

fn name(boot: &Boot) -> String {
    boot.slot.as_ref().map_or_else(|| "an unknown slot".to_owned(), |slot| format!("slot {slot}"))
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
            OnOffer::Report(reboot_is_done())
        }
        None => OnOffer::Begin,
    }
}

fn reboot_is_done() -> Outcome {
    Outcome::succeeded("rebooted", "the kernel has another boot id")
}

pub(crate) fn agent_crashed(attempts: u32) -> Outcome {
    Outcome::failed("agent-crashed", format!("the agent ended {attempts} times while it worked on this"))
}

pub(crate) fn rollback_failed(outcome: &Outcome, why: &str) -> Outcome {
    Outcome::failed("rollback-failed", format!("{}; {why}", outcome.message))
}

#[cfg(test)]
mod tests {
    use device::Target;

    use super::*;

    fn id(job_id: &str) -> ExecutionId {
        ExecutionId { job_id: job_id.into(), execution_number: 1, queued_at: 7 }
    }

    fn entry(attempts: u32, phase: Phase) -> Entry {
        Entry { execution: id("a"), attempts, activate: Default::default(), phase }
    }

    fn digest() -> downloader::Digest {
        format!("sha256:{}", "00".repeat(32)).parse().unwrap()
    }

    fn failed() -> Outcome {
        Outcome::failed("command-failed", "exit code 1")
    }

    fn change(before: Before) -> Change {
        Change { target: Target::Firmware, digest: digest(), before, commit: None }
    }

    fn slots() -> Change {
        change(Before::Slot { booted: "A".into(), written: "B".into() })
    }

    fn boot(id: &str, slot: Option<&str>) -> Boot {
        Boot { id: id.into(), slot: slot.map(str::to_owned), version: None }
    }

    /// What is left of a decision once its sentences are gone.
    fn code(decision: AfterStart) -> String {
        match decision {
            AfterStart::Undo(outcome) => format!("Undo {}", outcome.reason),
            AfterStart::Report(outcome) => format!("Report {}", outcome.reason),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn after_a_start() {
        assert_eq!(after_start(None, &boot("new", None)), AfterStart::Clean);
        let downloading = Phase::Downloading { digest: digest(), resume: Default::default() };
        let activating = Phase::Activating { change: change(Before::Absent) };
        let confirming = |change| Phase::Confirming { change };
        let rolling_back = Phase::RollingBack { change: change(Before::Absent), outcome: failed() };
        let rebooting = |attempts, then| Phase::Rebooting { boot_id: "old".into(), attempts, then };
        let trial = |attempts| rebooting(attempts, Then::Confirm { change: slots() });
        let back = |attempts| rebooting(attempts, Then::Report { change: slots(), outcome: failed() });
        let reporting = Phase::Reporting { outcome: failed() };
        let (a, b) = (Some("A"), Some("B"));
        let cases = [
            (1, Phase::Accepted, "new", None, "AskCloud"),
            (3, Phase::Accepted, "new", None, "Report agent-crashed"),
            (1, downloading.clone(), "new", None, "AskCloud"),
            (3, downloading, "new", None, "Report agent-crashed"),
            (1, activating.clone(), "new", None, "Activate"),
            (3, activating, "new", None, "Undo agent-crashed"),
            (1, Phase::Activating { change: slots() }, "new", a, "Activate"),
            (1, confirming(change(Before::Absent)), "new", None, "Confirm"),
            (1, confirming(change(Before::Installer)), "new", None, "Confirm"),
            (1, confirming(slots()), "new", b, "Confirm"),
            (1, confirming(slots()), "new", a, "Undo bootloader-rolled-back"),
            (1, confirming(slots()), "new", None, "Undo booted-slot-unknown"),
            (3, confirming(slots()), "new", b, "Undo agent-crashed"),
            (9, rolling_back, "new", None, "Undo command-failed"),
            (9, reporting, "new", None, "Report command-failed"),
            (9, rebooting(1, Then::Done), "new", None, "Report rebooted"),
            (1, rebooting(3, Then::Done), "new", None, "Report rebooted"),
            (9, trial(0), "old", a, "AwaitReboot"),
            (9, trial(0), "new", b, "Confirm"),
            (1, rebooting(2, Then::Done), "old", None, "RebootAgain"),
            (1, rebooting(3, Then::Done), "old", None, "Report reboot-did-not-happen"),
            (1, trial(1), "new", b, "Confirm"),
            (1, trial(1), "new", a, "Undo bootloader-rolled-back"),
            (1, trial(1), "new", None, "Undo booted-slot-unknown"),
            (1, trial(1), "new", Some("C"), "Undo booted-slot-unknown"),
            (1, trial(2), "old", a, "RebootAgain"),
            (1, trial(3), "old", a, "Undo reboot-did-not-happen"),
            (1, back(1), "new", a, "Report command-failed"),
            (1, back(1), "new", b, "Report rollback-failed"),
            (1, back(1), "new", None, "Report rollback-failed"),
            (1, back(1), "old", b, "RebootAgain"),
            (1, back(3), "old", b, "Report rollback-failed"),
        ];
        for (attempts, phase, boot_id, slot, expected) in cases {
            let entry = entry(attempts, phase);
            assert_eq!(code(after_start(Some(&entry), &boot(boot_id, slot))), expected, "{entry:?}");
        }
    }

    #[test]
    fn when_the_cloud_offers() {
        let ours = entry(1, Phase::Accepted);
        let reporting = entry(1, Phase::Reporting { outcome: failed() });
        let cases = [
            (None, "a", false, None, OnOffer::Begin),
            (None, "a", true, None, OnOffer::Begin),
            (None, "a", true, Some("boot"), OnOffer::Begin),
            (None, "a", true, Some("earlier"), OnOffer::Report(reboot_is_done())),
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
