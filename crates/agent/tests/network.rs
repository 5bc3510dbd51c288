//! Links that break after any byte, stall, and flap: what was ordered is done, once, and nothing grows.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use fastrand::Rng;
use proxy::Proxy;
use serde_json::{Value, json};
use support::cloud::{Cloud, aws};
use support::{Device, Operator, cloud_with_bucket, exists, sha256, until};

const SIZE: usize = 60_000;

/// A cloud, and a device that reaches it over `mqtt`.
fn device_behind(cloud: &Cloud) -> (Device, Proxy) {
    let device = Device::create(cloud);
    let mqtt = Proxy::to(cloud.ready["mqtts"].as_str().unwrap());
    let text = std::fs::read_to_string(device.config()).unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix("port = ") {
        Some(_) => format!("port = {}\n", mqtt.address.port()),
        None => format!("{line}\n"),
    });
    device.write("fleethand.toml", lines.collect::<String>());
    device.configure("connection", "request_timeout_seconds = 1\nreconnect_max_seconds = 1");
    (device, mqtt)
}

fn config(n: usize) -> Value {
    json!({"operation": "update-config", "config": {"n": n}})
}

/// More with `FLEETHAND_CUTS` and `FLEETHAND_FLAPS`.
fn number_from_env(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn either_link_is_cut_after_any_byte() {
    let cuts = number_from_env("FLEETHAND_CUTS", 10);
    let cloud = cloud_with_bucket(&[]);
    let (mut device, mqtt) = device_behind(&cloud);
    let storage = Proxy::to(cloud.s3().strip_prefix("http://").unwrap());
    let new: Vec<u8> = (0..SIZE).map(|i| (i * 7 + i / 251) as u8).collect();
    cloud.upload("fw", &new);
    // Signed for the proxy's address, because the host belongs to what is signed.
    let endpoint = format!("http://{}", storage.address);
    let signed = aws(&endpoint, &["s3", "presign", "s3://firmware/fw", "--expires-in", "86400"]);
    let url = String::from_utf8(signed.stdout).unwrap();
    let order = |job: &str| json!({"operation": "update-firmware", "url": url.trim(), "version": job, "checksum": sha256(&new)});
    device.start();
    cloud.run("first", &order("first")).is("SUCCEEDED", "installed");
    let before = device.rss_kib();
    let mut rng = Rng::with_seed(4);
    for n in 0..cuts {
        let job = format!("job-{n}");
        device.write("firmware.bin", b"old");
        // A TLS handshake is some 3,000 bytes here, a job's conversation some 2,000.
        let (mqtt_bytes, storage_bytes) = (rng.usize(1..2500), rng.usize(1..SIZE + 400));
        if rng.u8(..4) == 0 {
            mqtt.cut();
        }
        mqtt.cut_after(mqtt_bytes);
        storage.cut_after(storage_bytes);
        let ended = cloud.run(&job, &order(&job));
        let at = format!("cut after {mqtt_bytes} and {storage_bytes} bytes: {ended:?}");
        assert_eq!((ended.status.as_str(), ended.reason.as_str()), ("SUCCEEDED", "installed"), "{at}");
        assert_eq!(device.read("firmware.bin"), new, "{at}");
        assert!(!exists(&device.path("firmware.bin.staged")), "{at}");
        assert!(!storage.cut_is_due(), "{at}");
    }
    let after = device.rss_kib();
    println!("{cuts} jobs with cuts, VmRSS {before} KiB and then {after} KiB");
    assert!(after < before + 4096, "{before} KiB, then {after} KiB");
}

/// A middlebox that has forgotten the connection: no byte comes, and no word of it.
#[test]
fn a_link_that_stalls_is_replaced_and_a_job_of_meanwhile_is_done() {
    let cloud = Cloud::start(&[]);
    let (mut device, mqtt) = device_behind(&cloud);
    device.configure("connection", "keep_alive_seconds = 5\nconnect_timeout_seconds = 2");
    device.start();
    cloud.run("before", &config(1)).is("SUCCEEDED", "configured");
    mqtt.stall(true);
    cloud.create_job("meanwhile", &config(2));
    until("the loss to be noticed", || device.log().contains("not connected").then_some(()));
    assert_eq!(cloud.execution("meanwhile")["status"], "QUEUED");
    mqtt.stall(false);
    cloud.outcome("meanwhile").is("SUCCEEDED", "configured");
}

#[test]
fn a_link_that_flaps_costs_no_memory() {
    let flaps = number_from_env("FLEETHAND_FLAPS", 10);
    let cloud = Cloud::start(&[]);
    let (mut device, mqtt) = device_behind(&cloud);
    device.configure("connection", "stable_after_seconds = 1");
    device.start();
    let connected = |device: &Device, times: usize| {
        until("a connection", || (device.log().matches("INFO connected").count() > times).then_some(()));
    };
    let mut before = 0;
    for n in 0..flaps {
        connected(&device, n);
        if n == 3 {
            before = device.rss_kib();
        }
        mqtt.cut();
    }
    connected(&device, flaps);
    let after = device.rss_kib();
    println!("{} connections, VmRSS {before} KiB and then {after} KiB", mqtt.connections());
    assert!(after < before + 4096, "{before} KiB, then {after} KiB");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", device.pid())).unwrap().count();
    assert!(descriptors < 32, "{descriptors} open files");
    cloud.run("last", &config(1)).is("SUCCEEDED", "configured");
}
