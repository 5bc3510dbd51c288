//! The device's own will: windows, the hook, and what the operator sees of the waiting.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::cloud::{Cloud, aws_done};
use support::{Device, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

const NEW: &[u8] = b"the new firmware";
const OLD: &[u8] = b"the old firmware";
/// Says "not now" as long as the file `busy` is there, and writes down what it was asked.
const HOOK: &str = "cd $(dirname $0)\necho $FLEETHAND_OPERATION $FLEETHAND_VERSION $FLEETHAND_JOB_ID >> asked\n\
     ! test -e busy || exit 75\n";

fn device_with(cloud: &Cloud, policy: &str) -> Device {
    let device = Device::create(cloud);
    device.configure("policy", policy);
    device.configure("report", "progress_interval_seconds = 1");
    device.write("firmware.bin", OLD);
    device
}

fn device_with_hook(cloud: &Cloud, script: &str) -> Device {
    let device = device_with(cloud, "hook_interval_seconds = 1");
    let hook = device.script("hook.sh", script);
    device.configure("policy", &format!("hook = {hook}"));
    device
}

fn order_firmware(cloud: &Cloud, job: &str) {
    cloud.upload("fw", NEW);
    cloud.create_job(job, &firmware_document("fw", "2.0", &sha256(NEW)));
}

/// The execution, once the operator reads that it waits.
fn waiting(cloud: &Cloud, job: &str) -> Value {
    until("it to wait", || {
        let execution = cloud.wait_for(job, "IN_PROGRESS");
        (execution["statusDetails"]["detailsMap"]["phase"] == "waiting").then_some(execution)
    })
}

fn asked(device: &Device) -> usize {
    std::fs::read_to_string(device.path("asked")).unwrap_or_default().lines().count()
}

fn asked_again(device: &Device, times: usize) {
    let before = asked(device);
    until("the hook to be asked", || (asked(device) >= before + times).then_some(()));
}

/// What a clock of UTC shows so many seconds after 1970: hour, minute, RFC 3339.
fn utc(seconds: u64) -> (String, String, String) {
    let time = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%H %M %Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    let time = String::from_utf8(time.stdout).unwrap();
    let words: Vec<_> = time.split_whitespace().map(str::to_owned).collect();
    (words[0].clone(), words[1].clone(), words[2].clone())
}

/// The device's clock shows that the window opens in 25 s.
#[test]
fn firmware_is_fetched_at_once_and_put_in_force_in_the_window() {
    let cloud = cloud_with_bucket(&[]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let opens = (now + 60 + 25) / 60 * 60;
    let (hour, minute, shown) = utc(opens);
    let window =
        format!("windows = [{{ start = \"{minute} {hour} * * *\", minutes = 5 }}]\ntime_zone = \"UTC\"");
    let mut device = device_with(&cloud, &window);
    order_firmware(&cloud, "fw");
    device.start_at(&format!("{:+}s", opens.cast_signed() - 25 - now.cast_signed()));
    let waits = waiting(&cloud, "fw");
    assert_eq!(waits["statusDetails"]["detailsMap"]["until"], json!(shown));
    assert_eq!(device.read("firmware.bin"), OLD);
    assert!(exists(&device.path("firmware.bin.staged")));
    let ended = cloud.outcome("fw");
    ended.is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), NEW);
    // Created, starting, perhaps downloading, waiting, perhaps installing, SUCCEEDED.
    let version = ended.execution["versionNumber"].as_u64().unwrap();
    assert!(version <= 6, "{version}");
}

/// However often the hook is asked, the operator is told once.
#[test]
fn the_hook_postpones_firmware_and_the_modem_sleeps() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device_with_hook(&cloud, HOOK);
    device.write("busy", "");
    order_firmware(&cloud, "fw");
    device.start();
    let waits = waiting(&cloud, "fw");
    assert!(waits["statusDetails"]["detailsMap"]["until"].as_str().unwrap().ends_with('Z'));
    let mut seen = 0;
    cloud.messages(&mut seen);
    asked_again(&device, 5);
    assert_eq!(cloud.messages(&mut seen), Vec::<Value>::new());
    assert_eq!(cloud.execution("fw")["versionNumber"], waits["versionNumber"]);
    assert_eq!(device.read("firmware.bin"), OLD);
    std::fs::remove_file(device.path("busy")).unwrap();
    cloud.outcome("fw").is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), NEW);
    let asked = String::from_utf8(device.read("asked")).unwrap();
    assert!(asked.lines().all(|line| line == "update-firmware 2.0 fw"), "{asked}");
}

#[test]
fn the_hook_refuses_and_nothing_has_changed() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device_with_hook(&cloud, "echo not on this device; exit 1");
    order_firmware(&cloud, "fw");
    device.start();
    let refused = cloud.outcome("fw");
    refused.is("FAILED", "hook-refused");
    assert!(refused.message.contains("not on this device"), "{refused:?}");
    assert_eq!(device.read("firmware.bin"), OLD);
    assert!(!exists(&device.path("firmware.bin.staged")));
    // A configuration disturbs nobody.
    let config = json!({"operation": "update-config", "config": {"a": 1}});
    cloud.run("config", &config).is("SUCCEEDED", "configured");
}

#[test]
fn a_reboot_asks_the_hook_too() {
    let cloud = Cloud::start(&[]);
    let mut device = device_with_hook(&cloud, HOOK);
    device.simulate_reboots();
    device.write("busy", "");
    device.start();
    cloud.create_job("reboot", &json!({"operation": "reboot"}));
    waiting(&cloud, "reboot");
    asked_again(&device, 2);
    assert!(!exists(&device.path("reboots")));
    std::fs::remove_file(device.path("busy")).unwrap();
    device.wait_for_exit();
    device.start();
    cloud.outcome("reboot").is("SUCCEEDED", "rebooted");
    assert!(String::from_utf8(device.read("asked")).unwrap().starts_with("reboot reboot\n"));
}

/// The object is gone meanwhile. Neither stops nor kills are attempts that failed.
#[test]
fn restarts_while_it_waits_fetch_nothing_again_and_fail_nothing() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device_with_hook(&cloud, HOOK);
    device.write("busy", "");
    order_firmware(&cloud, "fw");
    device.start();
    waiting(&cloud, "fw");
    aws_done(cloud.s3(), &["s3api", "delete-object", "--bucket", "firmware", "--key", "fw"]);
    for round in 0..5 {
        if round % 2 == 0 {
            device.kill();
        } else {
            assert!(device.stop().as_secs() < 5);
        }
        device.start();
        asked_again(&device, 1);
    }
    std::fs::remove_file(device.path("busy")).unwrap();
    cloud.outcome("fw").is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), NEW);
}

#[test]
fn a_cancellation_ends_the_wait() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device_with_hook(&cloud, HOOK);
    device.write("busy", "");
    order_firmware(&cloud, "fw");
    device.start();
    waiting(&cloud, "fw");
    cloud.done("CancelJob", json!({"jobId": "fw", "force": "true"}), json!({}));
    until("the staged file to be gone", || (!exists(&device.path("firmware.bin.staged"))).then_some(()));
    let config = json!({"operation": "update-config", "config": {"a": 1}});
    cloud.run("config", &config).is("SUCCEEDED", "configured");
    assert_eq!(
        (device.read("firmware.bin"), cloud.execution("fw")["status"].clone()),
        (OLD.to_vec(), json!("CANCELED"))
    );
}

/// Nobody knows how long the hook postpones, so that counts.
#[test]
fn a_wait_without_end_ends_with_the_operations_timeout() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device_with_hook(&cloud, HOOK);
    device.configure("operation", "timeout_seconds = 4");
    device.write("busy", "");
    order_firmware(&cloud, "fw");
    device.start();
    let ended = cloud.outcome("fw");
    ended.is("FAILED", "timeout");
    assert!(ended.message.contains("still waiting"), "{ended:?}");
    assert_eq!(device.read("firmware.bin"), OLD);
}

#[test]
fn a_file_needs_no_reboot_and_says_so_before_it_is_fetched() {
    let cloud = Cloud::start(&[]);
    let mut device = device_with(&cloud, "");
    device.start();
    let mut document = firmware_document("fw", "2.0", &sha256(NEW));
    document["activate"] = json!("next-reboot");
    cloud.run("fw", &document).is("FAILED", "activate-unsupported");
    document["activate"] = json!("later");
    let rejected = cloud.run("later", &document);
    rejected.is("REJECTED", "invalid-document");
    assert!(rejected.message.contains("expected \"now\" or \"next-reboot\""), "{rejected:?}");
}
