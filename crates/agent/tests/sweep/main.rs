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
mod trace;
mod wish;
mod writer;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use disk::{Disk, Left, Mount};
use divided::Divided;
use identity::Identity;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use operation::{Operation, Scenario, Standing};
use slots::Slots;
use support::Device;
use support::cloud::Cloud;
use support::helper::Helper;
use support::slots::System;
use trace::{Struck, Tally, Traced};
use wish::Wish;
use writer::Writer;

/// `all` by `scripts/crash-sweep`; or how many calls to go on by.
const EXTENT: &str = "FLEETHAND_SWEEP";
/// Longer than any job takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
enum Blow {
    Kill,
    PowerCut(Left),
}

/// What happens to the agent, and how many calls are a sample.
const BLOWS: [(Blow, &str, usize); 4] = [
    (Blow::Kill, "killed", 8),
    (Blow::PowerCut(Left::Nothing), "power cut", 4),
    (Blow::PowerCut(Left::Older), "power cut after a sync", 4),
    (Blow::PowerCut(Left::Names), "power cut after a commit", 4),
];
/// How many calls before the power cut the file system wrote everything out: between the last entry of the journal
/// and the command that it announces there are fewer.
const OLDER: usize = 4;

/// Which process is struck. The power cut is for all, at a call of this one.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// There is no other.
    One,
    Agent,
    Helper,
}

struct Sweep<'a> {
    operation: &'a dyn Scenario,
    blow: Blow,
    who: Who,
    cloud: &'a Cloud,
    device: Device,
    /// Where it runs beside what is struck, and afterwards.
    helper: Option<Helper>,
    disk: Disk,
    jobs: usize,
}

/// How one job went.
struct Job {
    /// The call at which it was struck, if it came so far.
    struck: Option<String>,
    calls: Vec<String>,
    wrongs: Vec<String>,
}

impl<'a> Sweep<'a> {
    fn new(operation: &'a dyn Scenario, who: Who, blow: Blow, cloud: &'a Cloud) -> Result<Self, String> {
        let mut device = Device::create(cloud);
        device.meters.differ("what an agent had counted when it was struck is gone");
        let path = device.path("disk");
        let disk = match blow {
            Blow::Kill => {
                std::fs::create_dir(&path).unwrap();
                Disk::Folder(path)
            }
            Blow::PowerCut(_) => Disk::Mounted(Mount::create(&path)?),
        };
        operation.configure(&mut device, disk.path());
        Ok(Self { operation, blow, who, cloud, device, helper: None, disk, jobs: 0 })
    }

    /// One job, struck at the given call, counted from 1.
    fn job(&mut self, at: usize) -> Job {
        self.jobs += 1;
        let job = format!("job-{}", self.jobs);
        let mut after = u64::MAX;
        self.cloud.messages(&mut after);
        for entry in std::fs::read_dir(self.disk.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.unwrap();
        }
        self.operation.prepare(&self.device, self.disk.path());
        for name in ["reboots", "log"] {
            let _ = std::fs::remove_file(self.device.path(name));
        }
        self.disk.sync();
        self.operation.order(self.cloud, &job);
        let deadline = Instant::now() + PATIENCE;
        let mut tally = Tally { calls: Vec::new(), at };
        let mut struck = None;
        // A reboot ends the agent before the job is settled; the points go on in the next boot.
        while struck.is_none() && !self.settled(&job) && Instant::now() < deadline {
            self.operation.bring_up(&self.device);
            struck = self.follow(&job, &mut tally, deadline);
            if struck.is_none() && self.operation.awaits_reboot(&self.device, self.disk.path()) {
                self.operation.boot(&self.device, &job);
            }
        }
        let mut standing = Standing::default();
        if struck.is_some() {
            if self.blow != Blow::Kill {
                self.helper = None;
                if !self.device.has_ended() {
                    self.device.wait_for_exit();
                }
                self.operation.power_goes();
                self.disk.restore();
                self.operation.boot(&self.device, &job);
            }
            standing = Standing::of(&self.device, self.disk.path());
            standing.agent_lives = !self.device.has_ended();
            self.start_again(&job, deadline);
        }
        self.helper = None;
        let mut wrongs = self.operation.wrongs(&self.device, self.disk.path(), &standing);
        wrongs.extend(self.operation.wrongs_of_the_cloud(self.cloud, &job, after));
        if let Some(Struck { orphans: 1.. }) = struck {
            wrongs.push("a command began although the agent that ordered it was dead".to_owned());
        }
        if !wrongs.is_empty() {
            wrongs.push(format!("{standing:?}"));
            wrongs.push(self.device.log());
        }
        self.operation.forget(self.cloud, &job);
        let struck = struck.and_then(|_| tally.calls.last().cloned());
        Job { struck, calls: tally.calls, wrongs }
    }

    /// Runs the device until it is struck, its system goes down, or it has settled the job and is stopped.
    fn follow(&mut self, job: &str, tally: &mut Tally, deadline: Instant) -> Option<Struck> {
        let struck = self.follow_traced(job, tally, deadline);
        if self.who == Who::Helper && struck.is_none() && !self.device.has_ended() {
            self.device.stop();
        }
        struck
    }

    fn follow_traced(&mut self, job: &str, tally: &mut Tally, deadline: Instant) -> Option<Struck> {
        let mut command = self.device.command(&[if self.who == Who::Helper { "helper" } else { "run" }]);
        match self.who {
            Who::Helper => self.device.start(),
            Who::Agent | Who::One => self.device.as_agent(&mut command),
        }
        if self.who == Who::Agent && self.helper.is_none() {
            self.helper = Some(self.device.start_helper());
        }
        let this = &*self;
        let (started, pid) = mpsc::channel();
        std::thread::scope(|scope| {
            // It waits for all children of its thread, so it has one of its own.
            let follower = scope.spawn(move || {
                let traced = Traced::start(command);
                started.send(traced.pid()).unwrap();
                let at = tally.at;
                traced.follow(tally, |call| match this.blow {
                    Blow::PowerCut(Left::Older) if call.checked_add(OLDER) == Some(at) => this.disk.sync(),
                    Blow::PowerCut(left) if call == at => {
                        this.halt_the_other();
                        this.disk.cut(left);
                    }
                    Blow::Kill | Blow::PowerCut(_) => {}
                })
            });
            let pid = pid.recv().unwrap();
            let mut signal = None;
            while signal.is_none() && !follower.is_finished() {
                std::thread::sleep(Duration::from_millis(20));
                let awaits_reboot = this.operation.awaits_reboot(&this.device, this.disk.path());
                if awaits_reboot || this.settled(job) {
                    signal = Some(Signal::SIGTERM);
                } else if Instant::now() > deadline {
                    signal = Some(Signal::SIGKILL);
                }
            }
            if let Some(signal) = signal.filter(|_| !follower.is_finished()) {
                let _ = kill(pid, signal);
            }
            follower.join().unwrap()
        })
    }

    /// Before the power is cut, so that it says nothing of the disk that is away.
    fn halt_the_other(&self) {
        let (pid, signal) = match (self.who, &self.helper) {
            (Who::Helper, _) => (self.device.pid(), Signal::SIGKILL),
            (Who::Agent, Some(helper)) => (helper.pid(), Signal::SIGSTOP),
            _ => return,
        };
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }

    /// As after a boot: started as often as it ends, until the job is settled and it has asked for more.
    fn start_again(&mut self, job: &str, deadline: Instant) {
        // Who was not struck stays connected.
        let expected = self.connections() + usize::from(self.device.has_ended());
        if self.who == Who::Helper || (self.who == Who::Agent && self.helper.is_none()) {
            self.helper = Some(self.device.start_helper());
        }
        while Instant::now() < deadline {
            if self.device.has_ended() {
                self.operation.bring_up(&self.device);
                self.device.start();
            }
            std::thread::sleep(Duration::from_millis(20));
            if self.operation.awaits_reboot(&self.device, self.disk.path()) {
                self.device.stop();
                self.operation.boot(&self.device, job);
            } else if self.connections() >= expected && self.settled(job) {
                self.device.stop();
                return;
            }
        }
        self.device.kill();
    }

    fn connections(&self) -> usize {
        self.device.log().lines().filter(|line| line.ends_with("INFO connected")).count()
    }

    /// The cloud knows the end, and the device knows that it does.
    fn settled(&self, job: &str) -> bool {
        !self.disk.path().join("state/journal.json").exists() && self.operation.is_over(self.cloud, job)
    }
}

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
