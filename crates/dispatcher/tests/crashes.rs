#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests"
)]
//! The agent is killed before and after every single call to the device, then started again: the file in force is
//! always a whole one, the outcome is true, and nothing is left over.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use device::{
    Admitted, Before, Boot, Change, Checked, CommandSpec, Device, DeviceError, Effect, FileTarget,
    FirmwareTarget, Halt, Health, HostDevice, HostSettings, Installed, Order, Percent, Question, RebootSpec,
    RolledBack, Target,
};
use dispatcher::policy::Policy;
use dispatcher::{
    AfterStart, Context, Dispatcher, Ended, ExecutionId, Journal, Operation, Progress, Rules, Verdict,
};
use downloader::{Digest, Downloader};
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};

const OLD: &[u8] = b"the old firmware";
const NEW: &[u8] = b"the new firmware, which is a little longer";

/// Stops for ever at one call, as a killed process does: before its effect or after it.
struct Fragile {
    inner: HostDevice,
    fuse: Rc<Fuse>,
}

struct Fuse {
    /// Half calls: even numbers are before a call's effect, odd ones after it.
    left: Cell<usize>,
    seen: Cell<usize>,
    blown: Notify,
}

impl Fuse {
    fn new(left: usize) -> Rc<Self> {
        Rc::new(Self { left: Cell::new(left), seen: Cell::new(0), blown: Notify::new() })
    }

    async fn pass(&self) {
        self.seen.set(self.seen.get() + 1);
        if self.left.get() == 0 {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
        self.left.set(self.left.get() - 1);
    }
}

macro_rules! fragile {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl Device for Fragile {
            async fn reboot(&mut self, halt: &Halt) -> Result<(), DeviceError> {
                self.fuse.pass().await;
                let done = self.inner.reboot(halt).await;
                self.fuse.pass().await;
                // A system that goes down stops its services.
                halt.stop();
                done
            }

            $(async fn $name(&mut self, $($arg: $type),*) -> Result<$out, DeviceError> {
                self.fuse.pass().await;
                let done = self.inner.$name($($arg),*).await;
                self.fuse.pass().await;
                done
            })*
        }
    };
}

fragile! {
    boot() -> Boot;
    installed() -> Option<Installed>;
    read_config(name: &str) -> Option<Vec<u8>>;
    admit(order: &Order) -> Admitted;
    may_disturb(question: &Question, halt: &Halt) -> bool;
    begin(order: &Order) -> u64;
    reserve(total: u64) -> ();
    write(bytes: Bytes) -> ();
    restart() -> ();
    finish() -> Before;
    discard(target: &Target) -> ();
    discard_all() -> ();
    activate(change: &Change, halt: &Halt, percent: &Percent) -> Effect;
    confirm(change: &Change, halt: &Halt) -> ();
    commit(change: &Change) -> ();
    roll_back(change: &Change) -> RolledBack;
}

fn checked<T>(target: T) -> Checked<T> {
    Checked { target, health: Health::default() }
}

struct Bench {
    folder: tempfile::TempDir,
    command: Vec<String>,
    document: serde_json::Value,
}

impl Bench {
    fn new(command: &str, document: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("boot_id"), "boot-1\n").unwrap();
        let command = ["sh", "-c", command].map(str::to_owned).to_vec();
        Self { folder, command, document }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self) -> HostSettings {
        let spec = |words: &[String]| CommandSpec {
            program: words[0].clone(),
            arguments: words[1..].to_vec(),
            timeout: Duration::from_secs(20),
        };
        let target = |name| FileTarget { file: self.path(name), command: Some(spec(&self.command)) };
        HostSettings {
            state_directory: self.folder.path().to_owned(),
            firmware: Some(checked(FirmwareTarget::File(target("firmware")))),
            configs: [("config".to_owned(), checked(target("config")))].into(),
            reboot: RebootSpec {
                command: spec(&["sh".into(), self.path("reboot.sh").display().to_string()]),
                boot_id_file: self.path("boot_id"),
            },
            holds: Default::default(),
            hook: None,
            trust: None,
            compatible: Vec::new(),
        }
    }

    fn start(&self, fuse: Rc<Fuse>) -> Dispatcher<Fragile> {
        let device = Fragile { inner: HostDevice::new(self.settings()), fuse };
        let downloader = Downloader::new(downloader::Settings::default());
        let journal = Journal::in_folder(self.folder.path());
        let opened = Dispatcher::open(device, downloader, Rules::default(), Policy::default(), journal);
        let (dispatcher, warning) = opened.unwrap();
        assert_eq!(warning, None);
        dispatcher
    }

    fn operation(&self) -> Operation {
        Operation::parse(&self.document, &Rules::default()).unwrap().operation
    }

    /// As many lives of an agent as the job takes, none of them disturbed.
    async fn live_to_the_end(&self) -> Ended {
        for _ in 0..5 {
            if let Some(ended @ Ended::Outcome(_)) = self.live(Fuse::new(usize::MAX)).await {
                return ended;
            }
        }
        panic!("five lives were not enough")
    }

    /// One life of an agent, to the end of the job or until the fuse blows.
    async fn live(&self, fuse: Rc<Fuse>) -> Option<Ended> {
        let mut dispatcher = self.start(Rc::clone(&fuse));
        let context = context();
        let life = async {
            let ended = match dispatcher.after_start().await.unwrap() {
                AfterStart::Clean | AfterStart::AskCloud => {
                    let execution =
                        ExecutionId { job_id: "job".into(), execution_number: 1, queued_at: 1_700_000_000 };
                    dispatcher.accept(&execution).unwrap();
                    dispatcher.run(&self.operation(), &context).await
                }
                AfterStart::Report(outcome) => Ended::Outcome(outcome),
                what => dispatcher.finish(what, &context).await,
            };
            if matches!(ended, Ended::Outcome(_)) {
                dispatcher.settled();
            }
            ended
        };
        tokio::select! {
            ended = life => Some(ended),
            () = fuse.blown.notified() => None,
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn context() -> Context {
    let (progress, _) = watch::channel(Progress::phase("starting"));
    let (fresh_document, _) = mpsc::channel(1);
    let (_, connected) = watch::channel(true);
    Context { progress, fresh_document, connected, halt: Halt::default() }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

/// Runs the job once for every half call, and checks each time. `check` gets the bench and the outcome.
async fn sweep(make: impl Fn() -> Bench, check: impl Fn(&Bench, &Ended)) -> usize {
    let undisturbed = make();
    check(&undisturbed, &undisturbed.live_to_the_end().await);
    let fuse = Fuse::new(usize::MAX);
    make().live(Rc::clone(&fuse)).await.unwrap();
    let points = fuse.seen.get();
    for point in 0..points {
        let bench = make();
        let killed = bench.live(Fuse::new(point)).await;
        assert_eq!(killed, None, "point {point}");
        let ended = bench.live_to_the_end().await;
        println!("killed at point {point}: {ended:?}");
        check(&bench, &ended);
    }
    points
}

/// Answers every request with the new firmware.
fn serve_firmware() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/firmware", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 1024];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&piece[..read]),
                }
            }
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                NEW.len()
            );
            let _ = stream.write_all(NEW);
        }
    });
    url
}

fn firmware(url: &str) -> serde_json::Value {
    json!({
        "operation": "update-firmware",
        "url": url,
        "version": "2.0",
        "checksum": Digest::of_bytes(NEW).to_string(),
    })
}

fn verdict(ended: &Ended) -> (Verdict, &str) {
    let Ended::Outcome(outcome) = ended else { panic!("{ended:?}") };
    (outcome.verdict, &outcome.reason)
}

#[tokio::test]
async fn firmware_that_succeeds() {
    let url = serve_firmware();
    let make = || {
        let bench = Bench::new("true", firmware(&url));
        std::fs::write(bench.path("firmware"), OLD).unwrap();
        bench
    };
    let points = sweep(make, |bench, ended| {
        assert!(
            [(Verdict::Succeeded, "installed"), (Verdict::Succeeded, "already-installed")]
                .contains(&verdict(ended))
        );
        assert_eq!(read(&bench.path("firmware")), NEW);
        assert_eq!(read(&bench.path("firmware.previous")), OLD);
        assert_eq!(bench.names(), ["boot_id", "firmware", "firmware.previous", "installed.json"]);
    })
    .await;
    assert!(points > 15, "{points}");
}

#[tokio::test]
async fn firmware_whose_command_fails() {
    let url = serve_firmware();
    let make = || {
        let bench = Bench::new("exit 1", firmware(&url));
        std::fs::write(bench.path("firmware"), OLD).unwrap();
        bench
    };
    sweep(make, |bench, ended| {
        assert_eq!(verdict(ended), (Verdict::Failed, "command-failed"));
        assert_eq!(read(&bench.path("firmware")), OLD);
        assert_eq!(bench.names(), ["boot_id", "firmware", "refused.json"]);
    })
    .await;
}

#[tokio::test]
async fn the_first_firmware_whose_command_fails() {
    let url = serve_firmware();
    sweep(
        || Bench::new("exit 1", firmware(&url)),
        |bench, ended| {
            assert_eq!(verdict(ended), (Verdict::Failed, "command-failed"));
            assert_eq!(bench.names(), ["boot_id", "refused.json"]);
        },
    )
    .await;
}

#[tokio::test]
async fn a_configuration() {
    let document = json!({"operation": "update-config", "config": {"a": 1, "b": null}});
    let make = || {
        let bench = Bench::new("true", document.clone());
        std::fs::write(bench.path("config"), r#"{"b":2}"#).unwrap();
        bench
    };
    sweep(make, |bench, ended| {
        assert!(
            [(Verdict::Succeeded, "configured"), (Verdict::Succeeded, "unchanged")].contains(&verdict(ended))
        );
        let config: serde_json::Value = serde_json::from_slice(&read(&bench.path("config"))).unwrap();
        assert_eq!(config, json!({"a": 1}));
        assert_eq!(read(&bench.path("config.previous")), br#"{"b":2}"#);
        assert_eq!(bench.names(), ["boot_id", "config", "config.previous"]);
    })
    .await;
}

#[tokio::test]
async fn a_reboot_happens_once() {
    let make = || {
        let bench = Bench::new("true", json!({"operation": "reboot"}));
        let (count, boot_id) = (bench.path("count"), bench.path("boot_id"));
        let script = format!("echo once >> {}; echo boot-2 > {}", count.display(), boot_id.display());
        std::fs::write(bench.path("reboot.sh"), script).unwrap();
        bench
    };
    sweep(make, |bench, ended| {
        assert_eq!(verdict(ended), (Verdict::Succeeded, "rebooted"));
        assert_eq!(read(&bench.path("count")), b"once\n");
        assert_eq!(bench.names(), ["boot_id", "count", "reboot.sh"]);
    })
    .await;
}

/// Found while fuzzing: whoever wrote the journal.
#[tokio::test]
async fn a_count_of_attempts_that_cannot_be_raised_ends_nothing() {
    let bench = Bench::new("true", json!({"operation": "reboot"}));
    let entry = json!({
        "format": 2, "attempts": u32::MAX,
        "execution": {"job_id": "job", "execution_number": 1, "queued_at": 1_700_000_000},
        "phase": {
            "phase": "rolling-back",
            "change": {"target": {"config": "config"}, "digest": "DIGEST", "before": "absent", "commit": null},
            "outcome": {"verdict": "failed", "reason": "command-failed", "message": "exit code 1"},
        },
    });
    let entry = entry.to_string().replace("DIGEST", &Digest::of_bytes(NEW).to_string());
    std::fs::write(bench.path("journal.json"), entry).unwrap();
    assert_eq!(verdict(&bench.live_to_the_end().await), (Verdict::Failed, "command-failed"));
}
