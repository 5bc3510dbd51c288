//! `fleethand install`: the same path without a cloud.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::process::Output;

use serde_json::json;
use support::cloud::Cloud;
use support::{Device, exists, firmware_document, sha256, until};

fn says(output: &Output, code: i32, expected: &str) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(expected), "{expected:?} is not in {text:?}");
}

fn path(device: &Device, name: &str) -> String {
    device.path(name).to_str().unwrap().to_owned()
}

fn device() -> (Cloud, Device) {
    let cloud = Cloud::start(&[]);
    let device = Device::create(&cloud);
    device.write("firmware.bin", b"old");
    std::fs::create_dir(device.path("stick")).unwrap();
    device.write("stick/fw-2.bin", b"new");
    (cloud, device)
}

#[test]
fn firmware_from_a_stick_takes_the_same_path_with_the_same_checks() {
    let (cloud, device) = device();
    // Nothing of it needs a network.
    cloud.kill();
    let image = path(&device, "stick/fw-2.bin");
    says(&device.fleethand(&["install", &image]), 1, "needs --version");
    assert_eq!(device.read("firmware.bin"), b"old");
    says(&device.fleethand(&["install", &image, "--version", "2.0"]), 0, "succeeded: installed");
    assert_eq!(
        (device.read("firmware.bin"), device.read("firmware.bin.previous")),
        (b"new".into(), b"old".into())
    );
    says(&device.fleethand(&["install", &image, "--version", "2.0"]), 0, "already-installed");

    device.write("stick/fw-3.bin", b"newer");
    let document = |checksum: &str| {
        let mut document = firmware_document("keys/fw-3.bin", "3.0", checksum);
        document["url"] =
            json!("${aws:iot:s3-presigned-url:https://s3.eu-west-1.amazonaws.com/B/keys/fw-3.bin}");
        device.write("stick/job.json", document.to_string());
        path(&device, "stick/job.json")
    };
    let wrong = document(&sha256(b"other"));
    says(&device.fleethand(&["install", &wrong]), 1, "failed: checksum-mismatch");
    assert_eq!(device.read("firmware.bin"), b"new");
    let right = document(&sha256(b"newer"));
    says(&device.fleethand(&["install", &right, "--artifact", &image]), 1, "failed: checksum-mismatch");
    says(&device.fleethand(&["install", &right]), 0, "version 3.0 is in force");
    assert_eq!(device.read("firmware.bin"), b"newer");
    assert!(!exists(&device.path("firmware.bin.staged")));
    assert!(!exists(&device.path("state/journal.json")));
}

#[test]
fn any_document_is_done_and_what_is_none_is_said() {
    let (_cloud, device) = device();
    device.write("stick/job.json", json!({"operation": "update-config", "config": {"a": 1}}).to_string());
    let job = path(&device, "stick/job.json");
    says(&device.fleethand(&["install", &job]), 0, "succeeded: configured");
    device.write("stick/job.json", r#"{"operation": "format-disk"}"#);
    says(&device.fleethand(&["install", &job]), 1, "failed: unknown-operation");
    device.write("stick/job.json", "{ torn");
    says(&device.fleethand(&["install", &job]), 1, "is not JSON");
    says(&device.fleethand(&["install", &path(&device, "stick/none"), "--version", "1"]), 1, "cannot read");
    // A folder, a pipe: only a regular file is firmware.
    says(&device.fleethand(&["install", &path(&device, "stick"), "--version", "1"]), 1, "cannot read");
}

#[test]
fn it_keeps_away_from_a_running_agent_and_from_what_a_job_has_begun() {
    let (_cloud, mut device) = device();
    let image = path(&device, "stick/fw-2.bin");
    device.start();
    until("the agent is connected", || device.log().contains("connected").then_some(()));
    says(&device.fleethand(&["install", &image, "--version", "2.0"]), 1, "another fleethand uses");
    device.stop();
    let entry = json!({
        "format": 2, "attempts": 1,
        "execution": {"job_id": "job-7", "execution_number": 1, "queued_at": 1_700_000_000},
        "phase": {"phase": "accepted"},
    });
    device.write("state/journal.json", entry.to_string());
    says(&device.fleethand(&["install", &image, "--version", "2.0"]), 1, "job-7");
    assert_eq!(device.read("firmware.bin"), b"old");
}

/// Killed while its command runs: the agent finishes it after the start, and reports to nobody.
#[test]
fn what_was_interrupted_is_finished_by_the_agent() {
    let (cloud, mut device) = device();
    let again = path(&device, "again");
    let script = format!("test -e {again} && exit 0\ntouch {again}\nkill -9 $PPID\nsleep 100");
    let command = device.script("take-up", &script);
    device.configure("firmware", &format!("command = {command}"));
    let image = path(&device, "stick/fw-2.bin");
    assert!(!device.command(&["install", &image, "--version", "2.0"]).status().unwrap().success());
    assert_eq!(device.read("firmware.bin"), b"new");
    assert!(exists(&device.path("state/journal.json")));
    device.start();
    until("it is finished", || device.log().contains("version 2.0 is in force").then_some(()));
    until("nothing is owed", || (!exists(&device.path("state/journal.json"))).then_some(()));
    let mut seen = 0;
    let updates: Vec<_> = cloud
        .messages(&mut seen)
        .into_iter()
        .filter(|m| m["topic"].as_str().is_some_and(|topic| topic.ends_with("/update")))
        .collect();
    assert!(updates.is_empty(), "{updates:?}");
}
