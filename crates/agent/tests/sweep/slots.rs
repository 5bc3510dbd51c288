//! Firmware into slots, at every point: whatever happens, a whole system boots, and what is said of it is true.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use release::{Envelope, Kind, SigningKey, Statement};
use serde_json::{Value, json};

use crate::operation::{Scenario, Standing, installed, keep_on, names, wrong_orders};
use crate::support::cloud::Cloud;
use crate::support::slots::{System, image};
use crate::support::{Device, Operator, cloud_with_bucket, firmware_document, sha256};
use crate::writer::Writer;

pub const SIZE: usize = 200_000;
/// What must survive, and so is on the disk whose power is cut.
const PERSISTENT: [&str; 3] = ["slotA", "slotB", "grubenv"];
const SEQUENCE: u64 = 7;

pub struct Slots {
    system: System,
    by: Writer,
    artifact: Vec<u8>,
    /// Whose signature the device asks for, and the job carries.
    key: Option<SigningKey>,
    at_the_next_reboot: bool,
}

/// The system that runs before the job.
pub fn running() -> Vec<u8> {
    image(System::Good, 1, SIZE)
}

/// The one that it brings.
pub fn update(system: System) -> Vec<u8> {
    image(system, 2, SIZE)
}

/// How an update with this system ends.
pub fn outcome(system: System) -> (&'static str, &'static str) {
    match system {
        System::Good => ("SUCCEEDED", "installed"),
        System::Unhealthy => ("FAILED", "health-check-failed"),
        System::Panics => ("FAILED", "bootloader-rolled-back"),
    }
}

pub fn description(system: System) -> &'static str {
    match system {
        System::Good => "a system that is well",
        System::Unhealthy => "a system that is not well",
        System::Panics => "a system that does not come up",
    }
}

/// There and, if it is not well, back again.
pub fn most_orders(system: System) -> usize {
    if system == System::Unhealthy { 2 } else { 1 }
}

impl Slots {
    pub fn new(system: System, by: Writer) -> Self {
        let artifact = by.artifact(update(system));
        Self { system, by, artifact, key: None, at_the_next_reboot: false }
    }

    pub fn signed(mut self) -> Self {
        let pem = SigningKey::generate(Kind::Ed25519).unwrap();
        self.key = Some(SigningKey::from_pem(pem.as_bytes()).unwrap());
        self
    }

    /// Nobody orders the reboot but a person.
    pub fn at_the_next_reboot(mut self) -> Self {
        self.at_the_next_reboot = true;
        self
    }

    fn stays(&self) -> bool {
        self.system == System::Good
    }

    fn release(&self, key: &SigningKey) -> Value {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(&self.artifact).into();
        let length = self.artifact.len() as u64;
        let statement = Statement::new(digest, length, "2.0", SEQUENCE, &["board-1".to_owned()]);
        let mut envelope = Envelope::of(&statement).unwrap();
        envelope.sign(key).unwrap();
        serde_json::to_value(&envelope).unwrap()
    }
}

impl Scenario for Slots {
    fn name(&self) -> String {
        let signed = if self.key.is_some() { ", signed" } else { "" };
        let when = if self.at_the_next_reboot { ", at the next reboot" } else { "" };
        format!("{}, {}{signed}{when}", self.by.name(), description(self.system))
    }

    fn thinned(&self) -> usize {
        if matches!(self.by, Writer::Swupdate(_)) { 4 } else { 1 }
    }

    fn document(&self) -> Value {
        let mut document = firmware_document("fw", "2.0", &sha256(&self.artifact));
        if let Some(key) = &self.key {
            document["release"] = self.release(key);
        }
        if self.at_the_next_reboot {
            document["activate"] = json!("next-reboot");
        }
        document
    }

    fn cloud(&self) -> Cloud {
        let cloud = cloud_with_bucket(&[]);
        cloud.upload("fw", &self.artifact);
        cloud
    }

    fn configure(&self, device: &mut Device, disk: &Path) {
        device.simulate_slots(&running(), SIZE as u64);
        device.only_whole_systems_boot(&[&running(), &update(self.system)]);
        keep_on(disk, device, &[&PERSISTENT[..], &["state"]].concat());
        self.by.configure(device, disk);
        if let Some(key) = &self.key {
            fs::create_dir(device.path("keys.d")).unwrap();
            device.write("keys.d/maker.pem", key.public().to_pem());
            device.configure("release", "keys = \"keys.d\"");
            device.configure("device", "compatible = [\"board-1\"]");
        }
        for name in PERSISTENT {
            fs::remove_file(device.path(name)).unwrap();
            symlink(disk.join(name), device.path(name)).unwrap();
        }
    }

    fn prepare(&self, device: &Device, disk: &Path) {
        self.by.power_goes();
        fs::create_dir(disk.join("state")).unwrap();
        let installed = json!({"version": "1.0", "digest": sha256(&running()), "slot": "A"});
        fs::write(disk.join("state/installed.json"), installed.to_string()).unwrap();
        device.write("slotA", running());
        device.write("slotB", vec![0; SIZE]);
        for arguments in [["create"].as_slice(), &["set", "good=A"]] {
            let status = Command::new("grub-editenv").arg(disk.join("grubenv")).args(arguments).status();
            assert!(status.unwrap().success());
        }
        let _ = fs::remove_file(device.path("boots"));
        device.power_cycle();
    }

    fn power_goes(&self) {
        self.by.power_goes();
    }

    fn boot(&self, device: &Device, _: &str) {
        device.power_cycle();
    }

    fn bring_up(&self, device: &Device) {
        self.by.bring_up(device);
    }

    fn awaits_reboot(&self, device: &Device, disk: &Path) -> bool {
        if !self.at_the_next_reboot {
            return false;
        }
        let journal = fs::read(disk.join("state/journal.json")).unwrap_or_default();
        let phase = serde_json::from_slice::<Value>(&journal).unwrap_or_default()["phase"].take();
        let boot_id = String::from_utf8(device.read("boot-id")).unwrap();
        phase["phase"] == "rebooting" && phase["attempts"] == 0 && phase["boot_id"] == boot_id.trim()
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
        let stays = self.stays();
        let slot = if stays { "B" } else { "A" };
        expect("the slot that runs", device.running_slot(), slot);
        expect("the environment block", device.boot_state(), &format!("good={slot}"));
        expect("slot A", sha256(&device.read("slotA")), &sha256(&running()));
        if stays {
            expect("slot B", sha256(&device.read("slotB")), &sha256(&update(self.system)));
        }

        let (version, digest) =
            if stays { ("2.0", sha256(&self.artifact)) } else { ("1.0", sha256(&running())) };
        let mut recorded = json!({"version": version, "digest": digest, "slot": slot});
        // Which slot runs is not the agent's business where an installer has them.
        if matches!(self.by, Writer::Installer) && stays {
            recorded.as_object_mut().unwrap().remove("slot");
        }
        let mut state = vec!["history.json", "installed.json", "meter.json"];
        if self.key.is_some() && stays {
            recorded["sequence"] = json!(SEQUENCE);
            let floor = fs::read_to_string(disk.join("state/sequence-floor")).unwrap_or_default();
            expect("the sequence floor", floor, &format!("{SEQUENCE}\n"));
            state.push("sequence-floor");
        }
        expect("installed.json", installed(disk), &recorded.to_string());
        if !stays {
            state.push("refused.json");
            // What was verified and not committed: the next transfer takes its place.
            if self.key.is_some() {
                state.push("ledger.json");
            }
        }
        let mut on_disk = vec!["grubenv", "slotA", "slotB", "state"];
        match self.by.staging().map(|staging| (staging, staging.strip_prefix("state/"))) {
            Some((_, Some(inside))) => state.push(inside),
            Some((staging, None)) => on_disk.push(staging),
            None => {}
        }
        if let Some(staging) = self.by.staging() {
            expect("what is staged", names(&disk.join(staging)), "");
        }
        for names in [&mut state, &mut on_disk] {
            names.sort_unstable();
        }
        expect("the state", names(&disk.join("state")), &state.join(" "));
        // The installer's own note of an update that did not stay: the next one writes it anew.
        expect("the disk", names(disk).replace("mark ", ""), &on_disk.join(" "));

        let most = if self.at_the_next_reboot { 0 } else { most_orders(self.system) };
        wrongs.extend(wrong_orders(device, most));
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
