//! Every call of a whole job that leaves something behind is a point at which the agent is killed, or the power is
//! cut, once. It is started again, and the job must end as if nothing had happened. `scripts/crash-sweep` goes
//! to every point; otherwise it is a sample.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod disk;
mod divided;
mod identity;
mod operation;
#[cfg(feature = "rauc")]
mod rauc;
mod slots;
#[path = "../support/mod.rs"]
mod support;
mod sweep;
mod trace;
mod wish;
mod writer;

use std::collections::BTreeMap;
use std::time::Instant;

use disk::Left;
use divided::Divided;
use identity::Identity;
use operation::{Operation, Scenario};
use slots::Slots;
use support::slots::System;
use sweep::{Blow, Job, Sweep, Who};
use wish::Wish;
use writer::Writer;

/// `all` by `scripts/crash-sweep`; or how many calls to go on by.
const EXTENT: &str = "FLEETHAND_SWEEP";
/// What happens to the agent, and how many calls are a sample.
const BLOWS: [(Blow, &str, usize); 4] = [
    (Blow::Kill, "killed", 8),
    (Blow::PowerCut(Left::Nothing), "power cut", 4),
    (Blow::PowerCut(Left::Older), "power cut after a sync", 4),
    (Blow::PowerCut(Left::Names), "power cut after a commit", 4),
];
/// How many calls there are of each name.
fn summary(calls: &[String]) -> String {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.split(' ').next().unwrap()).or_insert(0) += 1;
    }
    let counts: Vec<_> = counts.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
    counts.join(", ")
}

/// From one point to the next, where it is not a sample that is asked for.
fn asked_step() -> Option<usize> {
    let extent = std::env::var(EXTENT).ok()?;
    Some(if extent == "all" { 1 } else { extent.parse().unwrap() })
}

fn sweep(operation: &dyn Scenario) {
    sweep_of(operation, Who::One, "");
}

/// In `scripts/crash-sweep` alone: what they have that others have not is little for the time that they take.
fn sweep_of_both_if_asked<S: Scenario>(operation: S) {
    match asked_step() {
        Some(_) => sweep_of_both(operation),
        None => println!("sweep: two processes, {}: only in scripts/crash-sweep", operation.name()),
    }
}

fn sweep_of_both<S: Scenario>(operation: S) {
    let divided = Divided(operation);
    sweep_of(&divided, Who::Agent, "the agent ");
    sweep_of(&divided, Who::Helper, "the helper ");
}

fn sweep_of(operation: &dyn Scenario, who: Who, name: &str) {
    let cloud = operation.cloud();
    let mut total = 0;
    for (blow, blow_name, sample) in BLOWS {
        let title = format!("{}, {name}{blow_name}", operation.name());
        let begun = Instant::now();
        let mut sweep = match Sweep::new(operation, who, blow, &cloud) {
            Ok(sweep) => sweep,
            Err(why) => {
                println!("sweep: {title}: SKIPPED: {why}");
                continue;
            }
        };
        let Job { calls, wrongs, .. } = sweep.job(usize::MAX);
        assert!(wrongs.is_empty(), "{title}: without any blow: {wrongs:#?}");
        let sample = (sample / operation.thinned()).max(1);
        let step = asked_step().unwrap_or(calls.len().div_ceil(sample + 1));
        let (mut points, mut wrong) = (0, 0);
        for at in (step..).step_by(step) {
            let job = sweep.job(at);
            points += usize::from(job.struck.is_some());
            if !job.wrongs.is_empty() {
                wrong += 1;
                println!("{title}: WRONG at call {at}, {:?}: {:#?}", job.struck, job.wrongs);
            }
            // The number of calls differs from run to run by a few, which counts where it is about every one.
            if at + step > calls.len() && (step > 1 || job.struck.is_none()) {
                break;
            }
        }
        let extent =
            if step == 1 { "every call".to_owned() } else { format!("a sample, every {step}th call") };
        println!("sweep: {title}: {points} points, {wrong} wrong, {} s", begun.elapsed().as_secs());
        println!("       {extent} of {}: {}", calls.len(), summary(&calls));
        total += wrong;
    }
    assert_eq!(total, 0, "wrong outcomes of {}", operation.name());
}

#[test]
fn update_firmware() {
    sweep(&Operation::Firmware);
}

#[test]
fn update_firmware_whose_command_fails() {
    sweep(&Operation::FirmwareWhoseCommandFails);
}

#[test]
fn update_config() {
    sweep(&Operation::Config);
}

#[test]
fn a_wish_of_a_shadow() {
    sweep(&Wish::Granted);
}

#[test]
fn a_wish_of_a_shadow_whose_command_fails() {
    sweep(&Wish::Refused);
}

#[test]
fn two_processes_and_a_wish_of_a_shadow() {
    sweep_of_both_if_asked(Wish::Granted);
}

#[test]
fn reboot() {
    sweep(&Operation::Reboot);
}

#[test]
fn two_processes_and_update_firmware() {
    sweep_of_both(Operation::Firmware);
}

#[test]
fn two_processes_and_update_firmware_whose_command_fails() {
    sweep_of_both_if_asked(Operation::FirmwareWhoseCommandFails);
}

#[test]
fn two_processes_and_update_config() {
    sweep_of_both(Operation::Config);
}

#[test]
fn two_processes_and_reboot() {
    sweep_of_both(Operation::Reboot);
}

#[test]
fn two_processes_and_slots_with_a_system_that_is_well() {
    sweep_of_both_if_asked(Slots::new(System::Good, Writer::Agent).signed());
}

#[test]
fn two_processes_and_slots_with_a_system_that_is_not_well() {
    sweep_of_both_if_asked(Slots::new(System::Unhealthy, Writer::Agent));
}

#[test]
fn provisioning() {
    sweep(&Identity::First);
}

#[test]
fn rotate_certificate() {
    sweep(&Identity::Next);
}

#[test]
fn slots_and_a_system_that_is_well() {
    sweep(&Slots::new(System::Good, Writer::Agent));
}

#[test]
fn slots_and_a_system_that_is_not_well() {
    sweep(&Slots::new(System::Unhealthy, Writer::Agent));
}

#[test]
fn slots_and_a_system_that_does_not_come_up() {
    sweep(&Slots::new(System::Panics, Writer::Agent));
}

#[test]
fn slots_and_a_signed_system() {
    sweep(&Slots::new(System::Good, Writer::Agent).signed());
}

#[test]
fn slots_and_a_reboot_that_somebody_else_orders() {
    sweep(&Slots::new(System::Good, Writer::Agent).at_the_next_reboot());
}

#[test]
fn an_installer_and_a_system_that_is_well() {
    sweep(&Slots::new(System::Good, Writer::Installer));
}

#[test]
fn an_installer_and_a_system_that_is_not_well() {
    sweep(&Slots::new(System::Unhealthy, Writer::Installer));
}

#[test]
fn swupdate_and_a_system_that_is_well() {
    sweep_where_it_is("swupdate", writer::swupdate_is_missing(), || {
        Slots::new(System::Good, Writer::swupdate())
    });
}

#[test]
fn swupdate_and_a_system_that_is_not_well() {
    sweep_where_it_is("swupdate", writer::swupdate_is_missing(), || {
        Slots::new(System::Unhealthy, Writer::swupdate())
    });
}

#[test]
fn two_processes_and_swupdate() {
    match writer::swupdate_is_missing() {
        None => sweep_of_both_if_asked(Slots::new(System::Good, Writer::swupdate())),
        Some(why) => println!("sweep: two processes, swupdate: SKIPPED: {why}"),
    }
}

#[cfg(feature = "rauc")]
#[test]
fn two_processes_and_rauc() {
    match support::rauc::missing() {
        None => sweep_of_both_if_asked(rauc::Bundles::new(System::Good)),
        Some(why) => println!("sweep: two processes, rauc: SKIPPED: {why}"),
    }
}

#[cfg(feature = "rauc")]
#[test]
fn rauc_and_a_system_that_is_well() {
    sweep_where_it_is("rauc", support::rauc::missing(), || rauc::Bundles::new(System::Good));
}

#[cfg(feature = "rauc")]
#[test]
fn rauc_and_a_system_that_is_not_well() {
    sweep_where_it_is("rauc", support::rauc::missing(), || rauc::Bundles::new(System::Unhealthy));
}

#[cfg(feature = "rauc")]
#[test]
fn rauc_and_a_system_that_does_not_come_up() {
    if asked_step().is_none() {
        println!("sweep: rauc, a system that does not come up: only in scripts/crash-sweep");
        return;
    }
    sweep_where_it_is("rauc", support::rauc::missing(), || rauc::Bundles::new(System::Panics));
}

/// With somebody's daemon, where this machine has it.
fn sweep_where_it_is<S: Scenario>(name: &str, missing: Option<&str>, scenario: impl FnOnce() -> S) {
    match missing {
        None => sweep(&scenario()),
        Some(why) => println!("sweep: {name}: SKIPPED: {why}"),
    }
}
