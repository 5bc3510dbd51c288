//! A device: the real agent, in a folder of its own, against the real local cloud.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "../../../cloud/tests/support/mod.rs"]
pub mod cloud;
pub mod fleet;
pub mod helper;
pub mod meters;
#[cfg(feature = "rauc")]
pub mod rauc;
pub mod slots;
pub mod swupdate;

use std::fs;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use cloud::{Cloud, arn, aws_done, binary, signal};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const THING: &str = "edge-01";
/// Longer than anything takes on a busy machine. No test waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(40);

pub struct Device {
    folder: tempfile::TempDir,
    agent: Option<Child>,
    /// What the program finds in it, besides this process's.
    pub environment: Vec<(String, String)>,
    /// Who the agent runs as, and its group, where that is somebody else.
    user: Option<(u32, u32)>,
    pub meters: meters::Meters,
}

impl Device {
    /// A thing with its certificate; nothing runs yet.
    pub fn create(cloud: &Cloud) -> Self {
        Self::create_named(cloud, THING)
    }

    pub fn create_named(cloud: &Cloud, thing: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("device");
        let created = Command::new(binary())
            .args(["thing", "create", thing, "--out", out.to_str().unwrap(), "--api", cloud.api()])
            .output()
            .unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        let meters = meters::Meters::of(cloud, thing);
        Self { folder, agent: None, environment: Vec::new(), user: None, meters }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("device").join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.path("fleethand.toml")
    }

    /// Puts `lines` below `[table]` of the configuration.
    pub fn configure(&self, table: &str, lines: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        let header = format!("[{table}]\n");
        let text = if text.contains(&format!("\n{header}")) {
            text.replacen(&format!("\n{header}"), &format!("\n{header}{lines}\n"), 1)
        } else {
            format!("{text}\n{header}{lines}\n")
        };
        fs::write(self.config(), text).unwrap();
    }

    /// A script that a configured command runs.
    pub fn script(&self, name: &str, text: &str) -> String {
        self.write(name, text);
        format!("[\"/bin/sh\", {:?}]", self.path(name))
    }

    /// A reboot that gives another boot id and stops the agent. `reboots` has a line for each order: the boot in
    /// which it was given.
    pub fn simulate_reboots(&self) {
        self.write("boot-id", "boot-1\n");
        // An agent that was killed meanwhile is not the parent any more.
        let text = format!(
            "cd {}\ncat boot-id >> reboots\necho boot-$(wc -l < reboots)-after > next\nmv next boot-id\n\
             ! grep -q fleethand /proc/$PPID/comm || kill -TERM $PPID\n",
            self.path("").display()
        );
        let command = self.script("reboot.sh", &text);
        self.configure("reboot", &format!("command = {command}\nboot_id_file = {:?}", self.path("boot-id")));
    }

    pub fn start(&mut self) {
        self.start_with(&["run"]);
    }

    pub fn start_with(&mut self, arguments: &[&str]) {
        if arguments != ["run"] {
            self.meters.differ("only the agent itself counts");
        }
        self.launch(self.command(arguments));
    }

    pub fn start_with_environment(&mut self, environment: &[(&str, &str)]) {
        let mut command = self.command(&["run"]);
        command.envs(environment.iter().copied());
        self.launch(command);
    }

    /// It believes in another wall clock, which follows the file `clock`. Its monotonic clock stays true, as a device's
    /// does.
    pub fn start_at(&mut self, offset: &str) {
        self.write("clock", offset);
        let environment = self.clock();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.start_with_environment(&environment);
    }

    /// The environment of a program that believes in the file `clock`.
    pub fn clock(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", libfaketime()),
            ("FAKETIME_TIMESTAMP_FILE", self.path("clock").display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// By another program, which becomes this one.
    pub fn start_as(&mut self, by: impl FnOnce(Command) -> Command) {
        let mut command = by(self.command(&["run"]));
        let log = fs::File::options().append(true).open(self.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.launch(command);
    }

    fn launch(&mut self, mut command: Command) {
        assert!(self.agent.is_none());
        self.as_agent(&mut command);
        self.agent = Some(command.spawn().unwrap());
    }

    /// It runs as whoever the agent is.
    pub fn as_agent(&self, command: &mut Command) {
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
    }

    /// The program with this device's configuration. What it prints goes to the log, too.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleethand"));
        command
            .args(arguments)
            .args(["--config", self.config().to_str().unwrap()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    pub fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// The memory that the agent has at the moment.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn kill(&mut self) {
        signal(self.pid(), "KILL");
        self.wait_for_exit();
    }

    /// SIGTERM; how long it took.
    pub fn stop(&mut self) -> Duration {
        signal(self.pid(), "TERM");
        let begun = Instant::now();
        let status = self.wait_for_exit();
        // In its first moment, before there is a handler, SIGTERM ends a process by itself.
        assert!(status.success() || status.signal() == Some(15), "{status}: {}", self.log());
        let took = begun.elapsed();
        if self.meters.comparable(&self.log()) {
            self.meters.agree(&self.path("state/meter.json"), None);
        }
        took
    }

    /// Whether what was started has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.agent.is_none() || self.exit_status().is_some()
    }

    /// How it ended by itself, once.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.agent.as_mut()?.try_wait().unwrap()?;
        self.agent = None;
        self.note(status);
        Some(status)
    }

    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().unwrap();
        let status = until("the agent to end", || agent.try_wait().unwrap());
        self.note(status);
        status
    }

    fn note(&mut self, status: ExitStatus) {
        if !status.success() {
            self.meters.differ("what an agent had counted when it was killed is gone");
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Any other command of the program.
    pub fn fleethand(&self, arguments: &[&str]) -> Output {
        self.fleethand_with_input(arguments, "")
    }

    pub fn fleethand_with_input(&self, arguments: &[&str], input: &str) -> Output {
        if let Some("setup" | "doctor") = arguments.first().copied() {
            self.meters.differ("who tries a connection does not count");
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_fleethand"))
            .args(arguments)
            .args(["--config", self.config().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that does not read its input closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// What is in the device's folder, sorted.
    pub fn names(&self) -> Vec<String> {
        self.names_in("")
    }

    pub fn names_in(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.agent.is_some() && !std::thread::panicking() && self.meters.comparable(&self.log()) {
            self.stop();
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}

fn libfaketime() -> String {
    let folders = fs::read_dir("/usr/lib").unwrap();
    let library = folders
        .map(|folder| folder.unwrap().path().join("faketime/libfaketime.so.1"))
        .chain([PathBuf::from("/usr/lib/faketime/libfaketime.so.1")])
        .find(|path| path.exists());
    let library = library.unwrap_or_else(|| panic!("faketime; scripts/install-deps installs it"));
    library.display().to_string()
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// What the operator does and sees.
pub trait Operator {
    fn create_job(&self, job: &str, document: &Value);
    fn execution(&self, job: &str) -> Value;
    fn wait_for(&self, job: &str, status: &str) -> Value;
    fn outcome(&self, job: &str) -> Ended;
    fn run(&self, job: &str, document: &Value) -> Ended;
    fn upload(&self, key: &str, bytes: &[u8]);
    fn fault(&self, fault: Value);
}

/// How an execution ended, as the cloud has it.
#[derive(Debug)]
pub struct Ended {
    pub status: String,
    pub reason: String,
    pub message: String,
    pub execution: Value,
}

impl Ended {
    #[track_caller]
    pub fn is(&self, status: &str, reason: &str) -> &Self {
        assert_eq!((self.status.as_str(), self.reason.as_str()), (status, reason), "{self:?}");
        self
    }
}

pub fn firmware_document(key: &str, version: &str, checksum: &str) -> Value {
    json!({
        "operation": "update-firmware",
        "url": format!("${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/firmware/{key}}}"),
        "version": version,
        "checksum": checksum,
    })
}

impl Operator for Cloud {
    fn create_job(&self, job: &str, document: &Value) {
        let body = json!({
            "targets": [arn(&format!("thing/{THING}"))],
            "document": document.to_string(),
            "presignedUrlConfig": {"roleArn": "arn:aws:iam::123456789012:role/jobs", "expiresInSec": 3600},
        });
        self.done("CreateJob", json!({"jobId": job}), body);
    }

    fn execution(&self, job: &str) -> Value {
        let params = json!({"jobId": job, "thingName": THING});
        self.done("DescribeJobExecution", params, Value::Null)["execution"].clone()
    }

    fn wait_for(&self, job: &str, status: &str) -> Value {
        until(&format!("{job} to be {status}"), || {
            let execution = self.execution(job);
            (execution["status"] == status).then_some(execution)
        })
    }

    fn outcome(&self, job: &str) -> Ended {
        let execution = until(&format!("{job} to end"), || {
            let execution = self.execution(job);
            let pending = ["QUEUED", "IN_PROGRESS"].contains(&execution["status"].as_str().unwrap());
            (!pending).then_some(execution)
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let details = &execution["statusDetails"]["detailsMap"];
        Ended {
            status: text(&execution["status"]),
            reason: text(&details["reason"]),
            message: text(&details["message"]),
            execution: execution.clone(),
        }
    }

    fn run(&self, job: &str, document: &Value) -> Ended {
        self.create_job(job, document);
        self.outcome(job)
    }

    /// Into the bucket `firmware`, with the AWS CLI.
    fn upload(&self, key: &str, bytes: &[u8]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let body = file.path().to_str().unwrap();
        aws_done(self.s3(), &["s3api", "put-object", "--bucket", "firmware", "--key", key, "--body", body]);
    }

    fn fault(&self, fault: Value) {
        self.admin("POST", "faults", Some(fault));
    }
}

/// A cloud with the bucket `firmware`.
pub fn cloud_with_bucket(options: &[&str]) -> Cloud {
    let cloud = Cloud::start(options);
    aws_done(cloud.s3(), &["s3api", "create-bucket", "--bucket", "firmware"]);
    cloud
}

pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
