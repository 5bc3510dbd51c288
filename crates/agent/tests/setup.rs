//! `fleethand setup`: from the files that the cloud gave to an agent that runs jobs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, THING};

const FLEETHAND: &str = env!("CARGO_BIN_EXE_fleethand");

/// What an operator has: the three files of a thing, and a device on which there is nothing yet.
struct Bench {
    thing: Device,
    device: tempfile::TempDir,
    port: String,
}

impl Bench {
    fn new(cloud: &Cloud) -> Self {
        let port = cloud.ready["mqtts"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        let bench = Self { thing: Device::create(cloud), device: tempfile::tempdir().unwrap(), port };
        // As the console's download has it.
        fs::set_permissions(bench.thing.path("private.key"), PermissionsExt::from_mode(0o644)).unwrap();
        bench
    }

    fn config(&self) -> PathBuf {
        self.device.path().join("fleethand.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    /// All that there is to give.
    fn all(&self) -> Vec<String> {
        let file = |name| self.thing.path(name).display().to_string();
        let options = [
            ("--endpoint", "localhost".to_owned()),
            ("--port", self.port.clone()),
            ("--thing", THING.to_owned()),
            ("--cert", file("certificate.pem")),
            ("--key", file("private.key")),
            ("--ca", file("root-ca.pem")),
        ];
        options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
    }

    fn setup(&self, options: &[String]) -> Output {
        let mut command = Command::new(FLEETHAND);
        command.arg("setup").args(options).args(["--config", self.config().to_str().unwrap()]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn setup_with(&self, more: &[&str]) -> Output {
        self.setup(&[self.all(), more.iter().map(|&option| option.to_owned()).collect()].concat())
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn deactivate(cloud: &Cloud) {
    let principals = cloud.done("ListThingPrincipals", json!({"thingName": THING}), Value::Null);
    let id = principals["principals"][0].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    cloud.done("UpdateCertificate", json!({"certificateId": id, "newStatus": "INACTIVE"}), Value::Null);
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_setup_writes_runs_a_job_and_what_was_configured_stays() {
    let cloud = Cloud::start(&[]);
    let mut bench = Bench::new(&cloud);
    let folder = bench.device.path().display().to_string();
    let mine = format!(
        "# mine\nstate_directory = \"{folder}/state\"\n[config]\nfile = \"{folder}/config.json\" # the product's\n"
    );
    fs::write(bench.config(), &mine).unwrap();
    let done = bench.setup_with(&[]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("AWS IoT Jobs answers"), "{}", said(&done));
    assert!(!said(&done).contains("MIGHAgEA"), "a part of the key is in {}", said(&done));
    assert!(bench.text().starts_with(&mine), "{}", bench.text());
    assert_eq!(
        files(&bench.device.path().join("identity")),
        ["certificate.pem", "private.key", "root-ca.pem"]
    );
    let key = fs::metadata(bench.device.path().join("identity/private.key")).unwrap();
    assert_eq!(key.mode() & 0o027, 0, "{:o}", key.mode());

    fs::copy(bench.config(), bench.thing.config()).unwrap();
    bench.thing.meters.differ("the state is elsewhere, and setup has tried the connection");
    bench.thing.start();
    cloud
        .run("job", &json!({"operation": "update-config", "config": {"a": 1}}))
        .is("SUCCEEDED", "configured");
    assert!(bench.device.path().join("config.json").exists());

    // Again beside the agent that runs, with nothing said that is known: nothing is disturbed, and nothing changes.
    let before = bench.text();
    let again = bench.setup(&[]);
    assert!(again.status.success(), "{}", said(&again));
    assert!(said(&again).contains("it would take the connection"), "{}", said(&again));
    assert_eq!(bench.text(), before);
    assert!(!bench.thing.log().contains("not connected"), "{}", bench.thing.log());
}

#[test]
fn without_a_terminal_what_is_missing_is_named() {
    let cloud = Cloud::start(&[]);
    let bench = Bench::new(&cloud);
    let missing = bench.setup(&bench.all()[..4]);
    assert_eq!(missing.status.code(), Some(2), "{}", said(&missing));
    assert!(said(&missing).contains("--thing, --cert, --key, --ca"), "{}", said(&missing));
    assert_eq!(files(bench.device.path()), Vec::<String>::new());
}

/// `script` gives it a terminal.
#[test]
fn on_a_terminal_it_asks_for_what_is_missing() {
    use std::io::Write;
    let cloud = Cloud::start(&[]);
    let bench = Bench::new(&cloud);
    let all = bench.all();
    let command = format!("{FLEETHAND} setup {} --config {}", all[..6].join(" "), bench.config().display());
    let mut script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let answers = format!("{}\n{}\n{}\n", all[7], all[9], all[11]);
    script.stdin.as_mut().unwrap().write_all(answers.as_bytes()).unwrap();
    let done = script.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("Private key file: "), "{}", said(&done));
    assert!(bench.text().contains("thing_name = \"edge-01\""));
}

#[test]
fn what_works_is_not_replaced_by_what_does_not_unless_that_is_wanted() {
    let cloud = Cloud::start(&[]);
    let bench = Bench::new(&cloud);
    assert!(bench.setup_with(&[]).status.success());
    let before = bench.text();
    let elsewhere = ["--endpoint".to_owned(), "no-such-device.invalid".to_owned()];
    let refused = bench.setup(&elsewhere);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("Nothing was changed"), "{}", said(&refused));
    assert_eq!(bench.text(), before);
    assert_eq!(files(bench.device.path()), ["fleethand.toml", "identity"]);
    assert_eq!(files(&bench.device.path().join("identity")).len(), 3);

    let forced = bench.setup(&[&elsewhere[..], &["--force".to_owned()]].concat());
    assert_eq!(forced.status.code(), Some(1), "{}", said(&forced));
    assert!(
        said(&forced).contains("endpoint: \"no-such-device.invalid\" instead of \"localhost\""),
        "{}",
        said(&forced)
    );
    assert!(said(&forced).contains("Not enabled"), "{}", said(&forced));
    assert!(bench.text().contains("no-such-device.invalid"));
    assert_eq!(fs::read_to_string(bench.device.path().join("fleethand.toml.previous")).unwrap(), before);
}

/// The first time there is nothing to lose: what the cloud still has to be told can be done after it.
#[test]
fn a_first_setup_is_written_and_not_enabled_while_the_cloud_refuses() {
    let cloud = Cloud::start(&[]);
    let bench = Bench::new(&cloud);
    deactivate(&cloud);
    let refused = bench.setup_with(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let text = said(&refused);
    assert!(
        text.contains("FAILED   connect") && text.contains("ACTIVE") && text.contains("Not enabled"),
        "{text}"
    );
    assert!(bench.text().contains("edge-01"));
}

#[test]
fn files_that_do_not_fit_are_named_as_they_were_given_and_nothing_is_written() {
    let cloud = Cloud::start(&[]);
    let bench = Bench::new(&cloud);
    let other = Device::create_named(&cloud, "edge-02").read("private.key");
    bench.thing.write("private.key", other);
    let refused = bench.setup_with(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let given = bench.thing.path("private.key").display().to_string();
    assert!(
        said(&refused).contains(&given) && said(&refused).contains("does not belong"),
        "{}",
        said(&refused)
    );
    assert!(!bench.config().exists());
    assert_eq!(files(&bench.device.path().join("identity")), Vec::<String>::new());
    let wrong = bench.setup_with(&["--thing", "a b"]);
    assert!(!wrong.status.success());
}

/// For who builds images: the group is that of the image, and so is the place.
#[test]
fn an_image_gets_its_files_with_the_owners_of_the_image() {
    let cloud = Cloud::start(&[]);
    let bench = Bench::new(&cloud);
    let image = tempfile::tempdir().unwrap();
    fs::create_dir(image.path().join("etc")).unwrap();
    fs::write(image.path().join("etc/group"), "root:x:0:\nfleethand:x:4242:\n").unwrap();
    let root = image.path().to_str().unwrap();
    let done =
        Command::new(FLEETHAND).arg("setup").args(bench.all()).args(["--root", root]).output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    let etc = image.path().join("etc/fleethand");
    let text = fs::read_to_string(etc.join("fleethand.toml")).unwrap();
    assert!(text.contains("private_key = \"/etc/fleethand/identity/private.key\""), "{text}");
    assert!(text.contains("# The configuration of fleethand."), "{text}");
    let is_root = fs::metadata(image.path()).unwrap().uid() == 0;
    for (name, as_root, as_person) in [
        ("fleethand.toml", 0o640, 0o600),
        ("identity", 0o750, 0o700),
        ("identity/private.key", 0o640, 0o600),
        ("identity/certificate.pem", 0o640, 0o600),
        ("identity/root-ca.pem", 0o640, 0o600),
    ] {
        let found = fs::metadata(etc.join(name)).unwrap();
        let mode = if is_root { as_root } else { as_person };
        assert_eq!(found.mode() & 0o7777, mode, "{name}: {:o}", found.mode());
        assert!(!is_root || (found.uid(), found.gid()) == (0, 4242), "{name}: {}", found.gid());
    }
}
