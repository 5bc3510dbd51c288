//! Jobs of all kinds, with faults, kills and stops at random, and after each the question whether what the cloud says
//! is true on the device. A few here; as many as wanted with `scripts/soak`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use support::cloud::{Cloud, aws_done};
use support::{Device, Operator, THING, cloud_with_bucket, firmware_document, sha256};

/// Two kills leave an execution one more attempt.
const MAX_KILLS: usize = 2;
/// Longer than the pauses after a few refusals, of which each is 5 s or 10 s on average.
const PATIENCE: Duration = Duration::from_secs(150);
const OBJECTS: usize = 5;
/// The one that is damaged on its way.
const FRAGILE: usize = OBJECTS - 1;
/// What may be in the device's folder and in its state, when nothing is going on.
const DEVICE: [&str; 15] = [
    "boot-id",
    "certificate.pem",
    "command.sh",
    "config.json",
    "config.json.previous",
    "firmware.bin",
    "firmware.bin.previous",
    "fleethand.toml",
    "lock",
    "log",
    "overlaps",
    "private.key",
    "reboot.sh",
    "root-ca.pem",
    "state",
];
const STATE: [&str; 3] = ["history.json", "installed.json", "meter.json"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Firmware(usize),
    Corrupt,
    WrongChecksum,
    Missing,
    Config,
    /// The command that takes it up fails.
    Refused,
    Reboot,
    Unknown,
    Invalid,
    /// Canceled after a moment.
    Canceled(usize),
}

#[derive(Debug)]
struct Job {
    name: String,
    number: usize,
    kind: Kind,
}

#[derive(Default)]
struct Tally {
    jobs: usize,
    faults: usize,
    kills: usize,
    stops: usize,
    wrong: Vec<String>,
}

struct Soak {
    cloud: Cloud,
    device: Device,
    rng: Rng,
    objects: Vec<Vec<u8>>,
    /// What is in force: the number of an object, and of a configuration.
    firmware: Option<usize>,
    config: Option<usize>,
    boots: u64,
    ended: Vec<(String, Value)>,
    tally: Tally,
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_happens_what_the_cloud_says_is_true() {
    let jobs = number_from_env("FLEETHAND_SOAK_JOBS").unwrap_or(12) as usize;
    let seed = number_from_env("FLEETHAND_SOAK_SEED").unwrap_or(7);
    let mut soak = Soak::start(seed);
    let begun = Instant::now();
    soak.batch();
    let before = soak.device.rss_kib();
    while soak.tally.jobs < jobs && soak.tally.wrong.len() < 10 {
        soak.batch();
    }
    soak.nothing_changed_afterwards();
    let after = soak.device.rss_kib();
    let Tally { jobs, faults, kills, stops, wrong } = &soak.tally;
    println!(
        "soak: seed {seed}, {:.0} s, {jobs} jobs, {faults} faults, {kills} kills, {stops} stops, \
         VmRSS {before} KiB at the start and {after} KiB at the end, {} wrong outcomes",
        begun.elapsed().as_secs_f32(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    assert!(after < before + 8 * 1024, "the agent has grown");
}

impl Soak {
    fn start(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let cloud = cloud_with_bucket(&[]);
        let folder = tempfile::tempdir().unwrap();
        let objects: Vec<Vec<u8>> = (0..OBJECTS)
            .map(|n| {
                let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(1000 + n * 130_000).collect();
                std::fs::write(folder.path().join(n.to_string()), &bytes).unwrap();
                bytes
            })
            .collect();
        let from = folder.path().to_str().unwrap();
        aws_done(cloud.s3(), &["s3", "sync", "--quiet", from, "s3://firmware"]);
        let mut device = Device::create(&cloud);
        // Two commands at once are told of, and a configuration can be refused.
        let here = device.path("").display().to_string();
        let text = format!(
            "exec 9> {here}lock\nflock -n 9 || echo overlap >> {here}overlaps\nsleep 0.0$(( $$ % 10 ))\n\
             ! grep -q refused {here}config.json 2> /dev/null\n"
        );
        let command = device.script("command.sh", &text);
        device.configure("firmware", &format!("command = {command}"));
        device.configure("config", &format!("reload_command = {command}"));
        // Each boot has the next number, and begins in one instant.
        let text = format!(
            "read boot < {here}boot-id\necho $((boot + 1)) > {here}boot-id.next\n\
             mv {here}boot-id.next {here}boot-id\nkill -TERM $PPID\n"
        );
        let command = device.script("reboot.sh", &text);
        device.configure(
            "reboot",
            &format!("command = {command}\nboot_id_file = {:?}", device.path("boot-id")),
        );
        device.write("boot-id", "0\n");
        device.configure("log", "level = \"debug\"");
        device.configure("connection", "request_timeout_seconds = 1\nreconnect_max_seconds = 2");
        device.start();
        let (firmware, config, boots) = (None, None, 0);
        Self {
            cloud,
            device,
            rng,
            objects,
            firmware,
            config,
            boots,
            ended: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// One to three jobs in the queue, faults on the way, and then trouble until all have ended.
    fn batch(&mut self) {
        let count = [1, 1, 1, 2, 3][self.rng.usize(..5)];
        let jobs: Vec<Job> = (0..count).map(|_| self.job()).collect();
        let mut faults: Vec<Value> =
            (0..[0, 1, 1, 2, 3][self.rng.usize(..5)]).map(|_| self.fault()).collect();
        // A URL is replaced once: a job that met two expired ones would rightly be FAILED.
        let expired = json!({"fault": "object-expired"});
        let mut seen = false;
        faults.retain(|fault| *fault != expired || !std::mem::replace(&mut seen, true));
        for fault in faults {
            self.cloud.fault(fault);
            self.tally.faults += 1;
        }
        for job in &jobs {
            if job.kind == Kind::Corrupt {
                self.cloud.fault(json!({"fault": "object-corrupt", "key": FRAGILE.to_string()}));
                self.tally.faults += 1;
            }
            let document = self.document(job);
            self.cloud.create_job(&job.name, &document);
        }
        self.trouble(&jobs);
        self.cloud.admin("DELETE", "faults", None);
        self.settle(&jobs);
        self.check(&jobs);
    }

    fn job(&mut self) -> Job {
        let object = self.rng.usize(..FRAGILE);
        let kind = match self.rng.usize(..20) {
            0..=4 => Kind::Firmware(object),
            5 => Kind::Corrupt,
            6 => Kind::WrongChecksum,
            7 => Kind::Missing,
            8..=12 => Kind::Config,
            13 => Kind::Refused,
            14 => Kind::Reboot,
            15 => Kind::Unknown,
            16 => Kind::Invalid,
            _ => Kind::Canceled(object),
        };
        let number = self.tally.jobs;
        self.tally.jobs += 1;
        Job { name: format!("job-{number}"), number, kind }
    }

    fn document(&self, job: &Job) -> Value {
        let firmware =
            |object: usize, bytes: &[u8]| firmware_document(&object.to_string(), &job.name, &sha256(bytes));
        match job.kind {
            Kind::Firmware(object) | Kind::Canceled(object) => firmware(object, &self.objects[object]),
            Kind::Corrupt => firmware(FRAGILE, &self.objects[FRAGILE]),
            Kind::WrongChecksum => firmware(0, b"something else"),
            Kind::Missing => firmware(OBJECTS, b"nothing"),
            Kind::Config => json!({"operation": "update-config", "config": {"n": job.number}}),
            Kind::Refused => json!({"operation": "update-config", "config": {"n": "refused"}}),
            Kind::Reboot => json!({"operation": "reboot"}),
            Kind::Unknown => json!({"operation": "dance"}),
            Kind::Invalid => json!({"operation": "update-config", "config": 7}),
        }
    }

    fn fault(&mut self) -> Value {
        let count = self.rng.usize(1..=2);
        let topic = |last: &str| format!("$aws/things/+/jobs/{last}");
        let update = topic("+/update");
        let milliseconds = self.rng.u64(..1500);
        match self.rng.usize(..14) {
            0 => json!({"fault": "drop", "count": count}),
            1 => json!({"fault": "drop", "topic": topic("+/update/accepted"), "count": count}),
            2 => json!({"fault": "delay", "milliseconds": milliseconds, "topic": topic("#"), "count": count}),
            3 => json!({"fault": "duplicate", "topic": topic("#"), "count": 10}),
            4 => json!({"fault": "reject", "code": "InternalError", "topic": update}),
            5 => json!({"fault": "reject", "code": "VersionMismatch", "topic": update}),
            6 => json!({"fault": "throttle", "topic": update}),
            7 => json!({"fault": "throttle"}),
            8 => json!({"fault": "cut", "thing": THING}),
            9 => json!({"fault": "refuse", "thing": THING}),
            10 => json!({"fault": "object-status", "status": 503, "count": count}),
            11 => json!({"fault": "object-truncate", "bytes": self.rng.u64(..130_000)}),
            12 => json!({"fault": "object-slow", "bytes": 150_000}),
            _ => json!({"fault": "object-expired"}),
        }
    }

    /// Kills, stops, cuts and cancellations at moments that nobody chose, until every job has ended.
    fn trouble(&mut self, jobs: &[Job]) {
        let begun = Instant::now();
        let (mut kills, mut stops) = (self.rng.usize(..6), self.rng.usize(..5));
        if kills > MAX_KILLS {
            kills = 0;
        }
        if stops > 2 {
            stops = 0;
        }
        let reboots = jobs.iter().any(|job| matches!(job.kind, Kind::Reboot));
        let mut to_cancel: Vec<_> = jobs.iter().filter(|job| matches!(job.kind, Kind::Canceled(_))).collect();
        while jobs.iter().any(|job| self.is_pending(&job.name)) {
            if begun.elapsed() > PATIENCE {
                let faults = self.cloud.admin("GET", "faults", None);
                self.wrong(format!("{jobs:?}: not ended after {PATIENCE:?}; faults left: {faults}"));
                return;
            }
            std::thread::sleep(Duration::from_millis(self.rng.u64(..60)));
            match self.rng.usize(..6) {
                0 if kills > 0 => {
                    kills -= 1;
                    self.tally.kills += 1;
                    self.device.kill();
                    self.device.start();
                }
                1 if stops > 0 => {
                    stops -= 1;
                    self.tally.stops += 1;
                    let took = self.device.stop();
                    if took > Duration::from_secs(5) {
                        self.wrong(format!("{jobs:?}: a stop took {took:?}"));
                    }
                    self.device.start();
                }
                2 if !to_cancel.is_empty() => {
                    let job = to_cancel.remove(0);
                    // It may have ended by now.
                    let params = json!({"jobId": job.name, "force": "true"});
                    self.cloud.control("CancelJob", &params, Some(&json!({})));
                }
                _ => {}
            }
            if let Some(status) = self.device.exit_status() {
                if !(reboots && status.success()) {
                    self.wrong(format!("{jobs:?}: the agent ended by itself: {status}"));
                }
                self.device.start();
            }
        }
    }

    fn is_pending(&self, job: &str) -> bool {
        ["QUEUED", "IN_PROGRESS"].contains(&self.cloud.execution(job)["status"].as_str().unwrap())
    }

    /// Nothing is left over, in time.
    fn settle(&mut self, jobs: &[Job]) {
        let begun = Instant::now();
        loop {
            // The last reboot may still be going on.
            if self.device.has_ended() {
                self.device.start();
            }
            let surplus = |names: Vec<String>, known: &[&str]| -> Vec<String> {
                names.into_iter().filter(|name| !known.contains(&name.as_str())).collect()
            };
            let device = surplus(self.device.names(), &DEVICE);
            let state = surplus(self.device.names_in("state"), &STATE);
            if device.is_empty() && state.is_empty() {
                return;
            }
            if begun.elapsed() > PATIENCE {
                return self.wrong(format!("{jobs:?}: left over: {device:?}, in state: {state:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Is what the cloud says true on the device?
    fn check(&mut self, jobs: &[Job]) {
        let (mut firmware, mut config) = (vec![self.firmware], vec![self.config]);
        let mut boots = self.boots;
        for job in jobs {
            let execution = self.cloud.execution(&job.name);
            let status = execution["status"].as_str().unwrap().to_owned();
            let reason = execution["statusDetails"]["detailsMap"]["reason"].as_str().unwrap_or("");
            let right: &[(&str, &str)] = match job.kind {
                Kind::Firmware(_) => &[("SUCCEEDED", "installed")],
                Kind::Corrupt => &[("FAILED", "checksum-mismatch"), ("SUCCEEDED", "installed")],
                Kind::WrongChecksum => &[("FAILED", "checksum-mismatch")],
                Kind::Missing => &[("FAILED", "http-status")],
                Kind::Config => &[("SUCCEEDED", "configured")],
                Kind::Refused => &[("FAILED", "command-failed")],
                Kind::Reboot => &[("SUCCEEDED", "rebooted")],
                Kind::Unknown => &[("FAILED", "unknown-operation")],
                Kind::Invalid => &[("REJECTED", "invalid-document")],
                Kind::Canceled(_) => &[("SUCCEEDED", "installed"), ("CANCELED", "")],
            };
            if !right.iter().any(|(s, r)| *s == status && (*r == reason || status == "CANCELED")) {
                self.wrong(format!("{job:?}: {execution}"));
            }
            match (job.kind, status.as_str()) {
                (Kind::Firmware(n) | Kind::Canceled(n), "SUCCEEDED") => firmware = vec![Some(n)],
                (Kind::Corrupt, "SUCCEEDED") => firmware = vec![Some(FRAGILE)],
                // It may have come in time, or not.
                (Kind::Canceled(n), _) => firmware.push(Some(n)),
                (Kind::Config, "SUCCEEDED") => config = vec![Some(job.number)],
                (Kind::Reboot, "SUCCEEDED") => boots += 1,
                _ => {}
            }
            self.ended.push((job.name.clone(), execution));
        }
        let bytes = std::fs::read(self.device.path("firmware.bin")).ok();
        let object = bytes.as_ref().map(|bytes| self.objects.iter().position(|object| object == bytes));
        match object {
            None if firmware.contains(&None) => self.firmware = None,
            Some(Some(n)) if firmware.contains(&Some(n)) => self.firmware = Some(n),
            found => self.wrong(format!("{jobs:?}: firmware {found:?}, one of {firmware:?} expected")),
        }
        let found: Option<Value> = std::fs::read(self.device.path("config.json"))
            .ok()
            .map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default());
        let right = config.iter().any(|n| n.map(|n| json!({"n": n})) == found);
        if !right {
            self.wrong(format!("{jobs:?}: configuration {found:?}, one of {config:?} expected"));
        }
        self.config = config[0];
        let found: u64 = String::from_utf8(self.device.read("boot-id")).unwrap().trim().parse().unwrap();
        if found != boots {
            self.wrong(format!("{jobs:?}: {found} boots, {boots} expected"));
        }
        self.boots = found;
        if self.device.names().contains(&"overlaps".to_owned()) {
            self.wrong(format!("{jobs:?}: two commands ran at once"));
            std::fs::remove_file(self.device.path("overlaps")).unwrap();
        }
    }

    /// One terminal state, never left: nothing has touched an execution after its end.
    fn nothing_changed_afterwards(&mut self) {
        for (job, execution) in std::mem::take(&mut self.ended) {
            let now = self.cloud.execution(&job);
            if now != execution {
                self.wrong(format!("{job}: {execution} became {now}"));
            }
        }
    }

    fn wrong(&mut self, what: String) {
        let log = self.device.log();
        let tail: Vec<_> = log.lines().rev().take(40).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        println!("soak: WRONG: {what}\n{}", tail.join("\n"));
        self.tally.wrong.push(what);
    }
}
