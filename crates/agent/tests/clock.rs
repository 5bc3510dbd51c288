//! The device's wall clock is wrong, or jumps.
mod support;

use serde_json::json;
use support::cloud::Cloud;
use support::{Device, Operator, cloud_with_bucket, firmware_document, sha256, until};

/// The certificates are fine: what is said must be that the clock may be wrong, and what it shows.
#[test]
fn a_certificate_error_because_of_the_clock_is_said_to_be_that() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    for (offset, year) in [("-40y", "19"), ("+100y", "21")] {
        device.start_at(offset);
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
    device.start_at("+0");
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
