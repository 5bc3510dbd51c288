//! A network that lets port 443 through and nothing else: by itself, and through a real proxy.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "support/namespace.rs"]
mod namespace;
mod support;

use std::process::Command;

use namespace::{Namespace, Tinyproxy};
use serde_json::json;
use support::cloud::Cloud;
use support::meters::meters_agree;
use support::{Device, Operator, cloud_with_bucket, firmware_document, sha256, until};

/// Is it so that this port cannot be reached from inside?
fn is_closed(namespace: &Namespace, host: &str, port: &str) -> bool {
    let mut probe = Command::new("python3");
    probe.args([
        "-c",
        "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)",
        host,
        port,
    ]);
    !namespace.inside(&probe).output().unwrap().status.success()
}

fn rewritten(device: &Device, changes: &[(&str, &str)]) {
    let mut text = String::from_utf8(device.read("fleethand.toml")).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}: {text}");
        text = text.replacen(from, to, 1);
    }
    device.write("fleethand.toml", text);
}

/// Names are resolved by the proxy, which alone sees the network: the cloud is its own `localhost`.
#[test]
fn the_firmware_job_is_done_through_a_proxy_where_only_port_443_is_open() {
    let Some(namespace) = Namespace::with_open_port(443) else { return };
    let cloud = cloud_with_bucket(&["--https", "127.0.0.1:0"]);
    let proxy = Tinyproxy::start(&namespace.host, 443, "device", "hunter2");
    let mut device = Device::create(&cloud);
    let https = cloud.ready["https"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let mqtts = cloud.ready["mqtts"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    rewritten(&device, &[(&format!("port = {mqtts}"), &format!("port = {https}\ntransport = \"alpn\""))]);
    let url = format!("http://device:hunter2@{}:443", namespace.host);
    device.configure("connection", &format!("proxy = {url:?}"));
    assert!(is_closed(&namespace, &namespace.host, &https) && !is_closed(&namespace, &namespace.host, "443"));

    let new: Vec<u8> = (0..200_000).map(|i| (i % 249) as u8).collect();
    cloud.upload("fw", &new);
    device.start_as(|command| namespace.inside(&command));
    cloud.run("job", &firmware_document("fw", "2.0", &sha256(&new))).is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), new);
    device.stop();
    meters_agree(&cloud, &device, None);
    let log = proxy.log();
    let storage = cloud.s3().strip_prefix("http://").unwrap();
    assert!(log.contains(&format!("CONNECT localhost:{https} HTTP/1.1")), "{log}");
    assert!(log.contains(storage.rsplit_once(':').unwrap().0), "the firmware came another way: {log}");
    assert!(!device.log().contains("hunter2"), "{}", device.log());
}

#[test]
fn auto_finds_the_port_that_is_open_and_begins_with_it_the_next_time() {
    let Some(namespace) = Namespace::with_open_port(443) else { return };
    let (mqtts, https) = (format!("{}:8883", namespace.host), format!("{}:443", namespace.host));
    let cloud = Cloud::start(&["--mqtts", &mqtts, "--https", &https]);
    let mut device = Device::create(&cloud);
    let host = format!("endpoint = {:?}", namespace.host);
    rewritten(&device, &[("endpoint = \"localhost\"", &host), ("port = 8883", "transport = \"auto\"")]);
    assert!(is_closed(&namespace, &namespace.host, "8883"));
    device.start_as(|command| namespace.inside(&command));
    cloud
        .run("first", &json!({"operation": "update-config", "config": {"n": 1}}))
        .is("SUCCEEDED", "configured");
    assert_eq!(device.read("state/route"), b"443\n");
    let failures = device.log().matches("not connected").count();
    assert_eq!(failures, 1, "{}", device.log());
    device.stop();
    device.start_as(|command| namespace.inside(&command));
    cloud
        .run("second", &json!({"operation": "update-config", "config": {"n": 2}}))
        .is("SUCCEEDED", "configured");
    assert_eq!(device.log().matches("not connected").count(), failures, "{}", device.log());
    device.stop();
    // What has worked and does not any more is left again: from here both are open.
    drop(cloud);
    let cloud = Cloud::start(&["--mqtts", &mqtts]);
    let again = Device::create(&cloud);
    for name in ["private.key", "certificate.pem", "root-ca.pem"] {
        device.write(name, again.read(name));
    }
    device.start();
    until("the other port", || (device.read("state/route") == b"8883\n").then_some(()));
    cloud
        .run("third", &json!({"operation": "update-config", "config": {"n": 3}}))
        .is("SUCCEEDED", "configured");
}
