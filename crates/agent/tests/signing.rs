//! Firmware that nobody trusted signed, or that was signed for something else: a job each, as an attacker would order it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::io::ErrorKind;
use std::net::TcpListener;

use release::{Envelope, Kind, SigningKey, Statement};
use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

const OLD: &[u8] = b"the firmware in force";

/// Two of them are trusted by the devices here.
struct Makers {
    anna: SigningKey,
    bert: SigningKey,
    stranger: SigningKey,
}

impl Makers {
    fn new() -> Self {
        let key = |kind| SigningKey::from_pem(SigningKey::generate(kind).unwrap().as_bytes()).unwrap();
        Self { anna: key(Kind::Ed25519), bert: key(Kind::P256), stranger: key(Kind::Ed25519) }
    }

    /// A device that trusts Anna and Bert.
    fn device(&self, cloud: &Cloud, threshold: usize) -> Device {
        let device = Device::create(cloud);
        std::fs::create_dir(device.path("keys.d")).unwrap();
        device.write("keys.d/anna.pem", self.anna.public().to_pem());
        device.write("keys.d/bert.pem", self.bert.public().to_pem());
        device.configure("release", &format!("keys = \"keys.d\"\nthreshold = {threshold}"));
        device.configure("device", "compatible = [\"board-1\", \"board-1-rev-b\"]");
        device.write("firmware.bin", OLD);
        device
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

fn statement(bytes: &[u8], version: &str, sequence: u64) -> Statement {
    Statement::new(digest(bytes), bytes.len() as u64, version, sequence, &["board-1".to_owned()])
}

fn signed(statement: &Statement, keys: &[&SigningKey]) -> Value {
    let mut envelope = Envelope::of(statement).unwrap();
    for key in keys {
        envelope.sign(key).unwrap();
    }
    serde_json::to_value(&envelope).unwrap()
}

fn with_release(mut document: Value, release: Value) -> Value {
    document["release"] = release;
    document
}

#[track_caller]
fn untouched(device: &Device, job: &str) {
    assert_eq!(device.read("firmware.bin"), OLD, "{job}");
    for name in
        ["firmware.bin.staged", "firmware.bin.previous", "state/sequence-floor", "state/installed.json"]
    {
        assert!(!exists(&device.path(name)), "{job}: {name}");
    }
}

#[test]
fn what_is_not_signed_for_this_device_is_refused_before_a_byte_is_fetched() {
    let cloud = Cloud::start(&[]);
    let makers = Makers::new();
    let Makers { anna, bert, stranger } = &makers;
    let mut device = makers.device(&cloud, 2);
    device.start();
    // Whoever connects to it has begun to fetch.
    let storage = TcpListener::bind("127.0.0.1:0").unwrap();
    storage.set_nonblocking(true).unwrap();
    let new = b"the new firmware";
    let unsigned = json!({
        "operation": "update-firmware", "version": "2.0", "checksum": sha256(new), "size": new.len(),
        "url": format!("http://{}/fw", storage.local_addr().unwrap()),
    });
    let good = statement(new, "2.0", 7);
    let both = |change: &dyn Fn(&mut Statement)| {
        let mut statement = good.clone();
        change(&mut statement);
        signed(&statement, &[anna, bert])
    };
    let twice = {
        let mut envelope = signed(&good, &[anna]);
        let signature = envelope["signatures"][0].clone();
        envelope["signatures"] = json!([signature, {"sig": signature["sig"]}]);
        envelope
    };
    let tampered = {
        let mut envelope = signed(&good, &[anna, bert]);
        envelope["payload"] = signed(&statement(b"another firmware", "2.0", 7), &[])["payload"].clone();
        envelope
    };
    let cases = [
        ("nobody", signed(&good, &[]), "signature-invalid"),
        ("wrong-signer", signed(&good, &[stranger]), "signature-invalid"),
        ("tampered", tampered, "signature-invalid"),
        ("threshold-missed", signed(&good, &[anna]), "signature-threshold"),
        ("unknown-key", signed(&good, &[bert, stranger]), "signature-threshold"),
        ("one-key-twice", twice, "signature-threshold"),
        ("expired", both(&|s| s.expires = Some("2026-11-02T00:00:00Z".parse().unwrap())), "release-expired"),
        ("other-hardware", both(&|s| s.compatible = vec!["board-2".to_owned()]), "release-incompatible"),
        ("other-file", both(&|s| s.sha256 = digest(b"another firmware")), "release-mismatch"),
        ("other-length", both(&|s| s.length += 1), "release-mismatch"),
        ("other-version", both(&|s| s.version = "2.1".to_owned()), "release-mismatch"),
        ("compressed", both(&|s| s.compression = Some("zstd".to_owned())), "release-mismatch"),
        ("newer-agent", both(&|s| s.min_agent_version = Some("99.0.0".parse().unwrap())), "agent-too-old"),
    ];
    cloud.run("unsigned", &unsigned).is("FAILED", "release-missing");
    untouched(&device, "unsigned");
    for (job, release, reason) in cases {
        cloud.run(job, &with_release(unsigned.clone(), release)).is("FAILED", reason);
        untouched(&device, job);
    }
    cloud
        .run("no-envelope", &with_release(unsigned, json!({"payload": "!"})))
        .is("REJECTED", "invalid-document");
    let connection = storage.accept().map(|(_, address)| address);
    assert!(connection.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{connection:?}");
}

#[test]
fn what_arrives_is_held_to_what_was_signed() {
    let cloud = cloud_with_bucket(&[]);
    let makers = Makers::new();
    let mut device = makers.device(&cloud, 1);
    device.configure("download", "timeout_seconds = 2");
    device.start();
    let new = vec![7; 300_000];
    let release = signed(&statement(&new, "2.0", 7), &[&makers.anna]);
    let order = |key: &str| with_release(firmware_document(key, "2.0", &sha256(&new)), release.clone());
    cloud.upload("truncated", &new[..299_999]);
    cloud.upload("too-long", &[&new[..], b"!"].concat());
    cloud.upload("other", &vec![8; 300_000]);
    cloud.upload("slow", &new);
    cloud.upload("fw", &new);
    cloud.fault(json!({"fault": "object-slow", "key": "slow", "bytes": 1, "count": 0}));
    for (key, reason) in [
        ("truncated", "size-mismatch"),
        ("too-long", "size-mismatch"),
        ("other", "checksum-mismatch"),
        ("slow", "download-timeout"),
    ] {
        cloud.run(key, &order(key)).is("FAILED", reason);
        untouched(&device, key);
    }
    let mut short = order("fw");
    short["checksum"] = json!(format!("sha256:{}", "ab".repeat(31)));
    cloud.run("short-digest", &short).is("REJECTED", "invalid-document");
    untouched(&device, "short-digest");

    let mut upper = order("fw");
    upper["checksum"] = json!(sha256(&new).to_uppercase().replace("SHA256", "sha256"));
    cloud.run("upper-case", &upper).is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), new);
}

/// A byte a second is within every timeout. The minimum rate is the default one, over a shorter time.
#[test]
fn a_server_that_drips_is_given_up() {
    let cloud = cloud_with_bucket(&[]);
    let makers = Makers::new();
    let mut device = makers.device(&cloud, 1);
    device.configure("download", "rate_window_seconds = 2");
    device.start();
    let new = vec![7; 300_000];
    cloud.upload("slow", &new);
    cloud.fault(json!({"fault": "object-slow", "key": "slow", "bytes": 1, "count": 0}));
    let order = firmware_document("slow", "2.0", &sha256(&new));
    let release = signed(&statement(&new, "2.0", 7), &[&makers.anna]);
    let ended = cloud.run("slow", &with_release(order, release));
    assert!(ended.is("FAILED", "download-too-slow").message.contains("1024 bytes a second"), "{ended:?}");
    untouched(&device, "slow");
}

#[test]
fn nothing_goes_below_the_floor_without_a_permit_that_still_holds() {
    let cloud = cloud_with_bucket(&[]);
    let makers = Makers::new();
    let mut device = makers.device(&cloud, 1);
    let command =
        device.script("command.sh", &format!("! grep -q broken {:?}\n", device.path("firmware.bin")));
    device.configure("firmware", &format!("command = {command}"));
    device.start();
    let floor = |device: &Device| String::from_utf8(device.read("state/sequence-floor")).unwrap();
    // What is refused at the door need not be there.
    for content in ["seven", "seven-b", "broken", "six"] {
        cloud.upload(content, content.as_bytes());
    }
    let run = |job: &str, content: &str, sequence: u64, permit: Option<u64>| {
        let release = Statement { permit_floor: permit, ..statement(content.as_bytes(), job, sequence) };
        let document = firmware_document(content, job, &sha256(content.as_bytes()));
        cloud.run(job, &with_release(document, signed(&release, &[&makers.bert])))
    };
    run("seven", "seven", 7, None).is("SUCCEEDED", "installed");
    assert_eq!(floor(&device), "7\n");
    run("six", "six", 6, None).is("FAILED", "release-sequence-too-low");
    run("seven-b", "seven-b", 7, None).is("SUCCEEDED", "installed");

    // What is rolled back was never committed.
    run("nine", "broken", 9, None).is("FAILED", "command-failed");
    assert_eq!((device.read("firmware.bin"), floor(&device).as_str()), (b"seven-b".to_vec(), "7\n"));

    run("six-permitted", "six", 6, Some(7)).is("SUCCEEDED", "installed");
    assert_eq!((device.read("firmware.bin"), floor(&device).as_str()), (b"six".to_vec(), "7\n"));
    run("six-b", "six-b", 6, None).is("FAILED", "release-sequence-too-low");
    // In force, and signed once more with a higher sequence: that revokes what is older.
    run("eight", "six", 8, None).is("SUCCEEDED", "installed");
    assert_eq!(floor(&device), "8\n");
    run("six-again", "six", 6, Some(7)).is("FAILED", "release-sequence-too-low");

    device.stop();
    device.start();
    run("six-after-a-restart", "six", 6, Some(7)).is("FAILED", "release-sequence-too-low");
    assert_eq!(device.read("firmware.bin"), b"six");

    device.write("state/sequence-floor", "eight\n");
    run("ten", "ten", 10, None).is("FAILED", "sequence-floor-unreadable");
    assert_eq!((device.read("firmware.bin"), floor(&device).as_str()), (b"six".to_vec(), "eight\n"));
}

/// The same order, unsigned: true as it is, it is still not what this device takes.
#[test]
fn firmware_in_force_passes_the_same_door() {
    let cloud = cloud_with_bucket(&[]);
    let makers = Makers::new();
    let mut device = makers.device(&cloud, 1);
    device.start();
    cloud.upload("fw", b"new");
    let unsigned = firmware_document("fw", "2.0", &sha256(b"new"));
    let order = with_release(unsigned.clone(), signed(&statement(b"new", "2.0", 7), &[&makers.anna]));
    cloud.run("first", &order).is("SUCCEEDED", "installed");
    cloud.run("again", &order).is("SUCCEEDED", "already-installed");
    cloud.run("unsigned", &unsigned).is("FAILED", "release-missing");
    // A dry run passes it, too.
    let job = device.path("job.json").display().to_string();
    let mut unsigned = unsigned;
    unsigned["url"] = json!("https://example.com/fw");
    device.write("job.json", unsigned.to_string());
    let said = device.fleethand(&["dry-run", &job]);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stdout).contains("would fail: release-missing"), "{said:?}");
}

/// A stick is no way round the signature.
#[test]
fn an_installation_without_a_cloud_passes_the_same_door() {
    let cloud = Cloud::start(&[]);
    let makers = Makers::new();
    let device = makers.device(&cloud, 1);
    device.write("fw-2.bin", b"new");
    let install = |arguments: &[&str]| {
        let output = device.fleethand(&[&["install"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let image = device.path("fw-2.bin").display().to_string();
    let (code, said) = install(&[&image, "--version", "2.0"]);
    assert!(code == Some(1) && said.contains("release-missing"), "{said}");
    let document = |release: Value| {
        let mut document = firmware_document("fw-2.bin", "2.0", &sha256(b"new"));
        document["release"] = release;
        device.write("job.json", document.to_string());
        device.path("job.json").display().to_string()
    };
    let (code, said) = install(&[&document(signed(&statement(b"new", "2.0", 7), &[&makers.stranger]))]);
    assert!(code == Some(1) && said.contains("signature-invalid"), "{said}");
    untouched(&device, "by a stranger");
    let (code, said) = install(&[&document(signed(&statement(b"new", "2.0", 7), &[&makers.anna]))]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        (device.read("firmware.bin"), device.read("state/sequence-floor")),
        (b"new".into(), b"7\n".into())
    );
}

#[test]
fn without_keys_a_release_is_not_looked_at_and_that_is_said() {
    let cloud = cloud_with_bucket(&[]);
    let makers = Makers::new();
    let mut device = Device::create(&cloud);
    device.start();
    cloud.upload("fw", b"new");
    let document = firmware_document("fw", "2.0", &sha256(b"new"));
    let other = signed(&statement(b"other", "1.0", 7), &[&makers.stranger]);
    cloud.run("fw", &with_release(document, other)).is("SUCCEEDED", "installed");
    assert!(!exists(&device.path("state/sequence-floor")));
    until("the warning", || device.log().contains("no [release] keys are configured").then_some(()));
}

#[test]
fn keys_that_cannot_be_used_are_a_configuration_error() {
    let cloud = Cloud::start(&[]);
    let makers = Makers::new();
    let device = makers.device(&cloud, 1);
    let said = || {
        let output = device.fleethand(&["check-config"]);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, settings) = said();
    assert_eq!(code, Some(0), "{settings}");
    assert!(settings.contains(&makers.anna.public().id()), "{settings}");
    device.write("keys.d/anna.pem", SigningKey::generate(Kind::P256).unwrap());
    let (code, error) = said();
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("[release] keys") && error.contains("anna.pem: has a private key"), "{error}");
}
