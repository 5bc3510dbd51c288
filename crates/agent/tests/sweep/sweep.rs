//! One device, struck at one point of one job, and what becomes of both.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::disk::{Disk, Left, Mount};
use crate::operation::{Scenario, Standing};
use crate::support::Device;
use crate::support::cloud::Cloud;
use crate::support::helper::Helper;
use crate::trace::{Struck, Tally, Traced};

/// Longer than any job takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
pub enum Blow {
    Kill,
    PowerCut(Left),
}

/// How many calls before the power cut the file system wrote everything out: between the last entry of the journal
/// and the command that it announces there are fewer.
const OLDER: usize = 4;

/// Which process is struck. The power cut is for all, at a call of this one.
#[derive(Clone, Copy, PartialEq)]
pub enum Who {
    /// There is no other.
    One,
    Agent,
    Helper,
}

pub struct Sweep<'a> {
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
pub struct Job {
    /// The call at which it was struck, if it came so far.
    pub struck: Option<String>,
    pub calls: Vec<String>,
    pub wrongs: Vec<String>,
}

impl<'a> Sweep<'a> {
    pub fn new(operation: &'a dyn Scenario, who: Who, blow: Blow, cloud: &'a Cloud) -> Result<Self, String> {
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
    pub fn job(&mut self, at: usize) -> Job {
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
