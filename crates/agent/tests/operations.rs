//! Every operation over the local cloud: its success, and each of its failures, as the operator reads them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use support::cloud::{arn, aws_done};
use support::meters::meters_agree;
use support::{Device, Operator, THING, cloud_with_bucket, exists, firmware_document, sha256};

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect()
}

/// The main job as an operator does it: everything with the AWS CLI.
#[test]
fn firmware_ordered_with_the_aws_cli() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    let (old, new) = (bytes(1, 5000), bytes(2, 3_000_000));
    device.write("firmware.bin", &old);
    std::fs::set_permissions(device.path("firmware.bin"), PermissionsExt::from_mode(0o754)).unwrap();
    cloud.upload("fw", &new);
    device.start();
    let document = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(document.path(), firmware_document("fw", "2.0", &sha256(&new)).to_string()).unwrap();
    let target = arn(&format!("thing/{THING}"));
    let order = |job: &str| {
        let file = format!("file://{}", document.path().display());
        let role = "roleArn=arn:aws:iam::123456789012:role/jobs,expiresInSec=3600";
        let words = ["iot", "create-job", "--job-id", job, "--targets", &target, "--document", &file];
        aws_done(cloud.api(), &[&words[..], &["--presigned-url-config", role]].concat());
    };
    order("fw-2");
    cloud.outcome("fw-2").is("SUCCEEDED", "installed");
    let described =
        aws_done(cloud.api(), &["iot", "describe-job-execution", "--job-id", "fw-2", "--thing-name", THING]);
    assert_eq!(described["execution"]["status"], "SUCCEEDED");
    assert!(!described.to_string().contains("X-Amz"));

    assert_eq!(device.read("firmware.bin"), new);
    assert_eq!(device.read("firmware.bin.previous"), old);
    let mode = std::fs::metadata(device.path("firmware.bin")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o754);
    assert!(!exists(&device.path("firmware.bin.staged")));

    order("fw-2-again");
    cloud.outcome("fw-2-again").is("SUCCEEDED", "already-installed");
    assert_eq!(device.read("firmware.bin.previous"), old);

    // The record alone is not believed: the file must be what was installed.
    device.write("firmware.bin", b"tampered");
    order("fw-2-repair");
    cloud.outcome("fw-2-repair").is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), new);
    assert!(!device.log().contains("X-Amz"), "a presigned query in the log");
    meters_agree(&cloud, &device, None);
}

#[test]
fn firmware_that_must_not_be_installed() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    let (old, new) = (bytes(1, 5000), bytes(2, 100_000));
    device.write("firmware.bin", &old);
    device.configure("download", "max_size_bytes = 200000");
    cloud.upload("fw", &new);
    cloud.upload("large", &bytes(3, 200_001));
    device.start();
    let good = firmware_document("fw", "2.0", &sha256(&new));
    let with = |member: &str, value: Value| {
        let mut document = good.clone();
        document[member] = value;
        document
    };
    let cases = [
        ("wrong-checksum", with("checksum", json!(sha256(b"other"))), "FAILED", "checksum-mismatch"),
        ("wrong-size", with("size", json!(99_999)), "FAILED", "size-mismatch"),
        ("missing", firmware_document("nothing", "2.0", &sha256(&new)), "FAILED", "http-status"),
        ("large", firmware_document("large", "2.0", &sha256(&new)), "FAILED", "too-large"),
        ("plain-http", with("url", json!("http://example.com/fw")), "REJECTED", "invalid-document"),
        ("no-version", with("version", Value::Null), "REJECTED", "invalid-document"),
        ("short-digest", with("checksum", json!("sha256:00")), "REJECTED", "invalid-document"),
    ];
    for (job, document, status, reason) in cases {
        cloud.run(job, &document).is(status, reason);
        assert_eq!(device.read("firmware.bin"), old, "{job}");
        assert!(!exists(&device.path("firmware.bin.staged")), "{job}");
        assert!(!exists(&device.path("firmware.bin.previous")), "{job}");
    }
    // And it still works.
    cloud.run("good", &good).is("SUCCEEDED", "installed");
}

#[test]
fn firmware_whose_place_is_a_symbolic_link_is_refused() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    device.write("elsewhere", b"precious");
    std::os::unix::fs::symlink(device.path("elsewhere"), device.path("firmware.bin")).unwrap();
    cloud.upload("fw", b"new");
    device.start();
    cloud.run("link", &firmware_document("fw", "2.0", &sha256(b"new"))).is("FAILED", "target-not-a-file");
    assert_eq!(device.read("elsewhere"), b"precious");
}

#[test]
fn a_command_that_fails_brings_the_previous_firmware_back() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    device.write("firmware.bin", b"old");
    cloud.upload("fw", b"new");
    let cases = [
        ("exit", "exit 3", "command-failed"),
        ("signal", "kill -KILL $$", "command-killed"),
        ("hangs", "sleep 1000", "command-timeout"),
        ("floods", "yes", "command-output-overrun"),
    ];
    // The command fails for the new firmware alone: it must work again once the old one is back.
    let (firmware, seen) =
        (device.path("firmware.bin").display().to_string(), device.path("seen").display().to_string());
    let script = |ends: &str| {
        format!("cat {firmware} >> {seen}; echo >> {seen}; if grep -q new {firmware}; then {ends}; fi\n")
    };
    let command = device.script("command.sh", &script("exit 3"));
    device.configure("firmware", &format!("command = {command}\ncommand_timeout_seconds = 1"));
    device.start();
    for (job, ends, reason) in cases {
        device.write("command.sh", script(ends));
        device.write("seen", "");
        cloud.run(job, &firmware_document("fw", "2.0", &sha256(b"new"))).is("FAILED", reason);
        assert_eq!(device.read("firmware.bin"), b"old", "{job}");
        assert_eq!(device.read("seen"), b"new\nold\n", "{job}");
    }
    device.write("command.sh", "exit 0\n");
    cloud.run("works", &firmware_document("fw", "2.0", &sha256(b"new"))).is("SUCCEEDED", "installed");
}

#[test]
fn configurations() {
    let cloud = support::cloud::Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    let command =
        device.script("reload.sh", &format!("! grep -q refuse-me {:?}\n", device.path("config.json")));
    device.configure("config", &format!("reload_command = {command}"));
    device.start();
    let update = |config: Value| json!({"operation": "update-config", "config": config});
    let in_force = || serde_json::from_slice::<Value>(&device.read("config.json")).unwrap();

    cloud.run("first", &update(json!({"a": {"b": 1}, "c": 2}))).is("SUCCEEDED", "configured");
    assert_eq!(in_force(), json!({"a": {"b": 1}, "c": 2}));
    cloud.run("merged", &update(json!({"a": {"d": [1]}, "c": null}))).is("SUCCEEDED", "configured");
    assert_eq!(in_force(), json!({"a": {"b": 1, "d": [1]}}));
    cloud.run("unchanged", &update(json!({"a": {"b": 1}}))).is("SUCCEEDED", "unchanged");

    let before = device.read("config.json");
    cloud.run("refused", &update(json!({"mode": "refuse-me"}))).is("FAILED", "command-failed");
    assert_eq!(device.read("config.json"), before);

    let replace = json!({"operation": "update-config", "config": {"z": 1}, "mode": "replace"});
    cloud.run("replaced", &replace).is("SUCCEEDED", "configured");
    assert_eq!(in_force(), json!({"z": 1}));

    device.write("config.json", "rate = 5");
    cloud.run("not-json", &update(json!({"z": 2}))).is("FAILED", "config-unreadable");
    assert_eq!(device.read("config.json"), b"rate = 5");
    cloud.run("not-an-object", &update(json!([1]))).is("REJECTED", "invalid-document");
}

#[test]
fn a_reboot_is_proved_by_another_boot_id_and_happens_once() {
    let cloud = support::cloud::Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.simulate_reboots();
    device.start();
    cloud.create_job("reboot", &json!({"operation": "reboot", "delay": 1}));
    assert!(device.wait_for_exit().success());
    assert_eq!(cloud.execution("reboot")["status"], "IN_PROGRESS");
    device.start();
    cloud.outcome("reboot").is("SUCCEEDED", "rebooted");
    assert_eq!(device.read("reboots"), b"boot-1\n");

    // The state is lost over the reboot: the boot id in the status details says that it happened.
    cloud.create_job("forgetful", &json!({"operation": "reboot"}));
    assert!(device.wait_for_exit().success());
    std::fs::remove_dir_all(device.path("state")).unwrap();
    device.meters.differ("the meter is a file of the state");
    device.start();
    cloud.outcome("forgetful").is("SUCCEEDED", "rebooted");
    assert_eq!(device.read("reboots"), b"boot-1\nboot-1-after\n");
}

#[test]
fn a_reboot_that_does_not_happen_is_no_loop() {
    let cloud = support::cloud::Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.write("boot-id", "boot-1");
    let text = format!("echo once >> {}\nkill -TERM $PPID\n", device.path("reboots").display());
    let command = device.script("reboot.sh", &text);
    device.configure("reboot", &format!("command = {command}\nboot_id_file = {:?}", device.path("boot-id")));
    cloud.create_job("reboot", &json!({"operation": "reboot"}));
    for _ in 0..3 {
        device.start();
        assert!(device.wait_for_exit().success());
    }
    device.start();
    cloud.outcome("reboot").is("FAILED", "reboot-did-not-happen");
    assert_eq!(device.read("reboots"), b"once\nonce\nonce\n");

    device.write("reboot.sh", "exit 1\n");
    cloud.run("refused", &json!({"operation": "reboot"})).is("FAILED", "reboot-failed");
    cloud.run("late", &json!({"operation": "reboot", "delay": 86_401})).is("REJECTED", "invalid-document");
}

#[test]
fn what_is_not_understood_is_not_run() {
    let cloud = support::cloud::Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.start();
    let unknown = cloud.run("unknown", &json!({"operation": "format-disk"}));
    unknown.is("FAILED", "unknown-operation");
    assert!(unknown.message.contains("format-disk"), "{unknown:?}");
    for (job, document) in [("empty", json!({})), ("number", json!({"operation": 7}))] {
        let rejected = cloud.run(job, &document);
        rejected.is("REJECTED", "invalid-document");
        assert!(rejected.message.starts_with("operation: found"), "{rejected:?}");
    }
}

#[test]
fn a_device_without_targets_says_so() {
    let cloud = support::cloud::Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    let text = std::fs::read_to_string(device.config()).unwrap();
    let text: String = text.split("# Where update-firmware").next().unwrap().to_owned();
    std::fs::write(device.config(), text).unwrap();
    device.start();
    let firmware = firmware_document("fw", "2.0", &sha256(b"new"));
    cloud.run("firmware", &firmware).is("FAILED", "not-configured");
    cloud.run("config", &json!({"operation": "update-config", "config": {}})).is("FAILED", "not-configured");
}

/// The operator sees how far it is, and not more often than configured.
#[test]
fn progress_is_reported_at_its_pace() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    device.configure("report", "progress_interval_seconds = 1");
    let new = bytes(2, 1_000_000);
    cloud.upload("fw", &new);
    cloud.fault(json!({"fault": "object-slow", "bytes": 300_000}));
    device.start();
    cloud.create_job("slow", &firmware_document("fw", "2.0", &sha256(&new)));
    let execution = support::until("progress", || {
        let execution = cloud.execution("slow");
        execution["statusDetails"]["detailsMap"]["progress"].is_string().then_some(execution)
    });
    assert_eq!(execution["statusDetails"]["detailsMap"]["phase"], "downloading");
    let ended = cloud.outcome("slow");
    ended.is("SUCCEEDED", "installed");
    meters_agree(&cloud, &device, None);
    // Created, IN_PROGRESS, at most one report a second of some four, SUCCEEDED.
    let version = ended.execution["versionNumber"].as_u64().unwrap();
    assert!((4..=10).contains(&version), "{version}");
}
