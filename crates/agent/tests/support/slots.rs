//! A device with two slots, of which GRUB boots one: slots and environment block are files, `grub-editenv` is the real
//! one, and a script plays GRUB and the kernel.

use std::fs;
use std::process::Command;

use super::{Device, sha256};

/// What a system does, told by the first word of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Boots, and its health check passes.
    Good,
    /// Boots, and its health check does not pass.
    Unhealthy,
    /// Does not come up: the hardware resets, as often as it takes.
    Panics,
}

/// An image; others for other seeds.
pub fn image(system: System, seed: u8, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect();
    let word = format!("{:<12}", format!("{system:?}").to_uppercase());
    bytes[..word.len()].copy_from_slice(word.as_bytes());
    bytes
}

/// The script of docs/targets.md, on a simulated device. `boots` has a line for each boot. Where there is a file
/// `systems`, it has the checksums of whole ones, and nothing else comes up.
const GRUB: &str = r#"
while :; do
    good= try= left=
    eval "$(grub-editenv grubenv list)"
    slot=$good
    if [ -n "$try" ]; then
        if [ "${left:-0}" -gt 0 ]; then
            slot=$try
            grub-editenv grubenv set left=$((left - 1))
        else
            grub-editenv grubenv set try= left= rolledback=1
        fi
    fi
    echo "$slot" >>boots
    [ "$(grep -c . boots)" -lt 100 ] || exit 1
    if head -c 12 "slot$slot" | grep -q PANICS; then continue; fi
    if [ ! -f systems ] || grep -q "$(sha256sum <"slot$slot" | cut -d' ' -f1)" systems; then break; fi
done
echo "root=/dev/simulated ro slot=$slot" >cmdline.new
mv cmdline.new cmdline
echo "boot-$(grep -c . boots)" >boot-id.new
mv boot-id.new boot-id
"#;

impl Device {
    /// Slot A runs, with this image; slot B is empty. Both are `size` bytes long.
    pub fn simulate_slots(&self, running: &[u8], size: u64) {
        for (slot, content) in [("slotA", running), ("slotB", b"")] {
            self.write(slot, content);
            fs::File::options().write(true).open(self.path(slot)).unwrap().set_len(size).unwrap();
        }
        let folder = self.path("");
        self.grub_editenv(&["create"]);
        self.grub_editenv(&["set", "good=A"]);
        self.write("boot.sh", format!("set -e\ncd {}\n{GRUB}", folder.display()));
        self.power_cycle();

        // An agent that was killed meanwhile is not the parent any more.
        let reboot = format!(
            "cd {}\ncat boot-id >>reboots\nsh boot.sh\n\
             ! grep -q fleethand /proc/$PPID/comm || kill -TERM $PPID\n",
            folder.display()
        );
        let reboot = self.script("reboot.sh", &reboot);
        self.configure("reboot", &format!("command = {reboot}\nboot_id_file = {:?}", self.path("boot-id")));

        let health = format!(
            "cd {}\nslot=$(sed 's/.*slot=//' cmdline)\n\
             ! head -c 12 slot$slot | grep UNHEALTHY\n",
            folder.display()
        );
        let health = self.script("health.sh", &health);
        self.configure("health", &format!("commands = [{health}]\ninterval_seconds = 1\nwithin_seconds = 2"));

        let text = fs::read_to_string(self.config()).unwrap();
        let file = format!("[firmware]\nfile = {:?}\n", self.path("firmware.bin"));
        assert!(text.contains(&file), "{text}");
        let slots = format!(
            "[firmware]\ntarget = \"slots\"\n\n[firmware.slots]\nA = {:?}\nB = {:?}\n\n\
             [boot]\nkind = \"grub\"\nenv = {:?}\ncmdline_file = {:?}\n",
            self.path("slotA"),
            self.path("slotB"),
            self.path("grubenv"),
            self.path("cmdline"),
        );
        fs::write(self.config(), text.replace(&file, &slots)).unwrap();
    }

    /// A slot with anything but one of these does not come up.
    pub fn only_whole_systems_boot(&self, systems: &[&[u8]]) {
        let sums: Vec<_> = systems.iter().map(|system| sha256(system)).collect();
        self.write("systems", sums.join("\n"));
    }

    /// The power comes back: whatever boots, boots.
    pub fn power_cycle(&self) {
        let status = Command::new("sh").arg(self.path("boot.sh")).status().unwrap();
        assert!(status.success());
    }

    /// The environment block, sorted, without what is empty.
    pub fn boot_state(&self) -> String {
        let listing = self.grub_editenv(&["list"]);
        let mut set: Vec<_> = listing.lines().filter(|line| !line.ends_with('=')).collect();
        set.sort_unstable();
        set.join(" ")
    }

    pub fn grub_editenv(&self, arguments: &[&str]) -> String {
        let output = Command::new("grub-editenv").arg(self.path("grubenv")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn running_slot(&self) -> String {
        String::from_utf8(self.read("cmdline")).unwrap().trim().rsplit_once("slot=").unwrap().1.to_owned()
    }

    /// The beginning of a slot: as many bytes as `image` has.
    pub fn slot_has(&self, slot: &str, image: &[u8]) -> bool {
        self.read(&format!("slot{slot}")).starts_with(image)
    }
}
