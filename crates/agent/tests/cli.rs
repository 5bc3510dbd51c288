//! The command line: what is said about a wrong configuration, and the dry run.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

/// The beginning of every P-256 key in PKCS#8.
const KEY_LOOKS_LIKE: &str = "MIGHAgEA";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn refused(output: &Output, expected: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{message}");
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!message.contains(KEY_LOOKS_LIKE), "{message}");
}

#[test]
fn a_wrong_configuration_or_identity_is_named_and_ends_with_78() {
    let cloud = Cloud::start(&[]);
    let device = Device::create(&cloud);
    let other = Device::create_named(&cloud, "edge-02");
    let good = std::fs::read_to_string(device.config()).unwrap();
    let key = device.read("private.key");
    assert!(text(&key).contains(KEY_LOOKS_LIKE));
    let check = || device.fleethand(&["check-config"]);

    let checked = check();
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let shown = text(&checked.stdout);
    assert!(
        shown.contains("keep_alive_seconds = 60") && shown.contains("thing_name = \"edge-01\""),
        "{shown}"
    );

    device.write("fleethand.toml", good.replace("port =", "prot ="));
    refused(&check(), &["fleethand.toml:", "[connection] prot", "unknown key"]);
    refused(&device.fleethand(&["run"]), &["[connection] prot"]);
    device.write("fleethand.toml", good.replace("port = ", "port = 1"));
    refused(&check(), &["[connection] port", "expected a whole number from 1 to 65535"]);
    device.write("fleethand.toml", &good);

    std::fs::set_permissions(device.path("private.key"), PermissionsExt::from_mode(0o644)).unwrap();
    refused(&check(), &["[connection] private_key", "0644", "chmod 600"]);
    std::fs::set_permissions(device.path("private.key"), PermissionsExt::from_mode(0o600)).unwrap();
    device.write("private.key", other.read("private.key"));
    refused(&check(), &["[connection] private_key", "does not belong to the certificate"]);
    device.write("private.key", device.read("certificate.pem"));
    refused(&check(), &["[connection] private_key", "expected PEM with a private key", "found"]);
    device.write("private.key", &key);
    std::fs::remove_file(device.path("root-ca.pem")).unwrap();
    refused(&check(), &["[connection] root_ca", "cannot be read"]);

    std::fs::remove_file(device.config()).unwrap();
    refused(&check(), &["fleethand.toml", "cannot be read"]);
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["rnu"][..], &["run", "--configuration", "x"], &[], &["dry-run"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_fleethand")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let cloud = Cloud::start(&[]);
    let device = Device::create(&cloud);
    device.write("firmware.bin", b"old");
    let before = device.names();
    let dry = |document: &Value, more: &[&str]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document.to_string()).unwrap();
        device.fleethand(&[&["dry-run", file.path().to_str().unwrap()], more].concat())
    };
    let mut firmware = firmware_document("fw", "2.0", &sha256(b"new"));
    firmware["url"] = json!("https://bucket.s3.amazonaws.com/fw?X-Amz-Signature=secret");

    let output = dry(&firmware, &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "downloading",
        "firmware.bin.staged",
        "firmware.bin.previous",
        "IN_PROGRESS",
        "SUCCEEDED",
        "would succeed",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!said.contains("secret"), "{said}");

    let output = dry(&firmware, &["--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["wouldSucceed"], true);
    assert_eq!(said["updates"][0]["statusDetails"]["phase"], "starting");

    let output = dry(&json!({"operation": "format-disk"}), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&said["reason"], &said["updates"][0]["status"]),
        (&json!("unknown-operation"), &json!("FAILED"))
    );

    let output = dry(&json!({"operation": "update-config", "config": {"a": 1}, "mode": 5}), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("mode: found the number 5, expected"));

    let mut unreachable = firmware;
    unreachable["url"] = json!("http://127.0.0.1:9/fw");
    assert_eq!(dry(&unreachable, &[]).status.code(), Some(0));

    assert_eq!(device.fleethand(&["dry-run", "/no/such/document"]).status.code(), Some(2));
    assert_eq!(device.names(), before);
    assert_eq!(device.read("firmware.bin"), b"old");
}

/// The real queue, the real URL, the real bytes; and no execution is touched.
#[test]
fn a_dry_run_over_the_queue_and_with_a_download() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    cloud.upload("fw", b"new");
    cloud.create_job("fw", &firmware_document("fw", "2.0", &sha256(b"new")));
    device.start_with(&["run", "--dry-run"]);
    until("the description", || device.log().contains("would succeed: installed").then_some(()));
    assert!(device.log().contains("job fw, execution 1"), "{}", device.log());
    device.stop();
    let execution = cloud.execution("fw");
    assert_eq!((&execution["status"], &execution["versionNumber"]), (&json!("QUEUED"), &json!(1)));
    assert!(!exists(&device.path("state")) && !exists(&device.path("firmware.bin")));

    // A document as a device receives it, with its presigned URL, from standard input.
    let mut seen = 0;
    cloud.messages(&mut seen);
    cloud.publish("edge-01", "$aws/things/edge-01/jobs/fw/get", json!({}));
    let document = cloud.messages(&mut seen).pop().unwrap()["payload"]["execution"]["jobDocument"].clone();
    let output = device.fleethand_with_input(&["dry-run", "-", "--download"], &document.to_string());
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("fetched 3 bytes and verified them"), "{said}");
    let mut wrong = document;
    wrong["checksum"] = json!(sha256(b"other"));
    let output = device.fleethand_with_input(&["dry-run", "-", "--download"], &wrong.to_string());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("checksum-mismatch"));
    assert!(device.names().iter().all(|name| !name.contains("dry-run")), "{:?}", device.names());
}
