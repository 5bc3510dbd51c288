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

pub struct Slots {
    pub system: System,
    pub by: Writer,
}

/// Who writes the slot and tells the bootloader.
#[derive(Clone, Copy, PartialEq)]
pub enum Writer {
    Agent,
    /// Target `command`: the example of docs/targets.md, on this simulated device.
    Installer,
}

/// `$1` is the verb, `$2` the file. `grub-editenv` empties the block before it writes it, so it is given a copy.
const INSTALLER: &str = r#"
set -eu
running=$(sed 's/.*slot=//' cmdline)
case $running in A) other=B ;; B) other=A ;; *) exit 20 ;; esac
mark=$disk/mark
boot() {
    cp $disk/grubenv $disk/grubenv.new
    grub-editenv $disk/grubenv.new set "$@"
    sync $disk/grubenv.new
    mv $disk/grubenv.new $disk/grubenv
    sync $disk
}
case $1 in
install)
    [ ! -f $mark ] || [ "$(cat $mark)" = "$running" ] || exit 0
    echo "$running" >$mark.new && sync $mark.new && mv $mark.new $mark && sync $disk
    boot try= left=
    dd if="$2" of=$disk/slot$other bs=64k conv=fsync,notrunc status=none
    echo progress 100
    boot try=$other left=3
    exit 10
    ;;
check) [ "sha256:$(sha256sum <$disk/slot$running | cut -d' ' -f1)" = "$FLEETHAND_CHECKSUM" ] || exit 20 ;;
confirm) boot good=$running try= left= rolledback= && rm -f $mark ;;
rollback)
    [ -f $mark ] || exit 0
    before=$(cat $mark)
    boot good=$before try= left= rolledback=
    [ "$before" = "$running" ] || exit 10
    rm -f $mark
    ;;
*) exit 64 ;;
esac
"#;

impl Slots {
    fn running(&self) -> Vec<u8> {
        image(System::Good, 1, SIZE)
    }

    fn update(&self) -> Vec<u8> {
        image(self.system, 2, SIZE)
    }

    fn stays(&self) -> bool {
        self.system == System::Good
    }
}

impl Scenario for Slots {
    fn name(&self) -> &'static str {
        match (self.by, self.system) {
            (Writer::Agent, System::Good) => "slots, a system that is well",
            (Writer::Agent, System::Unhealthy) => "slots, a system that is not well",
            (Writer::Agent, System::Panics) => "slots, a system that does not come up",
            (Writer::Installer, System::Good) => "an installer, a system that is well",
            (Writer::Installer, System::Unhealthy) => "an installer, a system that is not well",
            (Writer::Installer, System::Panics) => "an installer, a system that does not come up",
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
        if self.by == Writer::Installer {
            let begin = config.find("[firmware]").unwrap();
            let end = config[begin..].find("\n\n[boot]").unwrap() + begin;
            let end = end + config[end + 2..].find("\n\n").map_or(config.len() - end, |length| length + 2);
            let (folder, disk) = (device.path(""), disk.display());
            let script = format!("cd {}\ndisk={disk}\n{INSTALLER}", folder.display());
            let command = device.script("installer.sh", &script);
            let installer = format!(
                "[firmware]\ntarget = \"command\"\n\n[firmware.installer]\ncommand = {command}\n\
                 staging = \"{disk}/staging\"\n"
            );
            config.replace_range(begin..end, &installer);
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
        match self.system {
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
        let mut recorded = json!({"version": version, "digest": digest, "slot": slot});
        // Which slot runs is not the agent's business where an installer has them.
        if self.by == Writer::Installer && stays {
            recorded.as_object_mut().unwrap().remove("slot");
        }
        expect("installed.json", installed.to_string(), &recorded.to_string());
        let staging = if self.by == Writer::Installer { "staging " } else { "" };
        // The installer's own note of an update that did not stay: the next one writes it anew.
        let disk_names = names(disk).replace("mark ", "");
        expect("the disk", disk_names, &format!("grubenv slotA slotB {staging}state"));
        let refused = if stays { "" } else { " refused.json" };
        expect(
            "the state",
            names(&disk.join("state")),
            &format!("history.json installed.json meter.json{refused}"),
        );

        // An order that was given is not given again by the system that it led to.
        let orders = fs::read_to_string(device.path("reboots")).unwrap_or_default();
        let orders: Vec<_> = orders.lines().collect();
        let most = if self.system == System::Unhealthy { 2 } else { 1 };
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
