//! What it costs, counted on both sides.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use serde_json::{Value, json};
use support::meters::meters_agree;
use support::{Device, Operator, THING, cloud_with_bucket, firmware_document, sha256, until};

/// The table of docs/costs.md: a connect, a job, an idle time, a reconnect, a restart.
#[test]
fn a_connect_is_four_units_a_job_six_and_a_reconnect_four() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    cloud.upload("fw", b"firmware");
    device.start();
    meters_agree(&cloud, &device, 4);
    cloud.run("fw", &firmware_document("fw", "1", &sha256(b"firmware"))).is("SUCCEEDED", "installed");
    meters_agree(&cloud, &device, 10);
    // A reconnect is not written by itself.
    cloud.fault(json!({"fault": "cut", "thing": THING}));
    until("the reconnect", || (device.log().matches("INFO connected").count() == 2).then_some(()));
    let refused = json!({"operation": "update-firmware", "version": "2"});
    assert_eq!(cloud.run("refused", &refused).status, "REJECTED");
    // It was never IN_PROGRESS.
    meters_agree(&cloud, &device, 18);
    device.stop();
    device.start();
    meters_agree(&cloud, &device, 22);
}

#[test]
fn the_status_says_what_this_month_cost() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    device.configure("status", &format!("socket = {:?}", device.path("status.sock")));
    device.start();
    meters_agree(&cloud, &device, 4);
    cloud.run("refused", &json!({"operation": "update-firmware", "version": "2"}));
    let meter = until("the meter", || {
        let asked = device.fleethand(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&asked.stdout).ok()?;
        Some(status["meter"].clone()).filter(|meter| meter["units"] == 8)
    });
    let lines = meter["lines"].as_array().unwrap();
    let units: u64 = lines.iter().map(|line| line["units"].as_u64().unwrap()).sum();
    assert_eq!((units, lines.len()), (8, 7), "{meter}");
    let month = meter["month"].as_str().unwrap().to_owned();
    let text = String::from_utf8(device.fleethand(&["status"]).stdout).unwrap();
    assert!(text.contains(&format!("meter        8 units in {month}: jobs-")), "{text}");
}

#[test]
fn a_document_beyond_a_unit_is_counted_and_said_once() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    device.start();
    meters_agree(&cloud, &device, 4);
    // It is REJECTED at once: announced in two units, answered in two of one, and the next one, that there is none.
    let long = json!({"operation": "brew-coffee", "notes": "n".repeat(6000)});
    cloud.run("first", &long);
    meters_agree(&cloud, &device, 9);
    cloud.run("second", &long);
    meters_agree(&cloud, &device, 14);
    let log = device.log();
    assert_eq!(log.matches("a message of more than one metered unit").count(), 1, "{log}");
    assert!(log.contains("a shorter document"), "{log}");
    let total: Value = serde_json::from_slice(&device.read("state/meter.json")).unwrap();
    assert_eq!(total.as_object().unwrap().len(), 1, "{total}");
}
