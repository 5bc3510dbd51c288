//! The device's wall clock is wrong, or jumps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::path::PathBuf;

use serde_json::json;
use support::cloud::Cloud;
use support::{Device, Operator, cloud_with_bucket, firmware_document, sha256, until};

/// Makes a program believe in another wall clock. Its monotonic clock stays true, as a device's does.
fn libfaketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let library = folders
        .map(|folder| folder.unwrap().path().join("faketime/libfaketime.so.1"))
        .chain([PathBuf::from("/usr/lib/faketime/libfaketime.so.1")])
        .find(|path| path.exists());
    library.expect("faketime; scripts/install-deps installs it").display().to_string()
}

fn at(device: &mut Device, offset: &str) {
    device.write("clock", offset);
    let file = device.path("clock").display().to_string();
    device.start_with_environment(&[
        ("LD_PRELOAD", &libfaketime()),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
}

/// The certificates are fine: what is said must be that the clock may be wrong, and what it shows.
#[test]
fn a_certificate_error_because_of_the_clock_is_said_to_be_that() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    for (offset, year) in [("-40y", "19"), ("+100y", "21")] {
        at(&mut device, offset);
        let said = format!("this device's clock says {year}");
        until(&said, || device.log().contains(&said).then_some(()));
        assert!(device.stop().as_secs() < 5);
    }
    device.start();
    let config = json!({"operation": "update-config", "config": {"a": 1}});
    cloud.run("after", &config).is("SUCCEEDED", "configured");
}

#[test]
fn a_clock_that_jumps_ends_no_job_and_no_connection() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    let new: Vec<u8> = (0..900_000).map(|i| (i / 250) as u8).collect();
    cloud.upload("fw", &new);
    cloud.fault(json!({"fault": "object-slow", "bytes": 400_000}));
    at(&mut device, "+0");
    cloud.create_job("fw", &firmware_document("fw", "2.0", &sha256(&new)));
    for offset in ["+80y", "-40y", "+1d"] {
        cloud.wait_for("fw", "IN_PROGRESS");
        device.write("clock", offset);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    cloud.outcome("fw").is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), new);
    assert!(!device.log().contains("not connected"), "{}", device.log());
}
