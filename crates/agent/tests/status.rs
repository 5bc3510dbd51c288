//! `fleethand status`, and what else is seen of an agent that runs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::cloud::{Cloud, arn};
use support::{Device, Operator, THING, cloud_with_bucket, firmware_document, sha256, until};

/// A device that can be asked.
fn device(cloud: &Cloud) -> Device {
    let device = Device::create(cloud);
    let socket = device.path("status.sock");
    device.configure("status", &format!("socket = {socket:?}"));
    device
}

fn status(device: &Device) -> Value {
    let output = device.fleethand(&["status", "--json"]);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// Asks until the answer is as expected.
fn once(device: &Device, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(what, || {
        let asked = device.fleethand(&["status", "--json"]);
        serde_json::from_slice(&asked.stdout).ok().filter(&is)
    })
}

fn connected(device: &Device) -> Value {
    once(device, "the connection", |status| status["connection"]["state"] == "connected")
}

#[test]
fn a_job_is_seen_from_its_download_to_its_outcome() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    device.start();
    let idle = connected(&device);
    assert_eq!(
        (&idle["format"], &idle["execution"], &idle["outcomes"]),
        (&json!(1), &Value::Null, &json!([]))
    );
    assert_eq!((&idle["agent"]["thingName"], &idle["firmware"]), (&json!(THING), &json!({})));
    assert!(idle["connection"]["since"].as_str().unwrap().ends_with('Z'));
    assert_eq!(idle["certificate"]["expiresSoon"], false);

    let new: Vec<u8> = (0..900_000).map(|i| (i / 250) as u8).collect();
    cloud.upload("fw", &new);
    cloud.fault(json!({"fault": "object-slow", "bytes": 200_000}));
    cloud.create_job("fw-2", &firmware_document("fw", "2.0", &sha256(&new)));
    let busy = once(&device, "the rate", |status| !status["execution"]["secondsLeft"].is_null());
    let execution = &busy["execution"];
    let about = ["jobId", "operation", "status", "phase"].map(|name| execution[name].as_str().unwrap());
    assert_eq!(about, ["fw-2", "update-firmware", "IN_PROGRESS", "downloading"]);
    assert_eq!(execution["executionNumber"], 1);
    assert!(execution["percent"].as_u64().unwrap() < 100);
    assert!(execution["bytesPerSecond"].as_u64().unwrap() > 0);
    assert!(!busy.to_string().contains("X-Amz"), "{busy}");

    cloud.outcome("fw-2").is("SUCCEEDED", "installed");
    let done = once(&device, "the outcome", |status| status["outcomes"][0]["jobId"] == "fw-2");
    let outcome = &done["outcomes"][0];
    assert_eq!((&outcome["status"], &outcome["reason"]), (&json!("SUCCEEDED"), &json!("installed")));
    assert!(outcome["settledAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&done["firmware"]["version"], &done["execution"]), (&json!("2.0"), &Value::Null));

    // Of the outcomes the last ten, the latest first; and what is installed is known after a restart.
    for n in 0..11 {
        cloud.run(&format!("job-{n}"), &json!({"operation": "nothing"})).is("FAILED", "unknown-operation");
    }
    device.stop();
    device.start();
    let last = connected(&device);
    assert_eq!(
        (last["outcomes"].as_array().unwrap().len(), &last["outcomes"][0]["jobId"]),
        (10, &json!("job-10"))
    );
    assert_eq!(last["firmware"]["version"], "2.0");
    let text = String::from_utf8(device.fleethand(&["status"]).stdout).unwrap();
    for part in [
        "connection   connected for ",
        "execution    none",
        "firmware     2.0",
        "job-10 (1) FAILED unknown-operation",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn an_agent_without_a_connection_says_why_and_one_that_is_gone_is_said_to_be() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    drop(cloud);
    let asked = device.fleethand(&["status"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("does the agent run"), "{asked:?}");
    device.start();
    let lost = once(&device, "the loss", |status| status["connection"]["state"] == "not-connected");
    assert!(lost["connection"]["cause"].as_str().unwrap().contains("cannot be reached"), "{lost}");
    // The doctor need not try what the agent knows.
    let doctor = device.fleethand(&["doctor", "--json"]);
    let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let check = |name: &str| {
        let checks = doctor["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {doctor:#}"))
            .clone()
    };
    assert_eq!(check("tcp")["result"], "failed");
    assert!(check("agent")["text"].as_str().unwrap().contains("NOT connected"), "{doctor:#}");
    device.kill();
    let asked = device.fleethand(&["status"]);
    assert!(String::from_utf8_lossy(&asked.stderr).contains("nobody answers"), "{asked:?}");
    // What the killed one left is in nobody's way.
    device.start();
    once(&device, "the next agent", |status| status["format"] == 1);
    let mode = std::fs::metadata(device.path("status.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn the_doctor_believes_the_agent_that_is_connected() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    device.start();
    connected(&device);
    let doctor: Value = serde_json::from_slice(&device.fleethand(&["doctor", "--json"]).stdout).unwrap();
    let connect =
        doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "connect").unwrap();
    assert_eq!(connect["result"], "ok", "{doctor:#}");
    assert!(connect["text"].as_str().unwrap().contains("the agent that runs is connected"), "{doctor:#}");
}

#[test]
fn it_can_be_watched_and_who_does_not_read_disturbs_nobody() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    device.start();
    connected(&device);
    let idle: Vec<_> = (0..50).map(|_| UnixStream::connect(device.path("status.sock")).unwrap()).collect();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_fleethand"))
        .args(["status", "--watch", "--json", "--config", device.config().to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<_> =
        BufReader::new(watch.stdout.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    for line in lines {
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["connection"]["state"], "connected");
    }
    cloud
        .run("job", &json!({"operation": "update-config", "config": {"a": 1}}))
        .is("SUCCEEDED", "configured");
    drop(idle);
    assert_eq!(status(&device)["outcomes"][0]["jobId"], "job");
    assert!(!device.log().contains("not connected"), "{}", device.log());
}

#[test]
fn a_socket_that_cannot_be_had_costs_the_status_and_nothing_else() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.configure("status", "socket = \"nowhere/status.sock\"");
    device.start();
    cloud
        .run("job", &json!({"operation": "update-config", "config": {"a": 1}}))
        .is("SUCCEEDED", "configured");
    assert!(device.log().contains("nobody can ask for the status"), "{}", device.log());
}

#[test]
fn the_metrics_follow_in_a_file() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    let file = device.path("fleethand.prom");
    device.configure("metrics", &format!("file = {file:?}\ninterval_seconds = 1"));
    device.start();
    let has = |line: &str| {
        until(line, || {
            std::fs::read_to_string(&file)
                .unwrap_or_default()
                .lines()
                .any(|found| found == line)
                .then_some(())
        });
    };
    has("fleethand_connected 1");
    cloud.run("job", &json!({"operation": "nothing"})).is("FAILED", "unknown-operation");
    has("fleethand_executions_total{status=\"FAILED\"} 1");
    has("fleethand_execution_running 0");
    device.stop();
    has("fleethand_connected 0");
}

/// A certificate of ten days, as a maker's own authority gives.
#[test]
fn a_certificate_that_expires_soon_is_warned_of_once() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "10",
        ])
        .args(["-subj", "/CN=edge", "-keyout"])
        .arg(device.path("private.key"))
        .arg("-out")
        .arg(device.path("certificate.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pem = String::from_utf8(device.read("certificate.pem")).unwrap();
    let body = json!({"certificatePem": pem, "status": "ACTIVE"});
    let registered = cloud.done("RegisterCertificateWithoutCA", json!({}), body);
    let certificate = registered["certificateArn"].as_str().unwrap();
    assert!(certificate.starts_with(&arn("cert/")));
    cloud.done("AttachPolicy", json!({"policyName": "fleethand-device"}), json!({"target": certificate}));
    let params = json!({"thingName": THING});
    let path = support::cloud::operations::request("AttachThingPrincipal", &params);
    let attached = cloud.api_call(path.0, &path.1, &[("x-amzn-principal", certificate)], None);
    assert_eq!(attached.status, 200, "{}", attached.text());

    device.start();
    let soon = connected(&device);
    assert_eq!(
        (&soon["certificate"]["daysLeft"], &soon["certificate"]["expiresSoon"]),
        (&json!(9), &json!(true))
    );
    cloud.run("job", &json!({"operation": "nothing"})).is("FAILED", "unknown-operation");
    assert_eq!(device.log().matches("certificate expires soon").count(), 1, "{}", device.log());
    let doctor = String::from_utf8(device.fleethand(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("warning  certificate"), "{doctor}");
}
