//! How other updaters and job agents fail in the field, and that this one does not: `docs/peers.md` says which defect
//! each of these is named after, and where the others are shown.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

const ACCEPTED: &str = "$aws/things/+/jobs/+/update/accepted";
const UPDATE: &str = "$aws/things/+/jobs/+/update";

fn config(n: u64) -> Value {
    json!({"operation": "update-config", "config": {"n": n}})
}

/// The answers to updates of `job`, in order: the last part of the topic, and the payload.
fn answers(cloud: &Cloud, job: &str) -> Vec<(String, Value)> {
    let about = format!("/jobs/{job}/update/");
    cloud
        .messages(&mut 0)
        .iter()
        .filter_map(|message| {
            let (_, answer) = message["topic"].as_str().unwrap().split_once(&about)?;
            Some((answer.to_owned(), message["payload"].clone()))
        })
        .collect()
}

/// A device whose configuration has a command that says that it runs, and ends when the file `go` is there.
fn device_with_a_long_command(cloud: &Cloud) -> Device {
    let device = Device::create(cloud);
    let script = format!(
        "echo run >> {0}\nwhile ! test -e {1}; do sleep 0.05; done\n",
        device.path("runs").display(),
        device.path("go").display()
    );
    let command = device.script("reload.sh", &script);
    device.configure("config", &format!("reload_command = {command}"));
    device
}

/// AWS's device client publishes the terminal status before IN_PROGRESS in 3 % of trivial jobs.
#[test]
fn nothing_is_done_before_in_progress_is_accepted() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.start();
    cloud.fault(json!({"fault": "delay", "milliseconds": 2000, "topic": ACCEPTED}));
    cloud.create_job("job", &config(1));
    cloud.wait_for("job", "IN_PROGRESS");
    until("the configuration", || {
        let done = exists(&device.path("config.json"));
        let touched = device.names().iter().any(|name| name.starts_with("config.json"));
        // Looked at last: what was done before was not allowed yet.
        let allowed = !answers(&cloud, "job").is_empty();
        assert!(allowed || !touched, "the device was touched before IN_PROGRESS was accepted");
        done.then_some(())
    });
    cloud.outcome("job").is("SUCCEEDED", "configured");
}

/// AWS's device client retries with a new client token each time, without bound.
#[test]
fn unanswered_updates_keep_their_client_token() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.configure("connection", "request_timeout_seconds = 1");
    device.start();
    cloud.fault(json!({"fault": "delay", "milliseconds": 2500, "topic": ACCEPTED}));
    cloud.run("job", &config(1)).is("SUCCEEDED", "configured");
    // What was sent again was answered at once, the first copy 2.5 s late.
    let late = until("the late answer", || {
        let answers = answers(&cloud, "job");
        let begun = |payload: &Value| payload["executionState"]["status"] == "IN_PROGRESS";
        answers.iter().any(|(answer, payload)| answer == "accepted" && begun(payload)).then_some(answers)
    });
    let mut tokens: Vec<_> =
        late.iter().map(|(_, payload)| payload["clientToken"].as_str().unwrap()).collect();
    assert!(late.len() > 2, "nothing was sent again: {late:?}");
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 2, "one for IN_PROGRESS, one for SUCCEEDED: {late:?}");
}

/// AWS's device client gives up after one rejected update, and the job hangs.
#[test]
fn a_refused_update_is_not_the_end() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.configure("connection", "request_timeout_seconds = 1");
    device.start();
    cloud.fault(json!({"fault": "reject", "code": "InternalError", "topic": UPDATE, "count": 2}));
    cloud.run("internal-error", &config(1)).is("SUCCEEDED", "configured");
    cloud.fault(json!({"fault": "throttle", "topic": UPDATE, "count": 2}));
    cloud.run("throttled", &config(2)).is("SUCCEEDED", "configured");
}

/// ADU: a final state flips back to in-progress. Also when its answer is lost and the work's report is repeated.
#[test]
fn a_final_state_is_never_left() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.configure("connection", "request_timeout_seconds = 1");
    device.start();
    cloud.create_job("job", &config(1));
    cloud.fault(json!({"fault": "duplicate", "topic": "$aws/things/+/jobs/#", "count": 20}));
    cloud.fault(json!({"fault": "cut", "thing": support::THING}));
    let version = cloud.outcome("job").is("SUCCEEDED", "configured").execution["versionNumber"].clone();
    device.kill();
    device.start();
    cloud.run("next", &config(2)).is("SUCCEEDED", "configured");
    assert_eq!(cloud.execution("job")["versionNumber"], version);
}

/// AWS's device client leaks the MQTT socket into its children.
#[test]
fn a_command_has_three_files_and_no_socket() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    let script = format!("ls -l /proc/self/fd > {}\n", device.path("files").display());
    let command = device.script("command.sh", &script);
    device.configure("firmware", &format!("command = {command}"));
    cloud.upload("fw", b"new");
    // What the agent itself was given by its parent is not its to close; `ls` opens the folder that it lists.
    let open = |device: &Device| -> Vec<String> {
        let text = String::from_utf8(device.read("files")).unwrap();
        assert!(!text.contains("socket:"), "{text}");
        let links = text.lines().filter(|line| line.contains(" -> "));
        links.map(|line| line.split(' ').rev().nth(2).unwrap().to_owned()).collect()
    };
    let script = device.path("command.sh");
    assert!(std::process::Command::new("/bin/sh").arg(script).status().unwrap().success());
    let given = open(&device);
    assert!(["0", "1", "2"].iter().all(|fd| given.iter().any(|given| given == fd)), "{given:?}");
    device.start();
    cloud.run("fw", &firmware_document("fw", "2.0", &sha256(b"new"))).is("SUCCEEDED", "installed");
    assert_eq!(open(&device), given);
}

/// AWS's device client loses the result when SIGTERM comes in the middle of a job.
#[test]
fn sigterm_in_the_middle_of_a_command_keeps_the_job() {
    let cloud = Cloud::start(&[]);
    let mut device = device_with_a_long_command(&cloud);
    device.start();
    cloud.create_job("job", &config(1));
    until("the command", || exists(&device.path("runs")).then_some(()));
    let took = device.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(cloud.execution("job")["status"], "IN_PROGRESS");
    device.write("go", "");
    device.start();
    cloud.outcome("job").is("SUCCEEDED", "configured");
    assert_eq!(device.read("runs"), b"run\nrun\n");
}

/// AWS's device client runs steps as root when the user asked for does not exist.
#[test]
fn a_command_that_does_not_exist_fails_closed() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.write("config.json", "{\"n\": 0}\n");
    device.configure("config", "reload_command = [\"/no/such/program\"]");
    device.start();
    cloud.run("job", &config(1)).is("FAILED", "command-not-started");
    assert_eq!(device.read("config.json"), b"{\"n\": 0}\n");
}

/// AWS's device client puts the presigned URL into status details.
#[test]
fn a_presigned_url_is_written_nowhere() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    device.configure("log", "level = \"trace\"");
    device.configure("report", "progress_interval_seconds = 1");
    let new = vec![7; 600_000];
    cloud.upload("fw", &new);
    device.start();
    let assert_clean = |device: &Device| {
        for folder in [device.path(""), device.path("state")] {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap_or_default();
                let found = bytes.windows(6).any(|bytes| bytes == b"X-Amz-");
                assert!(!found, "a presigned query in {}", path.display());
            }
        }
    };
    // In the middle of a transfer that breaks, is refused, and goes on: the journal and the log speak of the URL.
    cloud.fault(json!({"fault": "object-expired"}));
    cloud.fault(json!({"fault": "object-truncate", "bytes": 100_000}));
    cloud.fault(json!({"fault": "object-slow", "bytes": 250_000}));
    cloud.create_job("good", &firmware_document("fw", "2.0", &sha256(&new)));
    until("bytes", || exists(&device.path("firmware.bin.staged")).then_some(()));
    assert_clean(&device);
    cloud.outcome("good").is("SUCCEEDED", "installed");
    for (job, fault) in [
        ("not-found", json!({"fault": "object-status", "status": 404})),
        ("corrupt", json!({"fault": "object-corrupt"})),
    ] {
        cloud.fault(fault);
        let ended = cloud.run(job, &firmware_document("fw", job, &sha256(&new)));
        assert_eq!(ended.status, "FAILED", "{ended:?}");
        assert!(!ended.execution.to_string().contains("X-Amz-"), "{ended:?}");
    }
    assert_clean(&device);
    for (answer, payload) in answers(&cloud, "good") {
        assert!(!payload.to_string().contains("X-Amz-"), "{answer}: {payload}");
    }
}

/// RAUC's hawkBit updater: an endless resume loop on 404 and 5xx, and cancel does not stop it.
#[test]
fn a_server_that_is_always_in_trouble_is_given_up_and_can_be_canceled() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    device.configure("download", "timeout_seconds = 4");
    cloud.upload("fw", b"new");
    cloud.fault(json!({"fault": "object-status", "status": 503, "count": 0}));
    device.start();
    let order = |version: &str| firmware_document("fw", version, &sha256(b"new"));
    cloud.run("given-up", &order("1")).is("FAILED", "download-timeout");

    cloud.create_job("canceled", &order("2"));
    cloud.wait_for("canceled", "IN_PROGRESS");
    cloud.create_job("next", &config(1));
    let begun = Instant::now();
    cloud.done("CancelJob", json!({"jobId": "canceled", "force": "true"}), json!({}));
    cloud.outcome("next").is("SUCCEEDED", "configured");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    // 404 is an answer, and is not asked for again.
    cloud.admin("DELETE", "faults", None);
    cloud.run("gone", &firmware_document("nothing", "3", &sha256(b"new"))).is("FAILED", "http-status");
}

/// Mender rolls back after the commit because a *report* failed.
#[test]
fn a_report_that_is_refused_for_good_undoes_nothing() {
    let cloud = Cloud::start(&[]);
    let mut device = device_with_a_long_command(&cloud);
    device.start();
    cloud.create_job("job", &config(1));
    until("the command", || exists(&device.path("runs")).then_some(()));
    // IN_PROGRESS is accepted already: what comes is the report.
    cloud.fault(json!({"fault": "reject", "code": "InvalidStateTransition", "topic": UPDATE, "count": 0}));
    device.write("go", "");
    until("the refusal", || device.log().contains("the outcome was not taken").then_some(()));
    cloud.admin("DELETE", "faults", None);
    device.stop();
    device.start();
    cloud.create_job("next", &json!({"operation": "reboot", "delay": -1}));
    cloud.outcome("next").is("REJECTED", "invalid-document");
    assert_eq!(serde_json::from_slice::<Value>(&device.read("config.json")).unwrap(), json!({"n": 1}));
}

/// Greengrass: a fixed buffer makes a device undeployable for ever. AWS's longest job document is 32 KiB.
#[test]
fn an_execution_of_any_size_that_aws_allows_is_run() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.start();
    for (job, length) in [("large", 16_000), ("largest", 32_000)] {
        let document = json!({"operation": "update-config", "config": {"n": "x".repeat(length)}});
        cloud.run(job, &document).is("SUCCEEDED", "configured");
    }
}
