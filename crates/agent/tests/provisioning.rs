//! A device without a certificate gets one by itself, with a claim that is good for nothing else.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::fleet::{
    allow_provisioning, create_claim, create_template, deactivate, principals, unprovisioned,
};
use support::{Device, Operator, THING, until};

fn config_job() -> Value {
    json!({"operation": "update-config", "config": {"a": 1}})
}

/// The thing is made by the registration; until then nothing can be ordered for it.
fn wait_for_thing(cloud: &Cloud) {
    until("the thing", || {
        let answer = cloud.control("DescribeThing", &json!({"thingName": THING}), None);
        (answer.status == 200).then_some(())
    });
}

#[test]
fn a_device_with_a_claim_becomes_a_thing_runs_a_job_and_never_uses_the_claim_again() {
    let cloud = Cloud::start(&[]);
    let (mut device, claim) = unprovisioned(&cloud);
    let checked = device.fleethand(&["check-config"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && said.contains("# thing_name: what the cloud says"), "{said}");
    let doctor = device.fleethand(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.status.success() && said.contains("there is none yet"), "{said}");

    device.start();
    wait_for_thing(&cloud);
    cloud.run("first", &config_job()).is("SUCCEEDED", "configured");
    assert_eq!(device.names_in("state/identity"), ["1", "current.json"]);
    for name in ["certificate.pem", "private.key", "about.json"] {
        let mode =
            fs::metadata(device.path(&format!("state/identity/1/{name}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    assert_eq!(principals(&cloud).len(), 1);
    let log = device.log();
    assert!(log.contains("this device has an identity now") && !log.contains("PRIVATE"), "{log}");

    device.stop();
    deactivate(&cloud, &claim);
    device.start();
    cloud
        .run("second", &json!({"operation": "update-config", "config": {"a": 2}}))
        .is("SUCCEEDED", "configured");
    let shown = device.fleethand(&["check-config"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("thing_name = \"edge-01\"") && shown.contains("identity/1/private.key"),
        "{shown}"
    );
    device.stop();
    let meter = String::from_utf8(device.read("state/meter.json")).unwrap();
    assert!(meter.contains("\"provisioning\""), "{meter}");
}

#[test]
fn what_is_throttled_is_asked_again_and_what_is_rejected_is_said_in_words() {
    let cloud = Cloud::start(&[]);
    let (mut device, _) = unprovisioned(&cloud);
    cloud.fault(json!({"fault": "throttle", "topic": "$aws/certificates/create-from-csr/json"}));
    device.start();
    wait_for_thing(&cloud);
    assert!(device.log().contains("RequestThrottled"), "{}", device.log());
    cloud.run("job", &config_job()).is("SUCCEEDED", "configured");
    device.stop();

    // Nobody has made such a template: it says so, goes on living, and waits long.
    let (wrong, key) = (device.path("wrong.pem"), device.path("wrong.key"));
    allow_provisioning(&cloud, "wrong", "nothing");
    create_claim(&cloud, "wrong", &wrong, &key);
    fs::remove_dir_all(device.path("state")).unwrap();
    let text = String::from_utf8(device.read("fleethand.toml")).unwrap();
    let text = text.replace("\"factory\"", "\"nothing\"").replace("\"claim.", "\"wrong.");
    device.write("fleethand.toml", text);
    device.start();
    until("the answer", || device.log().contains("Template nothing does not exist").then_some(()));
    assert!(device.log().contains("is there a template of this name"), "{}", device.log());
    assert!(!device.has_ended());
    device.stop();
}

/// The registration is done and its answer lost: with a name that is known, the certificate is not wasted.
#[test]
fn an_answer_that_is_lost_costs_no_second_certificate() {
    let cloud = Cloud::start(&[]);
    let (mut device, _) = unprovisioned(&cloud);
    device.configure("connection", &format!("thing_name = \"{THING}\"\nconnect_timeout_seconds = 2"));
    cloud.fault(
        json!({"fault": "drop", "topic": "$aws/provisioning-templates/factory/provision/json/accepted"}),
    );
    device.start();
    wait_for_thing(&cloud);
    cloud.run("job", &config_job()).is("SUCCEEDED", "configured");
    assert_eq!(principals(&cloud).len(), 1);
    device.stop();
}

/// The link is lost with the certificate issued and not registered: its token is good for an hour.
#[test]
fn a_certificate_that_was_issued_is_registered_after_a_restart() {
    let cloud = Cloud::start(&[]);
    let (mut device, _) = unprovisioned(&cloud);
    // Refused by name, so that only the first half is done.
    cloud.fault(json!({
        "fault": "reject", "code": "InternalError", "topic": "$aws/provisioning-templates/factory/provision/json",
    }));
    device.start();
    until("the first half", || support::exists(&device.path("state/identity/candidate.json")).then_some(()));
    until("the refusal", || device.log().contains("InternalError").then_some(()));
    device.kill();
    let issued = || {
        let certificates = cloud.done("ListCertificates", json!({}), Value::Null);
        certificates["certificates"].as_array().unwrap().len()
    };
    let before = issued();
    device.start();
    wait_for_thing(&cloud);
    cloud.run("job", &config_job()).is("SUCCEEDED", "configured");
    assert_eq!(issued(), before);
    device.stop();
}

#[test]
fn setup_gets_an_identity_at_the_terminal() {
    let cloud = Cloud::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    allow_provisioning(&cloud, "claim", "factory");
    create_template(&cloud, "factory", "Active", &["fleethand-device"]);
    create_claim(&cloud, "claim", &path("claim.pem"), &path("claim.key"));
    fs::write(path("fleethand.toml"), format!("state_directory = {:?}\n", path("state"))).unwrap();
    let port = cloud.ready["mqtts"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let setup = |template: &str| {
        let file = |name: &str| path(name).display().to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_fleethand"))
            .args(["setup", "--provision", template, "--parameter", "SerialNumber=01"])
            .args(["--endpoint", "localhost", "--port", &port, "--ca", cloud.ready["ca"].as_str().unwrap()])
            .args(["--claim-cert", &file("claim.pem"), "--claim-key", &file("claim.key")])
            .args(["--config", &file("fleethand.toml")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.success(), said)
    };
    let (_, refused) = setup("other");
    assert!(refused.contains("iot:Subscribe"), "{refused}");
    let (done, said) = setup("factory");
    assert!(done && said.contains("this device is the thing edge-01"), "{said}");
    assert!(said.contains("AWS IoT Jobs answers"), "{said}");
    let text = fs::read_to_string(path("fleethand.toml")).unwrap();
    assert!(text.contains("thing_name = \"edge-01\"") && !text.contains("[provisioning"), "{text}");
    assert_eq!(names(&path("identity")), ["certificate.pem", "private.key", "root-ca.pem"]);
    assert_eq!(principals(&cloud).len(), 1);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_claim_that_cannot_be_used_is_a_configuration_error() {
    let cloud = Cloud::start(&[]);
    let (device, _): (Device, _) = unprovisioned(&cloud);
    fs::set_permissions(device.path("claim.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let checked = device.fleethand(&["check-config"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("[provisioning] claim_private_key"), "{said}");
}
