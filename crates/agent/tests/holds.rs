//! Others on the device hold a reboot off: a lock of systemd's, a package's program.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, until};

/// logind, as busctl prints what it answers.
const BUSCTL: &str = "#!/bin/sh\ncd $(dirname $0)/..\necho \"$*\" >> asked\ncat locks\n";
const LOCK: &str = r#"{"type":"a(ssssuu)","data":[[["shutdown:sleep","pump","dosing","block",0,77]]]}"#;
const NONE: &str = r#"{"type":"a(ssssuu)","data":[[]]}"#;

fn program(device: &Device, name: &str, text: &str) {
    std::fs::create_dir_all(device.path(name).parent().unwrap()).unwrap();
    device.write(name, text);
    std::fs::set_permissions(device.path(name), PermissionsExt::from_mode(0o755)).unwrap();
}

/// A device on which reboots are simulated, and logind.
fn device(cloud: &Cloud) -> Device {
    let device = Device::create(cloud);
    device.simulate_reboots();
    let directory = device.path("hold.d");
    device.configure("policy", &format!("hook_interval_seconds = 1\nhold_directory = {directory:?}"));
    program(&device, "bin/busctl", BUSCTL);
    device.write("locks", NONE);
    device
}

fn start(device: &mut Device) {
    let path = format!("{}:{}", device.path("bin").display(), std::env::var("PATH").unwrap());
    device.start_with_environment(&[("PATH", &path), ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")]);
}

fn waiting(cloud: &Cloud, job: &str) -> Value {
    until("it to wait", || {
        let execution = cloud.wait_for(job, "IN_PROGRESS");
        (execution["statusDetails"]["detailsMap"]["phase"] == "waiting").then_some(execution)
    })
}

/// For the so-manieth time.
fn reboots(device: &mut Device, times: usize) {
    until("the reboot", || (ordered(device) == times).then_some(()));
    device.wait_for_exit();
    start(device);
}

fn ordered(device: &Device) -> usize {
    std::fs::read_to_string(device.path("reboots")).unwrap_or_default().lines().count()
}

#[test]
fn a_reboot_waits_for_who_holds_a_lock() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    device.write("locks", LOCK);
    start(&mut device);
    cloud.create_job("job", &json!({"operation": "reboot"}));
    waiting(&cloud, "job");
    until("the reason", || device.log().contains("by=\"pump (process 77): dosing\"").then_some(()));
    let asked = |device: &Device| String::from_utf8(device.read("asked")).unwrap();
    let before = asked(&device).len();
    until("it to be asked again", || (asked(&device).len() > before).then_some(()));
    assert!(asked(&device).contains("org.freedesktop.login1.Manager ListInhibitors"));
    assert_eq!(ordered(&device), 0);
    device.write("locks", NONE);
    reboots(&mut device, 1);
    cloud.outcome("job").is("SUCCEEDED", "rebooted");
}

#[test]
fn a_reboot_waits_for_a_program_of_the_folder() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    program(
        &device,
        "hold.d/50-pump",
        "#!/bin/sh\ncd $(dirname $0)/..\necho $FLEETHAND_OPERATION > told\n! test -e busy || exit 75\n",
    );
    device.write("busy", "");
    start(&mut device);
    cloud.create_job("job", &json!({"operation": "reboot"}));
    waiting(&cloud, "job");
    assert_eq!(device.read("told"), b"reboot\n");
    std::fs::remove_file(device.path("busy")).unwrap();
    reboots(&mut device, 1);
    cloud.outcome("job").is("SUCCEEDED", "rebooted");
}

/// Locks can be ignored, and a logind that makes no sense keeps no device from its update.
#[test]
fn what_logind_says_can_be_ignored_and_nonsense_is() {
    let cloud = Cloud::start(&[]);
    let mut nonsense = device(&cloud);
    nonsense.write("locks", "what?");
    start(&mut nonsense);
    cloud.create_job("job", &json!({"operation": "reboot"}));
    reboots(&mut nonsense, 1);
    cloud.outcome("job").is("SUCCEEDED", "rebooted");
    assert!(nonsense.log().contains("not understood"), "{}", nonsense.log());
    nonsense.stop();

    nonsense.write("locks", LOCK);
    nonsense.configure("policy", "inhibitors = false");
    start(&mut nonsense);
    cloud.create_job("again", &json!({"operation": "reboot"}));
    reboots(&mut nonsense, 2);
    cloud.outcome("again").is("SUCCEEDED", "rebooted");
}
