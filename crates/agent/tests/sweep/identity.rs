//! A device that gets an identity, or another one, interrupted at every point: it ends with exactly one in force, and says so.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::operation::{Scenario, Standing, keep_on, names};
use crate::support::Device;
use crate::support::cloud::Cloud;
use crate::support::fleet::{allow_everything, configure_claim};

#[derive(Clone, Copy, PartialEq)]
pub enum Identity {
    /// By claim, and then a job.
    First,
    /// The job itself.
    Next,
}

impl Scenario for Identity {
    fn name(&self) -> String {
        match self {
            Self::First => "provisioning and update-config",
            Self::Next => "rotate-certificate",
        }
        .to_owned()
    }

    /// AWS's one CONNECT a second of each client id is kept to.
    fn thinned(&self) -> usize {
        2
    }

    fn document(&self) -> Value {
        match self {
            Self::First => json!({"operation": "update-config", "config": {"a": "new"}}),
            Self::Next => json!({"operation": "rotate-certificate", "template": "rotation"}),
        }
    }

    fn cloud(&self) -> Cloud {
        let cloud = Cloud::start(&[]);
        allow_everything(&cloud);
        cloud
    }

    fn configure(&self, device: &mut Device, disk: &Path) {
        device.simulate_reboots();
        keep_on(disk, device, &["state", "config.json"]);
        if *self == Self::First {
            configure_claim(device, "certificate.pem", "private.key");
        }
    }

    fn prepare(&self, device: &Device, disk: &Path) {
        fs::create_dir(disk.join("state")).unwrap();
        fs::write(disk.join("config.json"), r#"{"a": "old"}"#).unwrap();
        device.write("boot-id", "boot-1\n");
    }

    fn boot(&self, device: &Device, job: &str) {
        device.write("boot-id", format!("boot-after-cut-of-{job}\n"));
    }

    fn outcome(&self) -> (&'static str, &'static str) {
        match self {
            Self::First => ("SUCCEEDED", "configured"),
            Self::Next => ("SUCCEEDED", "rotated"),
        }
    }

    fn wrongs(&self, device: &Device, disk: &Path, _: &Standing) -> Vec<String> {
        let mut wrongs = Vec::new();
        if device.log().contains("the certificate is refused") {
            wrongs.push("what was in force did not work".to_owned());
        }
        let identity = disk.join("state/identity");
        // Which number it is depends on how often it began anew.
        let found = names(&identity);
        let current = fs::read(identity.join("current.json")).unwrap_or_default();
        let current: Value = serde_json::from_slice(&current).unwrap_or_default();
        if found != format!("{} current.json", current["generation"]) {
            wrongs.push(format!("the identities are {found}, and {current} is in force"));
        }
        let config = fs::read_to_string(disk.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_str(&config).unwrap_or_default();
        let expected = if *self == Self::First { "new" } else { "old" };
        if config["a"] != expected {
            wrongs.push(format!("the configuration is {config}"));
        }
        wrongs
    }
}
