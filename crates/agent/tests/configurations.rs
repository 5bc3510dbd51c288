//! `update-config` with several files over the local cloud: formats, schemas, health checks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, exists};

const SENSORS: &str = "# The sensors of the roof.
rate = 5 # a second

[[probe]]
id = 1 # the old one
";
const NETWORK: &str = "dns: [1.1.1.1]
dhcp: yes
";

/// A device with three files, `more` in the table of the first.
fn device(cloud: &Cloud, more: &str) -> Device {
    let device = Device::create(cloud);
    let text = std::fs::read_to_string(device.config()).unwrap();
    let (before, after) = text.split_once("[config]").unwrap();
    let files = format!(
        "[[config]]\nname = \"sensors\"\nfile = \"sensors.toml\"\n{more}\n\
         [[config]]\nname = \"network\"\nfile = \"network.conf\"\nformat = \"yaml\"\n\
         [[config]]"
    );
    std::fs::write(device.config(), format!("{before}{files}{after}")).unwrap();
    device.write("sensors.toml", SENSORS);
    device.write("network.conf", NETWORK);
    device
}

fn update(file: &str, config: Value) -> Value {
    json!({"operation": "update-config", "file": file, "config": config})
}

#[test]
fn each_file_is_changed_in_its_own_format_and_keeps_what_it_can() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "");
    device.start();
    let sensors = update("sensors", json!({"rate": 10, "probe": [{"id": 1}, {"id": 2}], "debug": null}));
    cloud.run("sensors", &sensors).is("SUCCEEDED", "configured");
    let expected = SENSORS.replace("rate = 5", "rate = 10") + "\n[[probe]]\nid = 2\n";
    assert_eq!(String::from_utf8(device.read("sensors.toml")).unwrap(), expected);
    assert_eq!(device.read("sensors.toml.previous"), SENSORS.as_bytes());
    cloud.run("again", &sensors).is("SUCCEEDED", "unchanged");

    cloud.run("network", &update("network", json!({"dns": ["9.9.9.9"]}))).is("SUCCEEDED", "configured");
    assert_eq!(device.read("network.conf"), b"dns:\n  - \"9.9.9.9\"\ndhcp: yes\n");
    cloud.run("json", &update("config.json", json!({"a": 1}))).is("SUCCEEDED", "configured");
    assert_eq!(device.read("config.json"), b"{\n  \"a\": 1\n}\n");

    let invalid = cloud.run("null", &update("sensors", json!({"probe": [null]})));
    invalid.is("FAILED", "config-invalid");
    assert_eq!(invalid.message, "/probe/0: found null, which TOML cannot say");
    for (job, document) in [
        ("unknown", update("sensor", json!({}))),
        ("unnamed", json!({"operation": "update-config", "config": {}})),
    ] {
        let unknown = cloud.run(job, &document);
        unknown.is("FAILED", "unknown-file");
        let known = r#"expected one of "sensors", "network", "config.json""#;
        assert!(unknown.message.ends_with(known), "{unknown:?}");
    }
    device.write("network.conf", "a: &anchor 1\n");
    cloud.run("anchor", &update("network", json!({"b": 1}))).is("FAILED", "config-unreadable");
    assert_eq!(device.read("network.conf"), b"a: &anchor 1\n");
}

#[cfg(feature = "json-schema")]
#[test]
fn what_does_not_fit_the_schema_leaves_the_file_untouched() {
    let cloud = Cloud::start(&[]);
    let command = "reload_command = [\"touch\", \"reloaded\"]";
    let mut device = device(&cloud, &format!("schema = \"sensors.schema.json\"\n{command}"));
    let schema = json!({
        "type": "object",
        "properties": {"rate": {"type": "integer", "maximum": 100}},
        "required": ["rate"],
    });
    device.write("sensors.schema.json", schema.to_string());
    device.start();
    let seen = || {
        let metadata = std::fs::metadata(device.path("sensors.toml")).unwrap();
        (device.read("sensors.toml"), metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
    };
    let before = seen();
    let cases = [
        ("type", json!({"rate": "fast"}), "/rate: found string, expected integer"),
        ("range", json!({"rate": 101}), "/rate: expected at most 100"),
        ("missing", json!({"rate": null}), "the whole file: missing properties 'rate'"),
    ];
    for (job, config, message) in cases {
        let refused = cloud.run(job, &update("sensors", config));
        refused.is("FAILED", "config-invalid");
        assert_eq!(refused.message, message);
    }
    assert_eq!(seen(), before);
    for trace in ["sensors.toml.staged", "sensors.toml.previous", "reloaded"] {
        assert!(!exists(&device.path(trace)), "{trace}");
    }

    device.write("sensors.schema.json", r#"{"$ref": "https://example.com/sensors.json"}"#);
    let unusable = cloud.run("unusable", &update("sensors", json!({"rate": 7})));
    unusable.is("FAILED", "schema-unusable");
    assert!(unusable.message.contains("sensors.schema.json cannot be used"), "{unusable:?}");
    assert_eq!(seen(), before);
    let checked = device.fleethand(&["check-config"]);
    assert_eq!(checked.status.code(), Some(78));
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(said.contains("[config] schema: the schema ") && said.contains("https://example.com"), "{said}");
}

#[test]
fn a_configuration_with_which_the_system_is_not_well_is_rolled_back() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "# CHECKS");
    let (file, seen) = (device.path("sensors.toml"), device.path("seen"));
    let reload = device.script("reload.sh", &format!("grep rate {file:?} >> {seen:?}\n"));
    let checks = device.script(
        "health.sh",
        &format!("grep -q 'rate = 50' {file:?} || exit 0\necho the sensors do not answer >&2\nexit 4\n"),
    );
    let lines = format!(
        "reload_command = {reload}\nhealth_command = {checks}\n\
         health_timeout_seconds = 1\nhealth_interval_seconds = 1"
    );
    let text = std::fs::read_to_string(device.config()).unwrap().replace("# CHECKS", &lines);
    std::fs::write(device.config(), text).unwrap();

    // Said before it is done.
    let order = update("sensors", json!({"rate": 50}));
    let output = device.fleethand_with_input(&["dry-run", "-"], &order.to_string());
    let said = String::from_utf8(output.stdout).unwrap();
    for step in ["/rate: 5 → 50", "reload.sh", "check its health within 1 s", "health.sh", "would succeed"]
    {
        assert!(said.contains(step), "{step} is not in {said}");
    }
    assert_eq!(device.read("sensors.toml"), SENSORS.as_bytes());

    device.start();
    let failed = cloud.run("unwell", &order);
    failed.is("FAILED", "health-check-failed");
    assert!(failed.message.contains("exit code 4: the sensors do not answer"), "{failed:?}");
    assert_eq!(device.read("sensors.toml"), SENSORS.as_bytes());
    assert_eq!(device.read("seen"), b"rate = 50 # a second\nrate = 5 # a second\n");
    cloud.run("well", &update("sensors", json!({"rate": 6}))).is("SUCCEEDED", "configured");
}
