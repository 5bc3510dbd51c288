//! `rotate-certificate`: another certificate, or the one of before; never none.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::fleet::{allow_rotation, deactivate, principals};
use support::meters::meters_agree;
use support::{Device, Operator, THING, until};

fn rotate() -> Value {
    json!({"operation": "rotate-certificate", "template": "rotation"})
}

fn config_job(value: u32) -> Value {
    json!({"operation": "update-config", "config": {"a": value}})
}

fn device(cloud: &Cloud, status: &str) -> Device {
    let mut device = Device::create(cloud);
    allow_rotation(cloud, status);
    let socket = device.path("status.sock");
    device.configure("status", &format!("socket = {socket:?}"));
    device.start();
    device
}

fn in_force(device: &Device) -> Option<u64> {
    let bytes = std::fs::read(device.path("state/identity/current.json")).ok()?;
    serde_json::from_slice::<Value>(&bytes).unwrap()["generation"].as_u64()
}

#[test]
fn the_new_certificate_takes_over_and_the_old_one_can_go() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "Active");
    let [old] = principals(&cloud).try_into().unwrap();
    cloud.run("rotation", &rotate()).is("SUCCEEDED", "rotated");
    assert_eq!(
        (in_force(&device), device.names_in("state/identity")),
        (Some(1), vec!["1".into(), "current.json".into()])
    );
    assert_eq!(principals(&cloud).len(), 2);
    meters_agree(&cloud, &device, None);
    // The configured files are as they were.
    assert_ne!(device.read("private.key"), device.read("state/identity/1/private.key"));

    deactivate(&cloud, &old);
    cloud.run("after", &config_job(1)).is("SUCCEEDED", "configured");
    device.stop();
    device.start();
    cloud.run("restarted", &config_job(2)).is("SUCCEEDED", "configured");
    // And once more, from there.
    cloud.run("again", &rotate()).is("SUCCEEDED", "rotated");
    assert_eq!(in_force(&device), Some(2));
    assert!(!device.log().contains("another client probably uses"), "{}", device.log());
    let shown = device.fleethand(&["check-config"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("identity/2/certificate.pem"));
    device.stop();
}

#[test]
fn what_the_cloud_rejects_changes_nothing() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "Active");
    let disable = json!({"enabled": false});
    cloud.done("UpdateProvisioningTemplate", json!({"templateName": "rotation"}), disable);
    let ended = cloud.run("rotation", &rotate());
    ended.is("FAILED", "provisioning-rejected");
    assert!(ended.message.contains("is not enabled"), "{ended:?}");
    assert_eq!(in_force(&device), None);
    assert_eq!(device.names_in("state/identity"), Vec::<String>::new());
    let unnamed = json!({"operation": "rotate-certificate"});
    cloud.run("unnamed", &unnamed).is("FAILED", "not-configured");
    meters_agree(&cloud, &device, None);
    cloud.run("after", &config_job(1)).is("SUCCEEDED", "configured");
    device.stop();
}

/// AWS closes the connection of who subscribes to what its policy denies: the device's own is not that one.
#[test]
fn a_policy_that_does_not_allow_it_is_said() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "Active");
    let other = json!({"operation": "rotate-certificate", "template": "other"});
    let ended = cloud.run("rotation", &other);
    ended.is("FAILED", "provisioning-unavailable");
    assert!(ended.message.contains("iot:Subscribe"), "{ended:?}");
    cloud.run("after", &config_job(1)).is("SUCCEEDED", "configured");
    device.stop();
}

#[test]
fn a_new_certificate_that_does_not_work_is_given_up() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "Inactive");
    let ended = cloud.run("rotation", &rotate());
    ended.is("FAILED", "new-certificate-refused");
    assert_eq!((in_force(&device), device.names_in("state/identity")), (None, vec![]));
    cloud.run("after", &config_job(1)).is("SUCCEEDED", "configured");
    device.stop();
}

/// What is made for the key that the device has comes in the document.
#[test]
fn a_renewal_comes_in_the_document() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "Active");
    let csr = |key: &str| {
        let command = ["req", "-new", "-subj", "/CN=x", "-key", key];
        let output = Command::new("openssl").args(command).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let certificate = |key: &str| {
        let body = json!({"certificateSigningRequest": csr(key)});
        let made = cloud.done("CreateCertificateFromCsr", json!({"setAsActive": "true"}), body);
        let arn = made["certificateArn"].as_str().unwrap().to_owned();
        cloud.done("AttachPolicy", json!({"policyName": "fleethand-device"}), json!({"target": arn}));
        cloud.api_call("PUT", &format!("/things/{THING}/principals"), &[("x-amzn-principal", &arn)], None);
        made["certificatePem"].as_str().unwrap().to_owned()
    };
    let document = |pem: &str| json!({"operation": "rotate-certificate", "certificate": pem});
    let own = device.path("private.key").display().to_string();
    let renewed = certificate(&own);
    cloud.run("renewal", &document(&renewed)).is("SUCCEEDED", "rotated");
    assert_eq!(device.read("state/identity/1/certificate.pem"), renewed.as_bytes());
    cloud.run("the-same", &document(&renewed)).is("SUCCEEDED", "unchanged");

    let other = device.path("other.key").display().to_string();
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &other])
        .output()
        .unwrap();
    assert!(made.status.success());
    cloud.run("foreign", &document(&certificate(&other))).is("FAILED", "certificate-mismatch");
    assert_eq!(in_force(&device), Some(1));
    device.stop();
}

/// Killed with the new certificate registered, and the old one deactivated meanwhile: the new one is all there is.
#[test]
fn a_device_whose_old_certificate_is_gone_connects_with_the_new_one() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "Active");
    let [old] = principals(&cloud).try_into().unwrap();
    cloud.create_job("rotation", &rotate());
    until("the new certificate", || {
        support::exists(&device.path("state/identity/1/about.json")).then_some(())
    });
    device.kill();
    assert_eq!(in_force(&device), None, "it was too fast to be interrupted");
    deactivate(&cloud, &old);
    device.start();
    cloud.outcome("rotation").is("SUCCEEDED", "rotated");
    assert_eq!(in_force(&device), Some(1));
    assert!(device.log().contains("the old one does not"), "{}", device.log());
    device.stop();
}

/// A certificate that is deactivated by mistake is no reason to be lost: the one of before still works.
#[test]
fn a_device_whose_new_certificate_is_gone_goes_back() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "Active");
    let [old] = principals(&cloud).try_into().unwrap();
    cloud.run("rotation", &rotate()).is("SUCCEEDED", "rotated");
    let new = principals(&cloud).into_iter().find(|arn| *arn != old).unwrap();
    deactivate(&cloud, &new);
    cloud.run("after", &config_job(1)).is("SUCCEEDED", "configured");
    assert_eq!(in_force(&device), Some(1));
    device.stop();
}
