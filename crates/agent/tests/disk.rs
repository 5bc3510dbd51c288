//! A disk that is full or read-only: a FAILED job with its reason, reported, and a device that works again when the
//! disk does. Needs root, for file systems of its own.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Ended, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

/// A small file system in the memory, mounted over one of a device's folders.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, and a word about it, where nothing can be mounted.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let disk = Self { folder };
        if mount(&["-t", "tmpfs", "-o", &options, "fleethand", disk.text()]) {
            return Some(disk);
        }
        eprintln!("SKIPPED: mounting a tmpfs needs root");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }

    fn remount(&self, how: &str) {
        assert!(mount(&["-o", &format!("remount,{how}"), self.text()]), "remount {how}");
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("filler")).unwrap();
        let full = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(statvfs(self.path()).unwrap().blocks_available(), 0);
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", self.text()]).status();
    }
}

fn mount(arguments: &[&str]) -> bool {
    Command::new("mount").args(arguments).status().is_ok_and(|status| status.success())
}

/// A device whose targets are in `targets` and whose state is in `state`, where those are given.
fn device(cloud: &Cloud, targets: Option<&Disk>, state: Option<&Disk>) -> Device {
    let device = Device::create(cloud);
    let mut text = std::fs::read_to_string(device.config()).unwrap();
    let mut moved = |name: &str, to: &Path| {
        let from = device.path(name);
        assert!(text.contains(from.to_str().unwrap()), "{text}");
        text = text.replace(from.to_str().unwrap(), to.to_str().unwrap());
    };
    if let Some(disk) = targets {
        for name in ["firmware.bin", "config.json"] {
            moved(name, &disk.path().join(name));
        }
    }
    if let Some(disk) = state {
        moved("state", disk.path());
    }
    device.write("fleethand.toml", text);
    device
}

fn config(n: u64) -> Value {
    json!({"operation": "update-config", "config": {"n": n}})
}

fn firmware(version: &str, bytes: &[u8]) -> Value {
    firmware_document("fw", version, &sha256(bytes))
}

/// The process is the same one, and has not grown.
struct Alive {
    pid: u32,
    rss: u64,
}

impl Alive {
    fn new(device: &Device) -> Self {
        Self { pid: device.pid(), rss: device.rss_kib() }
    }

    #[track_caller]
    fn still(&self, device: &Device) {
        assert_eq!(device.pid(), self.pid);
        let rss = device.rss_kib();
        assert!(rss < self.rss + 8 * 1024, "{rss} KiB after {} KiB", self.rss);
    }
}

#[track_caller]
fn failed(ended: &Ended, reasons: &[&str]) {
    assert_eq!(ended.status, "FAILED", "{ended:?}");
    assert!(reasons.contains(&ended.reason.as_str()), "{ended:?}");
}

#[test]
fn targets_on_a_full_disk() {
    let Some(disk) = Disk::mount("2m") else { return };
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud, Some(&disk), None);
    let new = vec![5; 400_000];
    cloud.upload("fw", &new);
    cloud.upload("huge", &vec![6; 3_000_000]);
    device.start();
    cloud.run("first", &firmware("1", &new)).is("SUCCEEDED", "installed");
    cloud.run("configured", &config(1)).is("SUCCEEDED", "configured");
    let alive = Alive::new(&device);

    // Known before the first byte: the disk is larger than what is free of it.
    let huge = firmware_document("huge", "2", &sha256(&vec![6; 3_000_000]));
    let ended = cloud.run("huge", &huge);
    failed(ended.is("FAILED", "no-space"), &["no-space"]);
    assert!(ended.message.contains("available"), "{ended:?}");

    // Full to the last block.
    disk.fill();
    cloud.run("full-config", &config(2)).is("FAILED", "no-space");
    let other = vec![7; 300_000];
    cloud.upload("fw", &other);
    cloud.run("full-firmware", &firmware("2", &other)).is("FAILED", "no-space");
    disk.empty();
    assert_eq!(disk.names(), ["config.json", "firmware.bin"]);
    assert_eq!(std::fs::read(disk.path().join("firmware.bin")).unwrap(), new);

    cloud.run("again-config", &config(3)).is("SUCCEEDED", "configured");
    cloud.run("again-firmware", &firmware("2", &other)).is("SUCCEEDED", "installed");
    alive.still(&device);
}

/// Somebody else takes the space while the bytes arrive.
#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_download() {
    let Some(disk) = Disk::mount("8m") else { return };
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud, Some(&disk), None);
    let new = vec![5; 4_000_000];
    cloud.upload("fw", &new);
    cloud.fault(json!({"fault": "object-slow", "bytes": 2_000_000}));
    device.start();
    cloud.create_job("fw", &firmware("1", &new));
    until("bytes", || exists(&disk.path().join("firmware.bin.staged")).then_some(()));
    disk.fill();
    cloud.outcome("fw").is("FAILED", "no-space");
    assert_eq!(disk.names(), ["filler"]);
    disk.empty();
    cloud.run("again", &firmware("1", &new)).is("SUCCEEDED", "installed");
}

#[test]
fn targets_on_a_disk_that_becomes_read_only() {
    let Some(disk) = Disk::mount("8m") else { return };
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud, Some(&disk), None);
    let new = vec![5; 1_000_000];
    cloud.upload("fw", &new);
    device.start();
    cloud.run("before", &config(1)).is("SUCCEEDED", "configured");
    let alive = Alive::new(&device);
    disk.remount("ro");
    cloud.run("config", &config(2)).is("FAILED", "storage-error");
    let ended = cloud.run("firmware", &firmware("1", &new));
    assert!(ended.is("FAILED", "storage-error").message.contains("ead-only"), "{ended:?}");
    disk.remount("rw");
    assert_eq!(disk.names(), ["config.json"]);
    cloud.run("config-again", &config(2)).is("SUCCEEDED", "configured");
    cloud.run("firmware-again", &firmware("1", &new)).is("SUCCEEDED", "installed");
    alive.still(&device);
}

/// Nothing is taken up that a restart could not know of.
#[test]
fn a_state_folder_that_is_full_or_read_only() {
    let Some(disk) = Disk::mount("256k") else { return };
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, None, Some(&disk));
    device.start();
    cloud.run("before", &config(1)).is("SUCCEEDED", "configured");
    let alive = Alive::new(&device);
    let in_force = device.read("config.json");
    disk.fill();
    failed(&cloud.run("full", &config(2)), &["no-space"]);
    disk.empty();
    disk.remount("ro");
    failed(&cloud.run("read-only", &config(3)), &["storage-error"]);
    disk.remount("rw");
    assert_eq!(device.read("config.json"), in_force);
    alive.still(&device);
    cloud.run("after", &config(4)).is("SUCCEEDED", "configured");
    device.kill();
    device.start();
    cloud.run("after-restart", &config(5)).is("SUCCEEDED", "configured");
    let names = disk.names();
    assert!(!names.iter().any(|name| name.ends_with(".new") || name.ends_with(".unreadable")), "{names:?}");
}

/// A device with old firmware, new firmware in the bucket, and a command that breaks the disk of the state while the
/// file `fragile` is there.
fn device_whose_command_breaks(disk: &Disk, how: &str) -> (Cloud, Device) {
    let cloud = cloud_with_bucket(&[]);
    let device = device(&cloud, None, Some(disk));
    let script = format!("if test -e {}; then {how}; fi\ntrue\n", device.path("fragile").display());
    let command = device.script("command.sh", &script);
    device.configure("firmware", &format!("command = {command}"));
    device.write("firmware.bin", b"old");
    device.write("fragile", "");
    cloud.upload("fw", b"new");
    (cloud, device)
}

/// FAILED has one meaning: the previous file is in force.
#[test]
fn a_state_folder_that_becomes_read_only_in_the_middle_of_an_installation() {
    let Some(disk) = Disk::mount("256k") else { return };
    let (cloud, mut device) =
        device_whose_command_breaks(&disk, &format!("mount -o remount,ro {}", disk.text()));
    device.start();
    cloud.run("read-only", &firmware("1", b"new")).is("FAILED", "storage-error");
    assert_eq!(device.read("firmware.bin"), b"old");

    // An agent that starts on such a disk says so with every job.
    device.kill();
    device.start();
    cloud.run("still", &firmware("1", b"new")).is("FAILED", "storage-error");
    disk.remount("rw");
    std::fs::remove_file(device.path("fragile")).unwrap();
    cloud.run("again", &firmware("1", b"new")).is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), b"new");
}

/// The outcome is told although it cannot be written, and it is true.
#[test]
fn a_state_folder_that_fills_up_in_the_middle_of_an_installation() {
    let Some(disk) = Disk::mount("256k") else { return };
    let (cloud, mut device) =
        device_whose_command_breaks(&disk, &format!("cat /dev/zero > {}/filler", disk.text()));
    device.meters.differ("the meter could not be written");
    device.start();
    let ended = cloud.run("full", &firmware("1", b"new"));
    let in_force: &[u8] = if ended.status == "SUCCEEDED" { b"new" } else { b"old" };
    assert_eq!(device.read("firmware.bin"), in_force, "{ended:?}");
    std::fs::remove_file(device.path("fragile")).unwrap();
    disk.empty();
    cloud.run("again", &firmware("2", b"new")).is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), b"new");
}

/// Readings of other programs are the first that a full disk costs.
#[test]
fn a_disk_full_of_readings_has_room_for_a_job() {
    let Some(disk) = Disk::mount("3m") else { return };
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud, None, Some(&disk));
    let socket = device.path("publish.sock");
    device.configure("publish", &format!("socket = {socket:?}\ntopic_prefix = [\"dt/\"]"));
    device.configure("connection", "reconnect_max_seconds = 1");
    cloud.fault(json!({"fault": "refuse", "thing": support::THING, "count": 0}));
    device.start();
    let mut program = until("the socket", || UnixStream::connect(&socket).ok());
    let mut answers = BufReader::new(program.try_clone().unwrap()).lines();
    let line = json!({"topic": "dt/x", "payload": "x".repeat(4000)}).to_string() + "\n";
    let mut publish = |times| {
        for _ in 0..times {
            program.write_all(line.as_bytes()).unwrap();
            assert_eq!(answers.next().unwrap().unwrap(), r#"{"ok":true}"#);
        }
    };
    publish(100);
    let alive = Alive::new(&device);
    publish(900);
    let space = statvfs(disk.path()).unwrap();
    let free = space.blocks_available() * space.fragment_size();
    assert!((1 << 20..2 << 20).contains(&free), "{free} bytes are free");
    assert!(device.log().contains("the oldest are lost"), "{}", device.log());
    cloud.admin("DELETE", "faults", None);
    cloud.run("job", &config(1)).is("SUCCEEDED", "configured");
    alive.still(&device);
}
