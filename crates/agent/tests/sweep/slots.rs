//! Firmware into slots, at every point: whatever happens, a whole system boots, and what is said of it is true.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::operation::{Scenario, Standing, names};
use crate::support::cloud::Cloud;
use crate::support::slots::{System, image};
use crate::support::{Device, Operator, cloud_with_bucket, firmware_document, sha256};

const SIZE: usize = 200_000;
/// What must survive, and so is on the disk whose power is cut.
const PERSISTENT: [&str; 3] = ["slotA", "slotB", "grubenv"];

pub struct Slots(pub System);

impl Slots {
    fn running(&self) -> Vec<u8> {
        image(System::Good, 1, SIZE)
    }

    fn update(&self) -> Vec<u8> {
        image(self.0, 2, SIZE)
    }

    fn stays(&self) -> bool {
        self.0 == System::Good
    }
}

impl Scenario for Slots {
    fn name(&self) -> &'static str {
        match self.0 {
            System::Good => "slots, a system that is well",
            System::Unhealthy => "slots, a system that is not well",
            System::Panics => "slots, a system that does not come up",
        }
    }

    fn document(&self) -> Value {
        firmware_document("fw", "2.0", &sha256(&self.update()))
    }

    fn cloud(&self) -> Cloud {
        let cloud = cloud_with_bucket(&[]);
        cloud.upload("fw", &self.update());
        cloud
    }

    fn configure(&self, device: &Device, disk: &Path) {
        device.simulate_slots(&self.running(), SIZE as u64);
        let mut config = fs::read_to_string(device.config()).unwrap();
        for name in PERSISTENT.into_iter().chain(["state"]) {
            let (from, to) = (device.path(name), disk.join(name));
            assert!(config.contains(from.to_str().unwrap()));
            config = config.replace(&format!("{from:?}"), &format!("{to:?}"));
        }
        device.write("fleethand.toml", config);
        for name in PERSISTENT {
            fs::remove_file(device.path(name)).unwrap();
            symlink(disk.join(name), device.path(name)).unwrap();
        }
    }

    fn prepare(&self, device: &Device, disk: &Path) {
        fs::create_dir(disk.join("state")).unwrap();
        let installed = json!({"version": "1.0", "digest": sha256(&self.running()), "slot": "A"});
        fs::write(disk.join("state/installed.json"), installed.to_string()).unwrap();
        device.write("slotA", self.running());
        device.write("slotB", vec![0; SIZE]);
        for arguments in [["create"].as_slice(), &["set", "good=A"]] {
            let status = Command::new("grub-editenv").arg(disk.join("grubenv")).args(arguments).status();
            assert!(status.unwrap().success());
        }
        let _ = fs::remove_file(device.path("boots"));
        device.power_cycle();
    }

    fn power_is_back(&self, device: &Device, _: &str) {
        device.power_cycle();
    }

    fn outcome(&self) -> (&'static str, &'static str) {
        match self.0 {
            System::Good => ("SUCCEEDED", "installed"),
            System::Unhealthy => ("FAILED", "health-check-failed"),
            System::Panics => ("FAILED", "bootloader-rolled-back"),
        }
    }

    fn wrongs(&self, device: &Device, disk: &Path, _: &Standing) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut expect = |what: &str, found: String, expected: &str| {
            if found != expected {
                wrongs.push(format!("{what}: {found} instead of {expected}"));
            }
        };
        let stays = self.stays();
        let slot = if stays { "B" } else { "A" };
        expect("the slot that runs", device.running_slot(), slot);
        expect("the environment block", device.boot_state(), &format!("good={slot}"));
        expect("slot A", sha256(&device.read("slotA")), &sha256(&self.running()));
        let (version, digest) =
            if stays { ("2.0", sha256(&self.update())) } else { ("1.0", sha256(&self.running())) };
        if stays {
            expect("slot B", sha256(&device.read("slotB")), &digest);
        }
        let installed = fs::read(disk.join("state/installed.json")).unwrap_or_default();
        let installed: Value = serde_json::from_slice(&installed).unwrap_or_default();
        let recorded = json!({"version": version, "digest": digest, "slot": slot});
        expect("installed.json", installed.to_string(), &recorded.to_string());
        expect("the disk", names(disk), "grubenv slotA slotB state");
        let refused = if stays { "" } else { " refused.json" };
        expect("the state", names(&disk.join("state")), &format!("history.json installed.json{refused}"));

        // An order that was given is not given again by the system that it led to.
        let orders = fs::read_to_string(device.path("reboots")).unwrap_or_default();
        let orders: Vec<_> = orders.lines().collect();
        let most = if self.0 == System::Unhealthy { 2 } else { 1 };
        let mut boots = orders.clone();
        boots.dedup();
        if orders.len() > most || boots.len() != orders.len() {
            wrongs.push(format!("ordered to reboot in {orders:?}"));
        }
        // The next boot, and the one after it, are of the same system.
        for _ in 0..2 {
            device.power_cycle();
            if device.running_slot() != slot {
                wrongs.push(format!("the next boot is of slot {}", device.running_slot()));
            }
        }
        wrongs
    }
}
