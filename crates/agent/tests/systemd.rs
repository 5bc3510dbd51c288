//! What systemd hears of the agent, over a real socket.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::cell::RefCell;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::json;
use support::cloud::Cloud;
use support::{Device, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

/// Stands in for systemd.
struct Systemd {
    socket: UnixDatagram,
    heard: RefCell<Vec<String>>,
    environment: Vec<(&'static str, String)>,
}

impl Systemd {
    fn new(device: &Device) -> Self {
        let path = device.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let environment = vec![("NOTIFY_SOCKET", path.display().to_string())];
        Self { socket, heard: RefCell::default(), environment }
    }

    fn with_watchdog(mut self, period: Duration) -> Self {
        self.environment.push(("WATCHDOG_USEC", period.as_micros().to_string()));
        self
    }

    fn starts(&self, device: &mut Device) {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        device.start_with_environment(&environment);
    }

    /// Listens until it hears something that `expected` is part of.
    fn hears(&self, expected: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("{expected:?} was never said ({error}), only {:#?}", self.heard.borrow())
            });
            let said = String::from_utf8(buffer[..length].to_vec()).unwrap();
            self.heard.borrow_mut().push(said.clone());
            if said.contains(expected) {
                return said;
            }
        }
    }

    fn heard(&self, what: &str) -> usize {
        self.heard.borrow().iter().filter(|said| said.as_str() == what).count()
    }
}

/// A device without a network boots, and `systemctl status` says why nothing happens.
#[test]
fn a_device_without_a_network_is_ready_and_says_that_it_is_not_connected() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    drop(cloud);
    let systemd = Systemd::new(&device);
    systemd.starts(&mut device);
    systemd.hears("READY=1");
    let said = systemd.hears("STATUS=not connected: ");
    assert!(said.contains("cannot be reached") && said.contains("; retry in "), "{said}");
    device.stop();
    systemd.hears("STOPPING=1");
    assert_eq!(systemd.heard("READY=1"), 1);
    assert_eq!(systemd.heard("WATCHDOG=1"), 0);
}

#[test]
fn the_status_line_follows_a_job_and_has_no_secrets() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    let systemd = Systemd::new(&device);
    systemd.starts(&mut device);
    systemd.hears("STATUS=connected, idle");
    let new: Vec<u8> = (0..900_000).map(|i| (i / 250) as u8).collect();
    cloud.upload("fw", &new);
    cloud.fault(json!({"fault": "object-slow", "bytes": 400_000}));
    cloud.create_job("fw-2", &firmware_document("fw", "2.0", &sha256(&new)));
    let said = systemd.hears("STATUS=job fw-2: downloading ");
    assert!(said.ends_with(" %"), "{said}");
    systemd.hears("STATUS=connected, idle");
    cloud.outcome("fw-2").is("SUCCEEDED", "installed");
    device.stop();
    systemd.hears("STOPPING=1");
    let heard = systemd.heard.borrow();
    assert!(heard.iter().all(|said| !said.contains("X-Amz")), "{heard:#?}");
    assert!(heard.windows(2).all(|pair| pair[0] != pair[1]), "said twice: {heard:#?}");
}

/// A command that takes its time is not a loop that hangs; and it is not told how to speak for the agent.
#[test]
fn the_watchdog_is_fed_while_a_command_runs_and_while_nothing_happens() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    let script = "cd $(dirname $0)\nenv > environment\ntouch runs\nwhile ! test -e go; do sleep 0.05; done\n";
    let command = device.script("reload.sh", script);
    device.configure("config", &format!("reload_command = {command}"));
    let systemd = Systemd::new(&device).with_watchdog(Duration::from_secs(1));
    systemd.starts(&mut device);
    systemd.hears("STATUS=connected, idle");
    for _ in 0..3 {
        systemd.hears("WATCHDOG=1");
    }
    cloud.create_job("job", &json!({"operation": "update-config", "config": {"a": 1}}));
    until("the command", || exists(&device.path("runs")).then_some(()));
    for _ in 0..3 {
        systemd.hears("WATCHDOG=1");
    }
    device.write("go", "");
    cloud.outcome("job").is("SUCCEEDED", "configured");
    let environment = String::from_utf8(device.read("environment")).unwrap();
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");
    device.stop();
}
