//! The tool as its user has it: two makers, a threshold, and documents that go to AWS.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use release::{Envelope, Keyring};
use serde_json::Value;

struct Desk {
    folder: tempfile::TempDir,
}

const RELEASE: &str = "release fw.bin --version 2.0 --sequence 7 --compatible board-1 --compatible board-2";

impl Desk {
    /// Two keys, firmware, and the folder that devices have.
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(desk.path("fw.bin"), b"firmware").unwrap();
        desk.done("keygen --out anna");
        desk.done("keygen --type p256 --out bert-2.0");
        fs::create_dir(desk.path("keys.d")).unwrap();
        for name in ["anna.pem", "bert-2.0.pem"] {
            fs::copy(desk.path(name), desk.path("keys.d").join(name)).unwrap();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fleethandctl"))
            .args(arguments.split(' '))
            .current_dir(&self.folder)
            .env_remove("AWS_REGION")
            .env_remove("AWS_DEFAULT_REGION")
            .output()
            .unwrap()
    }

    #[track_caller]
    fn done(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code 1, and nothing on standard output.
    #[track_caller]
    fn fails(&self, arguments: &str, expected: &str) {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(1), &b""[..]),
            "{arguments}: {said}"
        );
        assert!(said.contains(expected), "{arguments}: {said}, expected {expected}");
    }

    fn ring(&self, threshold: usize) -> Keyring {
        Keyring::load(&self.path("keys.d"), threshold).unwrap()
    }
}

#[test]
fn keys_are_made_for_one_reader_and_never_overwritten() {
    let desk = Desk::new();
    let mode = |name: &str| fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("anna.key"), mode("anna.pem") & 0o444), (0o600, 0o444));
    let before = fs::read(desk.path("anna.key")).unwrap();
    desk.fails("keygen --out anna", "anna.key is there already");
    fs::remove_file(desk.path("anna.key")).unwrap();
    desk.fails("keygen --out anna", "anna.pem is there already");
    assert!(!desk.path("anna.key").exists());
    fs::write(desk.path("anna.key"), before).unwrap();
    desk.fails("keygen --out nowhere/anna", "cannot create nowhere/anna.key");
}

#[test]
fn two_people_on_two_machines_reach_a_threshold() {
    let desk = Desk::new();
    desk.done(&format!("{RELEASE} --key anna.key --out envelope"));
    let read = |name: &str| Envelope::parse(&fs::read(desk.path(name)).unwrap()).unwrap();
    assert_eq!(desk.ring(2).verify(&read("envelope")).unwrap_err().reason(), "signature-threshold");
    desk.done("sign envelope --key bert-2.0.key --out both");
    let release = desk.ring(2).verify(&read("both")).unwrap();
    let statement = release.statement();
    assert_eq!((statement.version.as_str(), statement.sequence, statement.length), ("2.0", 7, 8));
    assert_eq!(statement.compatible, ["board-1", "board-2"]);
    desk.fails("sign envelope --key bert-2.0.key --out both", "cannot create both");
    desk.fails("sign envelope --key bert-2.0.pem", "bert-2.0.pem is not usable");
    desk.fails("sign fw.bin --key anna.key", "not JSON");
}

#[test]
fn a_document_with_a_placeholder_is_what_lint_finds_fine() {
    let desk = Desk::new();
    let release =
        format!("{RELEASE} --s3 s3://bucket/fw/2.0.bin --region eu-west-1 --expires 2100-01-01T00:00:00Z");
    desk.done(&format!("{release} --key anna.key --out job.json"));
    let document: Value = serde_json::from_slice(&fs::read(desk.path("job.json")).unwrap()).unwrap();
    let url = "${aws:iot:s3-presigned-url:https://s3.eu-west-1.amazonaws.com/bucket/fw/2.0.bin}";
    assert_eq!((&document["url"], &document["size"]), (&url.into(), &8.into()));
    let sha256 = Command::new("sha256sum").arg(desk.path("fw.bin")).output().unwrap().stdout;
    let sha256 = String::from_utf8(sha256[..64].to_vec()).unwrap();
    assert_eq!(document["checksum"], format!("sha256:{sha256}"));

    assert_eq!(desk.done("lint job.json"), "update-firmware: fine\n");
    desk.done("lint job.json --keys keys.d");
    desk.fails("lint job.json --keys keys.d --threshold 2", "signature-threshold");
    desk.done("sign job.json --key bert-2.0.key --out both.json");
    desk.done("lint both.json --keys keys.d --threshold 2");

    let changed = |name: &str, member: &str, value: Value| {
        let mut document = document.clone();
        document[member] = value;
        fs::write(desk.path(name), document.to_string()).unwrap();
    };
    changed("size.json", "size", 9.into());
    desk.fails("lint size.json --keys keys.d", "release-mismatch");
    changed("unsigned.json", "release", Value::Null);
    desk.fails("lint unsigned.json", "release: found null");
    fs::remove_file(desk.path("keys.d/anna.pem")).unwrap();
    desk.fails("lint job.json --keys keys.d", "signature-invalid");
    desk.done(&format!("{RELEASE} --url https://example.com/fw --key bert-2.0.key --expires 2026-11-02T00:00:00Z --out old.json"));
    desk.fails("lint old.json --keys keys.d", "release-expired");
}

#[test]
fn what_is_wrong_with_a_document_is_said() {
    let desk = Desk::new();
    let lint = |text: &str, expected: &str| {
        fs::write(desk.path("document"), text).unwrap();
        desk.fails("lint document", expected);
    };
    lint("", "not JSON");
    lint("{\"operation\": \"reboot\", \"delay\": 1, \"delay\": 2}", "\"delay\" is there twice");
    lint("{\"operation\": \"reboot\", \"delay\": -1}", "delay: found the number -1, expected whole seconds");
    lint("{\"operation\": \"explode\"}", "unknown-operation");
    lint(&format!("{{\"operation\": \"reboot\", \"why\": {:?}}}", "x".repeat(33_000)), "AWS takes 32768");
    lint(
        "{\"operation\": \"reboot\", \"why\": \"${aws:iot:nothing:x}\"}",
        "none that AWS puts a download URL for",
    );
    desk.fails("lint missing", "cannot read missing");
    fs::write(desk.path("document"), "{\"operation\": \"reboot\", \"why\": 1}").unwrap();
    let output = desk.run("lint document");
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("warning: member \"why\" is not known"));
}

#[test]
fn a_release_that_makes_no_sense_is_not_signed() {
    let desk = Desk::new();
    fs::write(desk.path("empty"), "").unwrap();
    let cases = [
        (format!("{RELEASE} --key anna.pem"), "anna.pem is not usable"),
        (format!("{RELEASE} --key anna.key --s3 s3://bucket/fw"), "wants the bucket's region"),
        (format!("{RELEASE} --key anna.key --s3 bucket/fw --region r"), "expected s3://BUCKET/KEY"),
        (
            format!("{RELEASE} --key anna.key --s3 s3://bucket/f}}w --region r"),
            "cannot be written in a placeholder",
        ),
        (format!("{RELEASE} --key anna.key --url http://example.com"), ""),
        (format!("{RELEASE} --key anna.key --permit-floor 7"), "permit_floor is not usable"),
        (format!("{} --key anna.key", RELEASE.replace("fw.bin", "empty")), "length is not usable"),
        (format!("{} --key anna.key", RELEASE.replace("fw.bin", "missing")), "cannot read missing"),
        (format!("{} --key anna.key", RELEASE.replace("7", "9007199254740992")), "sequence is not usable"),
    ];
    for (arguments, expected) in cases {
        if arguments.contains("http://example.com") {
            // Whether a device fetches over plain http is its own affair.
            desk.done(&arguments);
        } else {
            desk.fails(&arguments, expected);
        }
    }
    for usage in
        ["release fw.bin", "keygen", "sign envelope", "explode", &format!("{RELEASE} --key k --expires now")]
    {
        assert_eq!(desk.run(usage).status.code(), Some(2), "{usage}");
    }
    let schema: Value = serde_json::from_str(&desk.done("schema")).unwrap();
    assert_eq!(schema["title"], "fleethand job document");
}
