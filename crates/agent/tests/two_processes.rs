//! The agent without privileges, and the helper that has them: every operation as with one process, whoever of the two
//! ends in the middle of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};
use support::cloud::{Cloud, signal};
use support::helper::agent_user;
use support::{Device, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

const OLD: &[u8] = b"the old firmware";

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect()
}

/// With firmware in force that only root may change.
fn device(cloud: &Cloud) -> Device {
    let mut device = Device::create(cloud);
    device.write("firmware.bin", OLD);
    std::fs::set_permissions(device.path("firmware.bin"), PermissionsExt::from_mode(0o750)).unwrap();
    device.divide();
    device
}

fn clean(device: &Device) {
    for name in ["firmware.bin.staged", "config.json.staged", "state/journal.json"] {
        until(name, || (!exists(&device.path(name))).then_some(()));
    }
}

#[test]
fn every_operation() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let command = device.script("take-up", &format!("! grep -q broken {:?}\n", device.path("firmware.bin")));
    device.configure("firmware", &format!("command = {command}"));
    let _helper = device.start_helper();
    device.start();
    let new = bytes(2, 3_000_000);
    cloud.upload("fw", &new);
    cloud.upload("broken", b"broken");
    let firmware = firmware_document("fw", "2.0", &sha256(&new));
    cloud.run("fw", &firmware).is("SUCCEEDED", "installed");
    assert_eq!(
        (device.read("firmware.bin"), device.read("firmware.bin.previous")),
        (new.clone(), OLD.into())
    );
    let file = std::fs::metadata(device.path("firmware.bin")).unwrap();
    assert_eq!(file.mode() & 0o777, 0o750);
    cloud.run("again", &firmware).is("SUCCEEDED", "already-installed");
    cloud
        .run("wrong-checksum", &firmware_document("broken", "3.0", &sha256(b"other")))
        .is("FAILED", "checksum-mismatch");
    let failed = cloud.run("broken", &firmware_document("broken", "3.0", &sha256(b"broken")));
    assert!(failed.is("FAILED", "command-failed").message.contains("exit code 1"), "{failed:?}");
    assert_eq!(device.read("firmware.bin"), new);

    let update = |config: Value| json!({"operation": "update-config", "config": config});
    let long = "x".repeat(700_000);
    device.write("config.json", json!({"long": long, "b": 0}).to_string());
    cloud.run("config", &update(json!({"b": 1}))).is("SUCCEEDED", "configured");
    let in_force = serde_json::from_slice::<Value>(&device.read("config.json")).unwrap();
    assert_eq!(in_force, json!({"long": long, "b": 1}));
    cloud.run("unchanged", &update(json!({"b": 1}))).is("SUCCEEDED", "unchanged");
    clean(&device);

    // Each has its own state, and what is the device's is the helper's.
    assert_eq!(device.names_in("helper"), ["installed.json"]);
    let agent = device.names_in("state");
    assert!(
        agent.contains(&"history.json".to_owned()) && !agent.contains(&"installed.json".to_owned()),
        "{agent:?}"
    );
    if file.uid() == 0 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", device.pid())).unwrap();
        let uid = agent_user().uid;
        assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    }
}

#[test]
fn a_reboot_takes_the_helper_down_first() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    device.write("boot-id", "boot-1\n");
    let text = format!(
        "cd {}\ncat boot-id >> reboots\necho boot-2 > boot-id\nkill -TERM $PPID\nsleep 100\n",
        device.path("").display()
    );
    let command = device.script("reboot.sh", &text);
    device.configure("reboot", &format!("command = {command}\nboot_id_file = {:?}", device.path("boot-id")));
    let helper = device.start_helper();
    device.start();
    cloud.create_job("reboot", &json!({"operation": "reboot"}));
    until("the order", || exists(&device.path("reboots")).then_some(()));
    until("its loss", || device.log().contains("lost while it ordered the reboot").then_some(()));
    assert_eq!(cloud.execution("reboot")["status"], "IN_PROGRESS");
    device.stop();
    drop(helper);
    let _helper = device.start_helper();
    device.start();
    cloud.outcome("reboot").is("SUCCEEDED", "rebooted");
    assert_eq!(device.read("reboots"), b"boot-1\n");
}

#[test]
fn the_helper_is_waited_for_at_the_start() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    device.start();
    until("the complaint", || device.log().contains("waiting for the helper").then_some(()));
    device.stop();
    device.start();
    cloud.create_job("config", &json!({"operation": "update-config", "config": {"a": 1}}));
    let _helper = device.start_helper();
    cloud.outcome("config").is("SUCCEEDED", "configured");
}

/// As systemd starts it. The agent does not notice that it was away.
#[test]
fn an_idle_helper_ends_and_the_agent_finds_the_next_one() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    device.configure("helper", "idle_seconds = 1");
    let mut helper = device.start_helper_by_socket();
    device.start();
    for n in 1..=2 {
        let document = json!({"operation": "update-config", "config": {"n": n}});
        cloud.run(&format!("job-{n}"), &document).is("SUCCEEDED", "configured");
        let status = until("the helper to end", || helper.try_wait().unwrap());
        assert!(status.success(), "{status}");
        helper = device.start_helper_by_socket();
    }
    until("the helper to end", || helper.try_wait().unwrap());
    assert!(!device.log().contains("lost"));
}

/// The helper's place is taken meanwhile, and what is left over is the agent's to finish.
#[test]
fn an_installation_without_the_cloud() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    let once = device.path("once").display().to_string();
    let command =
        device.script("take-up", &format!("test -e {once} || exit 0\nrm {once}\nkill -9 $PPID\nsleep 100"));
    device.configure("firmware", &format!("command = {command}"));
    device.write("fw", b"new");
    let image = device.path("fw").display().to_string();
    assert_eq!(install(&device, &image, "2.0"), Ok(()));
    assert_eq!(
        (device.read("firmware.bin"), device.names_in("helper")),
        (b"new".into(), vec!["installed.json".to_owned()])
    );
    device.write("once", "");
    device.write("fw", b"newer");
    install(&device, &image, "3.0").unwrap_err();
    let helper = device.start_helper();
    device.start();
    until("it is finished", || device.log().contains("version 3.0 is in force").then_some(()));
    clean(&device);
    device.stop();
    // Nobody is served at the moment, and the helper need not be stopped.
    assert_eq!(install(&device, &image, "4.0"), Ok(()));
    drop(helper);
}

fn install(device: &Device, image: &str, version: &str) -> Result<(), String> {
    let output = device.fleethand(&["install", image, "--version", version]);
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

/// Which of the two ends.
#[derive(Debug, Clone, Copy)]
enum Ends {
    HelperKilled,
    HelperStopped,
    AgentKilled,
}

const ENDS: [Ends; 3] = [Ends::HelperKilled, Ends::HelperStopped, Ends::AgentKilled];

#[test]
fn in_the_middle_of_a_download() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let helper = device.start_helper();
    device.start();
    for (i, ends) in ENDS.into_iter().enumerate() {
        let new = bytes(i as u8 + 2, 2_000_000);
        cloud.upload("fw", &new);
        cloud.fault(json!({"fault": "object-slow", "bytes": 1_000_000}));
        let job = format!("job-{i}");
        cloud.create_job(&job, &firmware_document("fw", &job, &sha256(&new)));
        let staged = device.path("firmware.bin.staged");
        until("some bytes", || {
            std::fs::metadata(&staged).is_ok_and(|staged| staged.len() > 100_000).then_some(())
        });
        match ends {
            Ends::HelperKilled => helper.kill(),
            Ends::HelperStopped => helper.stop(),
            Ends::AgentKilled => {
                device.kill();
                device.start();
            }
        }
        cloud.outcome(&job).is("SUCCEEDED", "installed");
        assert_eq!(device.read("firmware.bin"), new, "{ends:?}");
        clean(&device);
    }
}

/// The command ends one of the two while it runs, once.
#[test]
fn in_the_middle_of_a_confirmation() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let (once, runs) = (device.path("once").display().to_string(), device.path("runs").display().to_string());
    let command = device.script("take-up", &format!(". {once}\n"));
    device.configure("firmware", &format!("command = {command}"));
    device.write("once", "");
    let _helper = device.start_helper();
    for (i, ends) in ENDS.into_iter().enumerate() {
        device.start();
        let how = end(ends, &device);
        device.write("once", format!("echo > {once}\necho . >> {runs}\n{how}\nsleep 1000\n"));
        let new = bytes(i as u8 + 2, 100_000);
        cloud.upload("fw", &new);
        let job = format!("job-{i}");
        cloud.create_job(&job, &firmware_document("fw", &job, &sha256(&new)));
        start_again(ends, &mut device);
        cloud.outcome(&job).is("SUCCEEDED", "installed");
        assert_eq!(device.read("firmware.bin"), new, "{ends:?}");
        clean(&device);
        device.stop();
    }
    assert_eq!(device.read("runs"), b".\n.\n.\n");
}

/// What a script does that ends one of the two.
fn end(ends: Ends, device: &Device) -> String {
    match ends {
        Ends::HelperKilled => "kill -KILL $PPID".to_owned(),
        Ends::HelperStopped => "kill -TERM $PPID".to_owned(),
        Ends::AgentKilled => format!("kill -KILL {}", device.pid()),
    }
}

/// systemd does that.
fn start_again(ends: Ends, device: &mut Device) {
    if matches!(ends, Ends::AgentKilled) {
        device.wait_for_exit();
        device.start();
    }
}

/// An installer that does not live to its end the first time.
#[test]
fn in_the_middle_of_an_activation() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let [once, calls, slot] = ["once", "calls", "slot"].map(|name| device.path(name).display().to_string());
    let script = format!(
        "echo $1 >> {calls}\ncase $1 in\ninstall) . {once}; cp $2 {slot};;\nrollback) exit 1;;\nesac\n"
    );
    let command = device.script("installer", &script);
    let text = std::fs::read_to_string(device.config()).unwrap();
    let file = format!("file = {:?}\n", device.path("firmware.bin"));
    assert!(text.contains(&file), "{text}");
    device.write("fleethand.toml", text.replacen(&file, "target = \"command\"\n", 1));
    device.configure("firmware.installer", &format!("command = {command}"));
    device.write("once", "");
    let _helper = device.start_helper();
    for (i, ends) in ENDS.into_iter().enumerate() {
        device.start();
        let how = end(ends, &device);
        device.write("calls", "");
        device.write("once", format!("echo > {once}\n{how}\nsleep 1000\n"));
        let new = bytes(i as u8 + 2, 100_000);
        cloud.upload("fw", &new);
        let job = format!("job-{i}");
        cloud.create_job(&job, &firmware_document("fw", &job, &sha256(&new)));
        start_again(ends, &mut device);
        cloud.outcome(&job).is("SUCCEEDED", "installed");
        assert_eq!(device.read("slot"), new, "{ends:?}");
        let calls = String::from_utf8(device.read("calls")).unwrap();
        assert_eq!(calls.matches("install\n").count(), 2, "{ends:?}: {calls}");
        assert!(!calls.contains("rollback"), "{ends:?}: {calls}");
        device.stop();
    }
}

/// It ends in the same call each time: that is told, and what was before is in force.
#[test]
fn a_helper_that_does_not_survive_a_call() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let command = device.script(
        "take-up",
        &format!("grep -q old {:?} || kill -KILL $PPID; true\n", device.path("firmware.bin")),
    );
    device.configure("firmware", &format!("command = {command}"));
    let helper = device.start_helper();
    device.start();
    cloud.upload("fw", b"new");
    cloud.run("fw", &firmware_document("fw", "2.0", &sha256(b"new"))).is("FAILED", "helper-lost");
    assert_eq!(device.read("firmware.bin"), OLD);
    clean(&device);
    signal(helper.pid(), "KILL");
    cloud.upload("fw", b"old, too");
    cloud.run("next", &firmware_document("fw", "3.0", &sha256(b"old, too"))).is("SUCCEEDED", "installed");
}

#[test]
fn cancellations_and_timeouts_reach_a_call_of_the_helper() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let command = device.script(
        "take-up",
        &format!(
            "grep -q old {:?} && exit\ntouch {:?}\nexec sleep 1000\n",
            device.path("firmware.bin"),
            device.path("runs")
        ),
    );
    device.configure("firmware", &format!("command = {command}"));
    let _helper = device.start_helper();
    device.start();
    cloud.upload("fw", b"new");
    let mut firmware = firmware_document("fw", "2.0", &sha256(b"new"));
    cloud.create_job("canceled", &firmware);
    until("the command", || exists(&device.path("runs")).then_some(()));
    cloud.done("CancelJob", json!({"jobId": "canceled", "force": "true"}), json!({}));
    until("what was before", || (device.read("firmware.bin") == OLD).then_some(()));
    firmware["timeoutSeconds"] = json!(1);
    cloud.run("late", &firmware).is("FAILED", "timeout");
    assert_eq!(device.read("firmware.bin"), OLD);
    clean(&device);
}
