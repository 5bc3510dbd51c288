//! What may happen in between: kills, stops, lost links, lost and repeated answers, broken downloads, cancellation.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, THING, cloud_with_bucket, exists, firmware_document, sha256, until};

const SIZE: usize = 1_500_000;

fn new_firmware() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 7 + i / 253) as u8).collect()
}

/// A device with old firmware, new firmware in the bucket, and downloads that take some seconds.
fn slow_download() -> (Cloud, Device, Value) {
    let (cloud, device, document) = download();
    cloud.fault(json!({"fault": "object-slow", "bytes": 400_000, "count": 0}));
    (cloud, device, document)
}

fn download() -> (Cloud, Device, Value) {
    let cloud = cloud_with_bucket(&[]);
    let device = Device::create(&cloud);
    device.write("firmware.bin", b"old");
    let new = new_firmware();
    cloud.upload("fw", &new);
    (cloud, device, firmware_document("fw", "2.0", &sha256(&new)))
}

fn wait_for_bytes(device: &Device) -> u64 {
    until("bytes to arrive", || {
        let length = std::fs::metadata(device.path("firmware.bin.staged")).ok()?.len();
        (length > 300_000).then_some(length)
    })
}

#[test]
fn an_agent_that_is_killed_in_a_download_goes_on_where_it_was() {
    let (cloud, mut device, document) = slow_download();
    device.start();
    cloud.create_job("fw", &document);
    let before = wait_for_bytes(&device);
    device.kill();
    assert_eq!(device.read("firmware.bin"), b"old");
    device.start();
    // Not a byte of what was there is fetched again: the partial file never gets shorter.
    until("the download to go on", || {
        let length = std::fs::metadata(device.path("firmware.bin.staged")).ok()?.len();
        assert!(length >= before, "{length} after {before}");
        (length > before).then_some(())
    });
    cloud.outcome("fw").is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), new_firmware());
}

#[test]
fn a_stop_in_a_download_is_prompt_and_the_next_start_goes_on() {
    let (cloud, mut device, document) = slow_download();
    device.start();
    cloud.create_job("fw", &document);
    wait_for_bytes(&device);
    let took = device.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(exists(&device.path("firmware.bin.staged")));
    assert_eq!(cloud.execution("fw")["status"], "IN_PROGRESS");
    device.start();
    cloud.outcome("fw").is("SUCCEEDED", "installed");
}

#[test]
fn a_canceled_download_stops_and_its_bytes_go() {
    let (cloud, mut device, document) = slow_download();
    device.start();
    cloud.create_job("fw", &document);
    cloud.create_job("next", &json!({"operation": "update-config", "config": {"a": 1}}));
    wait_for_bytes(&device);
    let begun = Instant::now();
    cloud.done("CancelJob", json!({"jobId": "fw", "force": "true"}), json!({}));
    until("the bytes to go", || (!exists(&device.path("firmware.bin.staged"))).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    cloud.outcome("next").is("SUCCEEDED", "configured");
    assert_eq!(cloud.execution("fw")["status"], "CANCELED");
    assert_eq!(device.read("firmware.bin"), b"old");
}

#[test]
fn a_canceled_command_is_stopped_and_what_it_belongs_to_is_undone() {
    let (cloud, mut device, document) = download();
    let script = format!(
        "echo $$ > {0}\ngrep -q old {1} || sleep 1000\n",
        device.path("pid").display(),
        device.path("firmware.bin").display()
    );
    let command = device.script("command.sh", &script);
    device.configure("firmware", &format!("command = {command}"));
    device.start();
    cloud.create_job("fw", &document);
    until("the command", || exists(&device.path("pid")).then_some(()));
    cloud.create_job("next", &json!({"operation": "update-config", "config": {"a": 1}}));
    cloud.done("CancelJob", json!({"jobId": "fw", "force": "true"}), json!({}));
    cloud.outcome("next").is("SUCCEEDED", "configured");
    assert_eq!(device.read("firmware.bin"), b"old");
}

#[test]
fn an_agent_that_is_killed_in_the_command_finishes_without_the_cloud() {
    let (cloud, mut device, document) = download();
    let script = format!(
        "echo run >> {0}\ntest -e {1} || sleep 1000\n",
        device.path("runs").display(),
        device.path("quick").display()
    );
    let command = device.script("command.sh", &script);
    device.configure("firmware", &format!("command = {command}"));
    device.start();
    cloud.create_job("fw", &document);
    until("the command", || exists(&device.path("runs")).then_some(()));
    device.kill();
    device.write("quick", "");
    cloud.fault(json!({"fault": "refuse", "thing": THING, "count": 2}));
    device.start();
    cloud.outcome("fw").is("SUCCEEDED", "installed");
    assert_eq!(device.read("runs"), b"run\nrun\n");
    assert_eq!(device.read("firmware.bin"), new_firmware());
}

/// An operation that takes too long is ended and undone by the device itself, which says so.
#[test]
fn an_operation_has_an_end() {
    let (cloud, mut device, mut document) = slow_download();
    device.start();
    document["timeoutSeconds"] = json!(1);
    let ended = cloud.run("download", &document);
    ended.is("FAILED", "timeout");
    assert!(ended.message.contains("downloading"), "{ended:?}");
    assert!(!exists(&device.path("firmware.bin.staged")));
    let reboot = json!({"operation": "reboot", "delay": 60, "timeoutSeconds": 1});
    cloud.run("reboot", &reboot).is("FAILED", "timeout");
    device.stop();

    let hangs = format!("grep -q old {} || sleep 1000\n", device.path("firmware.bin").display());
    let command = device.script("command.sh", &hangs);
    device.configure("firmware", &format!("command = {command}"));
    device.configure("operation", "timeout_seconds = 6");
    device.start();
    document.as_object_mut().unwrap().remove("timeoutSeconds");
    let ended = cloud.run("command", &document);
    ended.is("FAILED", "timeout");
    assert!(ended.message.contains("confirming"), "{ended:?}");
    assert_eq!(device.read("firmware.bin"), b"old");
}

/// A device that dies in the middle of a job is seen, and one that works is not taken for dead.
#[test]
fn the_step_timer_sees_a_device_that_died() {
    let cloud = Cloud::start(&["--clock", "manual:1700000000"]);
    let mut device = Device::create(&cloud);
    device.configure("report", "step_timeout_minutes = 5");
    device.start();
    cloud.create_job("reboot", &json!({"operation": "reboot", "delay": 600}));
    // The report of the wait arms the timer for as long as that is.
    until("it to wait", || {
        let details = &cloud.execution("reboot")["statusDetails"]["detailsMap"];
        (details["phase"] == "waiting").then_some(())
    });
    device.kill();
    // The delay and five minutes: not before.
    cloud.advance(14 * 60);
    assert_eq!(cloud.execution("reboot")["status"], "IN_PROGRESS");
    cloud.advance(2 * 60);
    assert_eq!(cloud.execution("reboot")["status"], "TIMED_OUT");
    // Back again, it does not reboot for an order that has ended.
    device.start();
    cloud.run("after", &config(1)).is("SUCCEEDED", "configured");
    until("the journal to be empty", || (!exists(&device.path("state/journal.json"))).then_some(()));
}

/// AWS's device client: after kill -9 the old handler runs on while the job starts again beside it.
#[test]
fn nothing_of_a_command_outlives_a_killed_agent() {
    let (cloud, mut device, document) = download();
    let script = format!(
        "test -e {1} && exit 0\nsh -c 'echo $$ >> {0}; sleep 1000' &\nnohup sh -c 'echo $$ >> {0}; sleep 1000; :'\n",
        device.path("pids").display(),
        device.path("quick").display()
    );
    let command = device.script("command.sh", &script);
    device.configure("firmware", &format!("command = {command}"));
    device.start();
    cloud.create_job("fw", &document);
    let pids = until("the command's children", || {
        let pids = std::fs::read_to_string(device.path("pids")).ok()?;
        (pids.lines().count() == 2).then_some(pids)
    });
    device.kill();
    for pid in pids.lines() {
        let stat = format!("/proc/{pid}/stat");
        let ended = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        until("the command's children to end", || ended().then_some(()));
    }
    device.write("quick", "");
    device.start();
    cloud.outcome("fw").is("SUCCEEDED", "installed");
}

/// AWS's device client segfaults on a document, again at every restart.
#[test]
fn an_execution_on_which_the_agent_dies_again_and_again_is_failed() {
    let (cloud, mut device, document) = slow_download();
    cloud.create_job("fw", &document);
    for life in 1..=3 {
        device.start();
        wait_for_bytes(&device);
        device.kill();
        if life < 3 {
            std::fs::remove_file(device.path("firmware.bin.staged")).unwrap();
        }
    }
    device.start();
    cloud.outcome("fw").is("FAILED", "agent-crashed");
    assert_eq!(device.read("firmware.bin"), b"old");
    assert!(!exists(&device.path("firmware.bin.staged")));
}

/// Only what ended an agent counts: not a stop before IN_PROGRESS is accepted, and not an execution that is offered
/// again because its version had changed.
#[test]
fn stops_and_repeated_offers_are_not_attempts() {
    let (cloud, mut device, document) = slow_download();
    let update = "$aws/things/+/jobs/+/update";
    cloud.fault(json!({"fault": "reject", "code": "InternalError", "topic": update, "count": 0}));
    cloud.create_job("fw", &document);
    for life in 1..=4 {
        device.start();
        until("the offer", || (device.log().matches(" offered ").count() == life).then_some(()));
        device.stop();
    }
    cloud.admin("DELETE", "faults", None);
    cloud.fault(json!({"fault": "object-slow", "bytes": 400_000, "count": 0}));
    cloud.fault(json!({"fault": "reject", "code": "VersionMismatch", "topic": update, "count": 2}));
    device.start();
    wait_for_bytes(&device);
    device.kill();
    device.start();
    cloud.outcome("fw").is("SUCCEEDED", "installed");
}

/// ADU, NervesHub: the URL has expired when the update starts.
#[test]
fn an_expired_url_is_replaced_by_a_fresh_one_once() {
    let (cloud, mut device, document) = download();
    cloud.fault(json!({"fault": "object-expired"}));
    device.start();
    cloud.run("once", &document).is("SUCCEEDED", "installed");
    let mut again = document;
    again["version"] = json!("3.0");
    cloud.fault(json!({"fault": "object-expired", "count": 2}));
    cloud.run("twice", &again).is("FAILED", "url-expired");
    assert_eq!(device.read("firmware.bin"), new_firmware());
}

#[test]
fn broken_downloads_go_on_and_wrong_ones_end() {
    let (cloud, mut device, document) = download();
    device.start();
    let version = |version: &str| {
        let mut document = document.clone();
        document["version"] = json!(version);
        document
    };
    cloud.fault(json!({"fault": "object-truncate", "bytes": 700_000, "count": 2}));
    cloud.run("cut", &version("3")).is("SUCCEEDED", "installed");
    cloud.fault(json!({"fault": "object-status", "status": 503, "count": 2}));
    cloud.run("busy", &version("4")).is("SUCCEEDED", "installed");
    cloud.fault(json!({"fault": "object-status", "status": 410}));
    cloud.run("gone", &version("5")).is("FAILED", "http-status");
    cloud.fault(json!({"fault": "object-corrupt"}));
    cloud.run("corrupt", &version("6")).is("FAILED", "checksum-mismatch");
    assert_eq!(device.read("firmware.bin"), new_firmware());
    assert!(!exists(&device.path("firmware.bin.staged")));
}

fn config(n: u64) -> Value {
    json!({"operation": "update-config", "config": {"n": n}})
}

fn is_in_force(device: &Device, n: u64) {
    let found: Value = serde_json::from_slice(&device.read("config.json")).unwrap();
    assert_eq!(found, json!({"n": n}));
}

/// Each fault on each message of a job's conversation ends in one true terminal state.
#[test]
fn answers_that_are_lost_late_repeated_or_refused() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.configure("connection", "request_timeout_seconds = 1");
    device.start();
    let faults = [
        json!({"fault": "drop", "topic": "$aws/things/+/jobs/+/update/accepted"}),
        json!({"fault": "drop", "topic": "$aws/things/+/jobs/+/update/accepted", "count": 2}),
        json!({"fault": "duplicate", "topic": "$aws/things/+/jobs/#", "count": 10}),
        json!({"fault": "delay", "milliseconds": 1500, "topic": "$aws/things/+/jobs/+/update/accepted", "count": 2}),
        json!({"fault": "delay", "milliseconds": 1500, "topic": "$aws/things/+/jobs/notify-next", "count": 2}),
        json!({"fault": "reject", "code": "VersionMismatch", "topic": "$aws/things/+/jobs/+/update"}),
        json!({"fault": "cut", "thing": THING}),
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        let job = format!("job-{n}");
        cloud.fault(fault.clone());
        let n = n as u64;
        let ended = cloud.run(&job, &config(n));
        assert_eq!(ended.status, "SUCCEEDED", "{fault}: {ended:?}");
        is_in_force(&device, n);
    }
}

/// A notification is a hint: a device that missed the only one asks when it connects again.
#[test]
fn a_lost_notification_is_made_up_for_by_the_next_connect() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.start();
    cloud.run("first", &config(1)).is("SUCCEEDED", "configured");
    cloud.fault(json!({"fault": "drop", "topic": "$aws/things/+/jobs/notify-next"}));
    cloud.create_job("missed", &config(2));
    cloud.fault(json!({"fault": "cut", "thing": THING}));
    cloud.outcome("missed").is("SUCCEEDED", "configured");
    is_in_force(&device, 2);
}

/// The work is done while the device is cut off; the outcome is reported when it is back, and only once.
#[test]
fn an_outcome_survives_an_outage_and_a_kill() {
    let (cloud, mut device, document) = slow_download();
    device.start();
    cloud.create_job("fw", &document);
    wait_for_bytes(&device);
    cloud.fault(json!({"fault": "refuse", "thing": THING, "count": 0}));
    cloud.fault(json!({"fault": "cut", "thing": THING}));
    until("the firmware", || (device.read("firmware.bin") == new_firmware()).then_some(()));
    until("the outcome on disk", || device.log().contains("ended").then_some(()));
    assert_eq!(cloud.execution("fw")["status"], "IN_PROGRESS");
    device.kill();
    device.start();
    cloud.admin("DELETE", "faults", None);
    let ended = cloud.outcome("fw");
    ended.is("SUCCEEDED", "installed");
    let version = ended.execution["versionNumber"].as_u64();
    cloud.run("after", &config(1)).is("SUCCEEDED", "configured");
    assert_eq!(cloud.execution("fw")["versionNumber"].as_u64(), version);
}

#[test]
fn a_cloud_that_restarts_in_the_middle_of_a_job_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let cloud = Cloud::start(&["--data", data]);
    let mut device = Device::create(&cloud);
    let script = format!("while ! test -e {0}; do sleep 0.1; done\n", device.path("go").display());
    let command = device.script("reload.sh", &script);
    device.configure("config", &format!("reload_command = {command}"));
    device.start();
    cloud.create_job("config", &config(1));
    cloud.wait_for("config", "IN_PROGRESS");
    let port = |name: &str| cloud.ready[name].as_str().unwrap().trim_start_matches("http://").to_owned();
    let (api, mqtts) = (port("api"), port("mqtts"));
    drop(cloud);
    device.write("go", "");
    until("the outcome on disk", || device.log().contains("ended").then_some(()));
    let cloud = Cloud::start(&["--data", data, "--api", &api, "--mqtts", &mqtts]);
    cloud.outcome("config").is("SUCCEEDED", "configured");
}

#[test]
fn two_agents_do_not_share_a_state_directory() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.start();
    cloud.run("first", &config(1)).is("SUCCEEDED", "configured");
    let second = device.fleethand(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains("another fleethand uses the state directory"), "{message}");
}

/// AWS lets a deleted job's id be used again: it is another execution, and is done.
#[test]
fn a_job_that_was_deleted_and_ordered_anew_is_done_again() {
    let cloud = Cloud::start(&["--clock", "manual:1700000000"]);
    let mut device = Device::create(&cloud);
    device.start();
    cloud.run("job", &config(1)).is("SUCCEEDED", "configured");
    cloud.done("DeleteJob", json!({"jobId": "job", "force": "true"}), Value::Null);
    cloud.advance(60);
    cloud.run("job", &config(2)).is("SUCCEEDED", "configured");
    is_in_force(&device, 2);
}

#[test]
fn a_retry_of_the_cloud_is_another_execution() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    let command = device.script("reload.sh", &format!("test -e {:?}\n", device.path("allowed")));
    device.configure("config", &format!("reload_command = {command}"));
    device.start();
    let body = json!({
        "targets": [support::cloud::arn(&format!("thing/{THING}"))],
        "document": config(1).to_string(),
        "jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 10}]},
    });
    cloud.done("CreateJob", json!({"jobId": "job"}), body);
    until("the second attempt", || (device.log().matches("rolling back").count() > 1).then_some(()));
    device.write("allowed", "");
    until("success", || (cloud.execution("job")["status"] == "SUCCEEDED").then_some(()));
    is_in_force(&device, 1);
}
