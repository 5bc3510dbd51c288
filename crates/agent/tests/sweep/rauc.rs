//! Firmware that RAUC installs, at every point: its service works beside the agent, goes with the power, and comes up
//! with the system that boots.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::operation::{Scenario, Standing, installed, keep_on, names, wrong_orders};
use crate::slots::{SIZE, description, most_orders, outcome, running, update};
use crate::support::cloud::Cloud;
use crate::support::rauc::{Bundle, Rauc};
use crate::support::slots::System;
use crate::support::{Device, Operator, cloud_with_bucket, firmware_document, sha256};

pub struct Bundles {
    system: System,
    bundle: Vec<u8>,
    rauc: Mutex<Running>,
}

struct Running {
    rauc: Rauc,
    /// The boot that the service belongs to; empty while there is none.
    boot: Vec<u8>,
}

impl Running {
    fn power_goes(&mut self) {
        self.rauc.power_goes();
        self.boot.clear();
    }

    /// The bootloader's part: the first slot that it has not given up, and that comes up.
    fn boots(&self, system: System) -> String {
        loop {
            let slot = self.rauc.ask_bootloader(&["get-primary"]);
            let content = self.rauc.slot(&slot, SIZE);
            if content == running() || (system != System::Panics && content == update(system)) {
                return slot;
            }
            self.rauc.ask_bootloader(&["set-state", &slot, "bad"]);
        }
    }
}

impl Bundles {
    pub fn new(system: System) -> Self {
        let rauc = Rauc::new();
        let bundle = rauc.bundle(&Bundle { image: &update(system), ..Bundle::default() });
        Self { system, bundle, rauc: Mutex::new(Running { rauc, boot: Vec::new() }) }
    }

    fn rauc(&self) -> MutexGuard<'_, Running> {
        self.rauc.lock().unwrap()
    }
}

impl Scenario for Bundles {
    fn name(&self) -> String {
        format!("rauc, {}", description(self.system))
    }

    fn thinned(&self) -> usize {
        4
    }

    fn document(&self) -> Value {
        firmware_document("fw", "2.0", &sha256(&self.bundle))
    }

    fn cloud(&self) -> Cloud {
        let cloud = cloud_with_bucket(&[]);
        cloud.upload("fw", &self.bundle);
        cloud
    }

    fn configure(&self, device: &mut Device, disk: &Path) {
        let mut running = self.rauc();
        running.power_goes();
        running.rauc.keep_on(disk, ["A", "B"].map(|slot| disk.join(format!("slot{slot}"))), "");
        running.rauc.configure(device);
        keep_on(disk, device, &["state"]);
        let health = format!(
            "cd {}\n! head -c 12 {}/slot$(cat running) | grep UNHEALTHY\n",
            device.path("").display(),
            disk.display()
        );
        let health = device.script("health.sh", &health);
        device
            .configure("health", &format!("commands = [{health}]\ninterval_seconds = 1\nwithin_seconds = 2"));
    }

    fn prepare(&self, device: &Device, disk: &Path) {
        self.rauc().power_goes();
        fs::create_dir(disk.join("state")).unwrap();
        let installed = json!({"version": "1.0", "digest": sha256(&running()), "slot": "rootfs.0"});
        fs::write(disk.join("state/installed.json"), installed.to_string()).unwrap();
        fs::write(disk.join("slotA"), running()).unwrap();
        fs::write(disk.join("slotB"), vec![0; SIZE]).unwrap();
        device.write("boot-id", "boot-1\n");
    }

    fn power_goes(&self) {
        self.rauc().power_goes();
    }

    fn boot(&self, device: &Device, job: &str) {
        device.write("boot-id", format!("boot-after-cut-of-{job}\n"));
    }

    fn bring_up(&self, device: &Device) {
        let (boot, mut running) = (device.read("boot-id"), self.rauc());
        if running.boot != boot {
            running.power_goes();
            let slot = running.boots(self.system);
            running.rauc.serve(&slot);
            running.boot = boot;
            device.write("running", slot);
        }
    }

    fn outcome(&self) -> (&'static str, &'static str) {
        outcome(self.system)
    }

    fn wrongs(&self, device: &Device, disk: &Path, _: &Standing) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut expect = |what: &str, found: String, expected: &str| {
            if found != expected {
                wrongs.push(format!("{what}: {found} instead of {expected}"));
            }
        };
        let stays = self.system == System::Good;
        let (slot, number) = if stays { ("B", "rootfs.1") } else { ("A", "rootfs.0") };
        let text = |name: &str| String::from_utf8(device.read(name)).unwrap();
        expect("the slot that runs", text("running"), slot);
        let (primary, state_of_b) = self.rauc().rauc.bootloader();
        expect("what the bootloader boots", primary, slot);
        expect("slot B to the bootloader", state_of_b, if stays { "good" } else { "bad" });
        let content = |name: &str| sha256(&fs::read(disk.join(name)).unwrap());
        expect("slot A", content("slotA"), &sha256(&running()));
        if stays {
            expect("slot B", content("slotB"), &sha256(&update(self.system)));
        }

        let (version, digest) =
            if stays { ("2.0", sha256(&self.bundle)) } else { ("1.0", sha256(&running())) };
        let recorded = json!({"version": version, "digest": digest, "slot": number});
        expect("installed.json", installed(disk), &recorded.to_string());
        let more = if stays { "rauc-installed" } else { "refused.json" };
        expect(
            "the state",
            names(&disk.join("state")),
            &format!("history.json installed.json meter.json {more} staging"),
        );
        expect("what is staged", names(&disk.join("state/staging")), "");
        wrongs.extend(wrong_orders(device, most_orders(self.system)));
        // The next boot, and the one after it, are of the same system.
        for next in [(); 2].map(|()| self.rauc().boots(self.system)) {
            if next != slot {
                wrongs.push(format!("the next boot is of slot {next}"));
            }
        }
        wrongs
    }
}
