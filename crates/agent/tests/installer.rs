//! Firmware by an installer of the product's own: every way in which it can end, over the local cloud, with the real
//! agent. The product is a file `system`; what its installer prepared comes into force when the device boots.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::fs;

use serde_json::json;
use support::cloud::Cloud;
use support::{Device, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

const OLD: &[u8] = b"the old system";
const NEW: &[u8] = b"the new system";

/// The installer of the documentation, more or less. A test puts a script `on-VERB` in its way.
const INSTALLER: &str = r#"
echo $1 $FLEETHAND_VERSION >> calls
[ ! -f on-$1 ] || . ./on-$1
case $1 in
install) cp "$2" next && exit 10 ;;
check) [ "sha256:$(sha256sum < system | cut -d' ' -f1)" = "$FLEETHAND_CHECKSUM" ] || exit 20 ;;
confirm) rm -f previous ;;
rollback) rm -f next; [ -f previous ] || exit 0; cp previous next; exit 10 ;;
*) exit 64 ;;
esac
"#;

const BOOT: &str = "if [ -f next ]; then mv system previous; mv next system; fi\n";

fn device(cloud: &Cloud) -> Device {
    let device = Device::create(cloud);
    device.write("system", OLD);
    device.simulate_reboots();
    let reboot = String::from_utf8(device.read("reboot.sh")).unwrap();
    let (enter, rest) = reboot.split_once('\n').unwrap();
    device.write("reboot.sh", format!("{enter}\n{BOOT}{rest}"));
    let enter = format!("cd {}\n", device.path("").display());
    let command = device.script("installer.sh", &format!("{enter}{INSTALLER}"));
    let config = fs::read_to_string(device.config()).unwrap();
    let (before, after) = config.split_once("[firmware]\n").unwrap();
    let (_file, after) = after.split_once('\n').unwrap();
    let table = "[firmware]\ntarget = \"command\"\n[firmware.installer]\n";
    let config = format!(
        "{before}{table}command = {command}\ntimeout_seconds = 20\n{after}\n[health]\ninterval_seconds = 1\nwithin_seconds = 1\n"
    );
    device.write("fleethand.toml", config);
    cloud.upload("fw", NEW);
    device
}

fn calls(device: &Device) -> String {
    fs::read_to_string(device.path("calls")).unwrap_or_default().replace(" 2.0\n", " ")
}

fn order(cloud: &Cloud, job: &str) {
    cloud.create_job(job, &firmware_document("fw", "2.0", &sha256(NEW)));
}

/// Nothing of the job is left where the file was received.
fn nothing_is_staged(device: &Device) {
    assert_eq!(device.names_in("state/staging"), Vec::<String>::new());
}

#[test]
fn installed_rebooted_checked_confirmed() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    device.start();
    order(&cloud, "update");
    assert!(device.wait_for_exit().success());
    assert_eq!(cloud.execution("update")["status"], "IN_PROGRESS");
    device.start();
    cloud.outcome("update").is("SUCCEEDED", "installed");
    assert_eq!(device.read("system"), NEW);
    assert_eq!(calls(&device), "install check confirm ");
    nothing_is_staged(&device);

    // The record alone is not believed: the installer is asked.
    order(&cloud, "again");
    cloud.outcome("again").is("SUCCEEDED", "already-installed");
    assert_eq!(calls(&device), "install check confirm check ");
}

#[test]
fn installed_without_a_reboot() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    device.write("on-install", "cp \"$2\" system; exit 0\n");
    device.start();
    order(&cloud, "update");
    cloud.outcome("update").is("SUCCEEDED", "installed");
    assert_eq!(calls(&device), "install check confirm ");
    assert!(!exists(&device.path("reboots")));
}

#[test]
fn a_system_that_is_not_well_is_rolled_back_with_another_reboot() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let check =
        device.script("well.sh", &format!("echo no sensor; grep -q old {:?}\n", device.path("system")));
    device.configure("health", &format!("commands = [{check}]"));
    device.start();
    order(&cloud, "update");
    for _ in ["into the trial", "and back"] {
        assert!(device.wait_for_exit().success());
        device.start();
    }
    let ended = cloud.outcome("update");
    assert!(ended.is("FAILED", "health-check-failed").message.contains("no sensor"), "{ended:?}");
    assert_eq!(device.read("system"), OLD);
    assert_eq!(calls(&device), "install check rollback ");
    nothing_is_staged(&device);
}

#[test]
fn a_system_that_did_not_come_up_is_recognised() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    // The bootloader gives up on it: what was before boots.
    device.write("on-install", "cp \"$2\" broken; exit 10\n");
    device.start();
    order(&cloud, "update");
    assert!(device.wait_for_exit().success());
    device.start();
    cloud.outcome("update").is("FAILED", "bootloader-rolled-back");
    assert_eq!(device.read("system"), OLD);
    assert_eq!(calls(&device), "install check rollback ");
}

#[test]
fn an_installer_that_does_not_do_its_work() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let text = fs::read_to_string(device.config()).unwrap();
    device.write("fleethand.toml", text.replace("timeout_seconds = 20", "timeout_seconds = 1"));
    device.start();
    let cases = [
        ("refused", "install", "echo not this board; exit 20", "installer-refused", "install "),
        ("failed", "install", "echo half > next; exit 5", "command-failed", "install rollback "),
        ("killed", "install", "kill -SEGV $$", "command-killed", "install rollback "),
        ("hangs", "install", "sleep 1000", "command-timeout", "install rollback "),
        ("floods", "install", "yes", "command-output-overrun", "install rollback "),
        ("unsure", "check", "exit 1", "command-failed", "install check rollback "),
        ("unconfirmed", "confirm", "exit 1", "command-failed", "install check confirm rollback "),
        ("stuck", "rollback", "exit 1", "rollback-failed", "install rollback "),
    ];
    for (job, verb, script, reason, expected) in cases {
        for name in ["on-install", "on-check", "on-confirm", "on-rollback", "calls"] {
            let _ = fs::remove_file(device.path(name));
        }
        let now =
            if verb == "rollback" { "exit 1\n" } else { "cp system previous; cp \"$2\" system; exit 0\n" };
        device.write("on-install", now);
        device.write("on-rollback", "rm -f next; [ ! -f previous ] || mv previous system; exit 0\n");
        device.write(&format!("on-{verb}"), format!("{script}\n"));
        order(&cloud, job);
        cloud.outcome(job).is("FAILED", reason);
        assert_eq!(calls(&device), expected, "{job}");
        assert_eq!(device.read("system"), OLD, "{job}");
        nothing_is_staged(&device);
    }
}

/// Killed, it installs again and is not the worse for it; the installer does not run on beside its repetition.
#[test]
fn an_agent_that_is_killed_or_stopped_while_it_installs_goes_on() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    // The first two runs never end by themselves.
    device.write("on-install", "echo $$ > pid; [ $(grep -c install calls) -gt 2 ] || sleep 1000\n");
    device.start();
    order(&cloud, "update");
    let mut seen = String::new();
    for end in [Device::kill, |device: &mut Device| _ = device.stop()] {
        let pid = until("the installer to run", || {
            let pid = fs::read_to_string(device.path("pid")).ok()?;
            (pid.ends_with('\n') && pid != seen).then_some(pid)
        });
        end(&mut device);
        until("the installer to end", || {
            let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            (state.is_empty() || state.contains(") Z ")).then_some(())
        });
        seen = pid;
        device.start();
    }
    assert!(device.wait_for_exit().success());
    device.start();
    cloud.outcome("update").is("SUCCEEDED", "installed");
    assert_eq!(device.read("system"), NEW);
    assert_eq!(calls(&device), "install install install check confirm ");
}

#[test]
fn a_withdrawn_job_is_rolled_back() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    device.write("on-install", "echo half > next; sleep 1000\n");
    device.start();
    order(&cloud, "update");
    until("the installer to run", || exists(&device.path("next")).then_some(()));
    cloud.done("CancelJob", json!({"jobId": "update", "force": "true"}), json!({}));
    until("the rollback", || (calls(&device) == "install rollback ").then_some(()));
    until("the file to go", || device.names_in("state/staging").is_empty().then_some(()));
    assert!(!exists(&device.path("next")));
    assert_eq!(cloud.execution("update")["status"], "CANCELED");
}

#[test]
fn its_progress_is_seen_in_the_cloud() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    device.configure("report", "progress_interval_seconds = 1");
    device.write("on-install", "echo progress 42; while [ ! -f go ]; do sleep 0.1; done\n");
    device.start();
    order(&cloud, "update");
    let details = until("progress", || {
        let details = cloud.execution("update")["statusDetails"]["detailsMap"].clone();
        details["progress"].is_string().then_some(details)
    });
    assert_eq!((&details["phase"], &details["progress"]), (&json!("installing"), &json!("42%")));
    device.write("go", "");
    assert!(device.wait_for_exit().success());
    device.start();
    cloud.outcome("update").is("SUCCEEDED", "installed");
}
