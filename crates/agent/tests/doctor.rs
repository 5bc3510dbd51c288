//! `fleethand doctor`: each fault is found where it is, and said with what to do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::net::TcpListener;

use serde_json::{Value, json};
use support::cloud::{Cloud, arn};
use support::{Device, Operator, THING, until};

/// What the local cloud gives to each thing.
const POLICY: &str = "fleethand-device";
const JOBS: &str = "$aws/things/edge-01/jobs/";

struct Diagnosis {
    code: Option<i32>,
    found: Value,
}

impl Diagnosis {
    fn of(output: &std::process::Output) -> Self {
        let found = serde_json::from_slice(&output.stdout);
        let found = found.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        Self { code: output.status.code(), found }
    }

    fn check(&self, name: &str) -> Option<(&str, String)> {
        let check = self.found["checks"].as_array().unwrap().iter().find(|check| check["name"] == name)?;
        let text =
            format!("{}; {}", check["text"].as_str().unwrap(), check["advice"].as_str().unwrap_or_default());
        Some((check["result"].as_str().unwrap(), text))
    }

    /// The one thing that is wrong.
    #[track_caller]
    fn blames(&self, name: &str, parts: &[&str]) {
        let checks = self.found["checks"].as_array().unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| check["result"] == "failed").collect();
        assert_eq!(failed.len(), 1, "{:#}", self.found);
        assert_eq!((failed[0]["name"].as_str(), self.code), (Some(name), Some(1)), "{:#}", self.found);
        assert_eq!(self.found["ok"], false);
        let (_, text) = self.check(name).unwrap();
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}

fn doctor(device: &Device) -> Diagnosis {
    Diagnosis::of(&device.fleethand(&["doctor", "--json"]))
}

/// A device that does not wait long.
fn device(cloud: &Cloud) -> Device {
    let device = Device::create(cloud);
    device.configure("connection", "connect_timeout_seconds = 3");
    device
}

fn change(device: &Device, key: &str, value: &str) {
    let text = String::from_utf8(device.read("fleethand.toml")).unwrap();
    let prefix = format!("{key} = ");
    let lines = text.lines().map(|line| {
        if line.starts_with(&prefix) { format!("{prefix}{value}\n") } else { format!("{line}\n") }
    });
    device.write("fleethand.toml", lines.collect::<String>());
}

fn principal(cloud: &Cloud) -> String {
    let principals = cloud.done("ListThingPrincipals", json!({"thingName": THING}), Value::Null);
    principals["principals"][0].as_str().unwrap().to_owned()
}

/// The device may do all that it must, but for `denied`.
fn deny(cloud: &Cloud, denied: &str) {
    let actions = ["iot:Connect", "iot:Subscribe", "iot:Publish", "iot:Receive"];
    let allowed: Vec<_> = actions.into_iter().filter(|action| *action != denied).collect();
    let document = json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": allowed, "Resource": "*"}],
    });
    cloud.done(
        "CreatePolicy",
        json!({"policyName": "less"}),
        json!({"policyDocument": document.to_string()}),
    );
    let target = json!({"target": principal(cloud)});
    cloud.done("AttachPolicy", json!({"policyName": "less"}), target.clone());
    cloud.done("DetachPolicy", json!({"policyName": POLICY}), target);
}

#[test]
fn a_device_that_is_well_is_said_to_be_well_and_nothing_is_changed() {
    let cloud = Cloud::start(&[]);
    let device = device(&cloud);
    let before = device.names();
    cloud.create_job("job", &json!({"operation": "update-config", "config": {"a": 1}}));
    let well = doctor(&device);
    assert_eq!((well.code, &well.found["ok"]), (Some(0), &json!(true)), "{:#}", well.found);
    let names: Vec<_> = well.found["checks"].as_array().unwrap().iter().map(|check| &check["name"]).collect();
    let expected =
        "configuration clock certificate state space staging agent name tcp tls connect subscribe jobs";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
    assert_eq!(well.found["format"], 1);
    assert_eq!(device.names(), before);
    assert_eq!(cloud.execution("job")["status"], "QUEUED");

    let text = device.fleethand(&["doctor"]);
    let said = String::from_utf8(text.stdout).unwrap();
    assert!(text.status.success() && said.contains("ok       jobs           AWS IoT Jobs answers"), "{said}");
}

#[test]
fn what_the_policy_denies_is_named() {
    for (denied, check, parts) in [
        ("iot:Connect", "connect", ["iot:Connect", "client/edge-01"]),
        ("iot:Subscribe", "subscribe", ["iot:Subscribe", JOBS]),
        ("iot:Publish", "jobs", ["iot:Publish", JOBS]),
        ("iot:Receive", "jobs", ["iot:Receive", JOBS]),
    ] {
        let cloud = Cloud::start(&[]);
        let device = device(&cloud);
        deny(&cloud, denied);
        doctor(&device).blames(check, &parts);
    }
}

#[test]
fn a_certificate_that_the_cloud_does_not_take_is_said_to_be_that() {
    let cloud = Cloud::start(&[]);
    let device = device(&cloud);
    let id = principal(&cloud).rsplit('/').next().unwrap().to_owned();
    cloud.done("UpdateCertificate", json!({"certificateId": id, "newStatus": "INACTIVE"}), Value::Null);
    doctor(&device).blames("connect", &["certificate", "ACTIVE"]);
    cloud.done("UpdateCertificate", json!({"certificateId": id, "newStatus": "ACTIVE"}), Value::Null);
    assert_eq!(doctor(&device).code, Some(0));
    assert!(principal(&cloud).starts_with(&arn("cert/")));
}

#[test]
fn a_root_of_somebody_else_and_a_server_of_another_name_are_told_apart() {
    let (cloud, other) = (Cloud::start(&["--mqtts", "0.0.0.0:0"]), Cloud::start(&[]));
    let device = device(&cloud);
    change(&device, "endpoint", "\"127.0.0.2\"");
    doctor(&device).blames("tls", &["endpoint"]);
    change(&device, "endpoint", "\"localhost\"");
    assert_eq!(doctor(&device).code, Some(0));
    device.write("root-ca.pem", Device::create(&other).read("root-ca.pem"));
    doctor(&device).blames("tls", &["does not come from root_ca", "Amazon Root CA 1"]);
}

#[test]
fn a_port_that_is_closed_and_a_name_that_is_none_are_told_apart() {
    let cloud = Cloud::start(&[]);
    let device = device(&cloud);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    change(&device, "port", &closed.to_string());
    doctor(&device).blames("tcp", &["cannot be reached", "blocks outgoing TCP"]);
    change(&device, "endpoint", "\"no-such-device.invalid\"");
    doctor(&device).blames("name", &["resolv"]);
}

/// The certificates are fine, and look as if they were not.
#[test]
fn a_clock_that_is_wrong_is_blamed_and_not_the_certificates_alone() {
    let cloud = Cloud::start(&[]);
    let device = device(&cloud);
    let at = |offset: &str| {
        device.write("clock", offset);
        let mut command = device.command(&["doctor", "--json"]);
        Diagnosis::of(&command.envs(device.clock()).stdout(std::process::Stdio::piped()).output().unwrap())
    };
    let early = at("-40y");
    let failed = |diagnosis: &Diagnosis, name| {
        let (result, text) = diagnosis.check(name).unwrap();
        assert_eq!(result, "failed", "{name}: {:#}", diagnosis.found);
        text
    };
    assert!(failed(&early, "clock").contains("never set"));
    assert!(failed(&early, "certificate").contains("is the clock right?"));
    assert!(failed(&early, "tls").contains("set the clock"));
    let late = at("+100y");
    assert_eq!(late.check("clock").unwrap().0, "ok");
    assert!(failed(&late, "certificate").contains("expired"));
}

/// Two connections with one client id throw each other off.
#[test]
fn an_agent_that_runs_is_not_disturbed() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    device.start();
    until("the connection", || device.log().contains("connected").then_some(()));
    let beside = doctor(&device);
    assert_eq!(beside.code, Some(0), "{:#}", beside.found);
    assert_eq!(beside.check("agent").unwrap().1, "it runs; ");
    assert_eq!(beside.check("tls").unwrap().0, "ok");
    assert_eq!(beside.check("connect").unwrap().0, "skipped");
    cloud
        .run("after", &json!({"operation": "update-config", "config": {"a": 1}}))
        .is("SUCCEEDED", "configured");
    assert!(!device.log().contains("not connected"), "{}", device.log());
    device.stop();
    assert_eq!(doctor(&device).check("connect").unwrap().0, "ok");
}

#[test]
fn what_is_wrong_with_the_files_is_found_without_a_cloud() {
    let cloud = Cloud::start(&[]);
    let device = device(&cloud);
    let other = Device::create_named(&cloud, "edge-02");
    let good = device.read("private.key");
    device.write("private.key", other.read("private.key"));
    doctor(&device).blames("identity", &["does not belong to the certificate"]);
    device.write("private.key", good);
    device.configure("helper", "socket = \"helper.sock\"");
    doctor(&device).blames("helper", &["helper.sock", "fleethand-helper.socket"]);
    let _socket = std::os::unix::net::UnixListener::bind(device.path("helper.sock")).unwrap();
    assert_eq!(doctor(&device).check("helper").unwrap().0, "ok");
    device.configure("log", "level = \"loud\"");
    doctor(&device).blames("configuration", &["fleethand.toml", "\"loud\""]);
}
