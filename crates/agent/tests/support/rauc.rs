//! A system with RAUC: two slots, a bus of its own, RAUC's service, and a bootloader that is a script with a file. What
//! boots is what the bootloader says, and the service is told so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::{Device, exists, until};

pub const COMPATIBLE: &str = "board-1";

pub struct Rauc {
    folder: tempfile::TempDir,
    /// Where the devices of the slots A and B are.
    slots: [PathBuf; 2],
    bus: Child,
    service: Option<Child>,
}

/// What a bundle is made of, where it is not the usual.
pub struct Bundle<'a> {
    pub image: &'a [u8],
    pub compatible: &'a str,
    pub signer: &'a str,
    /// The installation waits until `go_on` is called.
    pub waits: bool,
}

impl Default for Bundle<'_> {
    fn default() -> Self {
        Self { image: b"", compatible: COMPATIBLE, signer: "maker", waits: false }
    }
}

/// `None`, with a word: this machine cannot run these tests.
pub fn missing() -> Option<&'static str> {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !nix::unistd::geteuid().is_root() {
        Some("it takes root")
    } else if !(has("rauc") && has("dbus-daemon") && Path::new("/usr/bin/mksquashfs").exists()) {
        Some("it takes rauc, dbus-daemon and mksquashfs: scripts/install-deps")
    } else if !run("losetup", &["--find"]).status.success() {
        Some("it takes loop devices")
    } else {
        None
    }
}

impl Rauc {
    /// A bus, and makers with their keys. There are no slots yet, and no service.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("mnt")).unwrap();
        for name in ["maker", "stranger"] {
            let (key, certificate) = (path(&format!("{name}.key")), path(&format!("{name}.pem")));
            let [key, certificate] = [&key, &certificate].map(|path| path.to_str().unwrap());
            let subject = format!("/CN={name}");
            let words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
            let more = ["-days", "30", "-subj", &subject, "-keyout", key, "-out", certificate];
            done("openssl", &[&words[..], &more].concat());
        }
        let bus_config = format!(
            "<busconfig><type>system</type><listen>unix:path={}</listen><policy context=\"default\">\
             <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
             </policy></busconfig>",
            path("bus").display()
        );
        fs::write(path("bus.conf"), bus_config).unwrap();
        let bus = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--config-file", path("bus.conf").to_str().unwrap()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the bus", || exists(&path("bus")).then_some(()));
        Self { folder, slots: Default::default(), bus, service: None }
    }

    /// Slot A runs. The slots are loop devices of these lengths; `slot_keys` are more lines of their configuration.
    pub fn create(lengths: [usize; 2], slot_keys: &str) -> Self {
        let mut this = Self::new();
        let images = ["A", "B"].map(|slot| this.path(&format!("slot-{slot}")));
        for ((image, length), letter) in images.iter().zip(lengths).zip([b'A', b'B']) {
            fs::write(image, vec![letter; length]).unwrap();
        }
        let slots =
            images.map(|image| done("losetup", &["--find", "--show", image.to_str().unwrap()]).trim().into());
        let disk = this.path("");
        this.keep_on(&disk, slots, slot_keys);
        this.serve("A");
        this
    }

    /// What must survive a power cut is on this disk: RAUC's record of its slots, and the bootloader's state.
    pub fn keep_on(&mut self, disk: &Path, slots: [PathBuf; 2], slot_keys: &str) {
        let (root, disk) = (self.folder.path().display(), disk.display());
        let mut config = format!(
            "[system]\ncompatible={COMPATIBLE}\nbootloader=custom\nstatusfile={disk}/status\n\
             mountprefix={root}/mnt\nbundle-formats=plain\n[keyring]\npath={root}/maker.pem\n\
             [handlers]\nbootloader-custom-backend={root}/bootloader\n"
        );
        for (number, (name, device)) in ["A", "B"].into_iter().zip(&slots).enumerate() {
            let device = device.display();
            config +=
                &format!("[slot.rootfs.{number}]\ndevice={device}\ntype=raw\nbootname={name}\n{slot_keys}\n");
        }
        fs::write(self.path("system.conf"), config).unwrap();
        fs::write(self.path("bootloader"), format!("#!/bin/sh\ncd {disk} || exit 1\n{BOOTLOADER}")).unwrap();
        done("chmod", &["+x", self.path("bootloader").to_str().unwrap()]);
        self.slots = slots;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the agent and RAUC's program find the bus.
    pub fn bus(&self) -> String {
        format!("unix:path={}", self.path("bus").display())
    }

    /// Starts the service in a system that booted this slot.
    pub fn serve(&mut self, boot_name: &str) {
        assert!(self.service.is_none());
        let log = fs::File::options().create(true).append(true).open(self.path("service.log")).unwrap();
        let mut command = self.rauc(&["service", "--override-boot-slot", boot_name]);
        self.service = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        until("RAUC", || self.rauc(&["status"]).output().unwrap().status.success().then_some(()));
    }

    pub fn kill_service(&mut self) {
        let mut service = self.service.take().unwrap();
        service.kill().unwrap();
        service.wait().unwrap();
    }

    /// As in a power cut: no service, and no bundle that it has mounted.
    pub fn power_goes(&mut self) {
        if self.service.is_some() {
            self.kill_service();
        }
        let mount = self.path("mnt/bundle");
        // A program that the service has started may hold it for a moment.
        until("the bundle to be unmounted", || {
            let mounted = run("mountpoint", &["-q", mount.to_str().unwrap()]).status.success();
            if mounted {
                run("umount", &[mount.to_str().unwrap()]);
            }
            (!mounted).then_some(())
        });
    }

    /// The bundle's bytes.
    pub fn bundle(&self, bundle: &Bundle<'_>) -> Vec<u8> {
        let content = tempfile::tempdir_in(self.folder.path()).unwrap();
        let hooks = if bundle.waits { ("hooks=pre-install\n", "[hooks]\nfilename=hook\n") } else { ("", "") };
        let manifest = format!(
            "[update]\ncompatible={}\nversion=2\n[bundle]\nformat=plain\n{}[image.rootfs]\nfilename=rootfs.img\n{}",
            bundle.compatible, hooks.1, hooks.0
        );
        let (begun, go) = (self.path("begun"), self.path("go"));
        let wait = format!(
            "#!/bin/sh\ntouch {}\nwhile ! test -e {}; do sleep 0.02; done\n",
            begun.display(),
            go.display()
        );
        fs::write(content.path().join("manifest.raucm"), manifest).unwrap();
        fs::write(content.path().join("rootfs.img"), bundle.image).unwrap();
        fs::write(content.path().join("hook"), wait).unwrap();
        done("chmod", &["+x", content.path().join("hook").to_str().unwrap()]);
        let out = content.path().with_extension("raucb");
        let file = |end: &str| self.path(&format!("{}.{end}", bundle.signer)).display().to_string();
        let made = Command::new("rauc")
            .args(["bundle", "--cert", &file("pem"), "--key", &file("key"), "--keyring", &file("pem")])
            .args([content.path(), &out])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::read(out).unwrap()
    }

    /// An installation with a bundle that waits has begun.
    pub fn wait_until_begun(&self) {
        until("the installation to begin", || exists(&self.path("begun")).then_some(()));
        fs::remove_file(self.path("begun")).unwrap();
    }

    /// Every bundle that waits goes on, and those to come do not wait.
    pub fn go_on(&self) {
        fs::write(self.path("go"), "").unwrap();
    }

    pub fn rauc(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("rauc");
        command.arg("--conf").arg(self.path("system.conf")).args(arguments);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.bus());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// A person installs something by hand.
    pub fn install_by_hand(&self, bundle: &[u8]) -> Child {
        let file = self.path("by-hand.raucb");
        fs::write(&file, bundle).unwrap();
        self.rauc(&["install", file.to_str().unwrap()]).spawn().unwrap()
    }

    pub fn device(&self, boot_name: &str) -> &Path {
        &self.slots[usize::from(boot_name == "B")]
    }

    /// What the slot has, up to `length`.
    pub fn slot(&self, boot_name: &str, length: usize) -> Vec<u8> {
        use std::io::Read;
        let device = self.device(boot_name);
        let mut bytes = vec![0; length];
        fs::File::open(device).unwrap().read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn write_slot(&self, boot_name: &str, bytes: &[u8]) {
        use std::io::Write;
        let device = self.device(boot_name);
        let mut file = fs::File::options().write(true).open(device).unwrap();
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
    }

    pub fn ask_bootloader(&self, words: &[&str]) -> String {
        done(self.path("bootloader").to_str().unwrap(), words).trim().to_owned()
    }

    /// What the bootloader would boot, and what it thinks of slot B.
    pub fn bootloader(&self) -> (String, String) {
        (self.ask_bootloader(&["get-primary"]), self.ask_bootloader(&["get-state", "B"]))
    }

    /// The system goes down and comes up with this slot; the agent has ended already.
    pub fn boot(&mut self, boot_name: &str, device: &mut Device) {
        assert!(device.has_ended());
        self.kill_service();
        self.serve(boot_name);
        device.start();
    }

    /// Makes firmware of this device a matter of RAUC, and its reboots simulated ones.
    pub fn configure(&self, device: &mut Device) {
        device.environment.push(("DBUS_SYSTEM_BUS_ADDRESS".to_owned(), self.bus()));
        let text = fs::read_to_string(device.config()).unwrap();
        let (before, rest) = text.split_once("\n[firmware]\n").unwrap();
        let after = rest.split_once("\n[").map(|(_, after)| format!("\n[{after}")).unwrap_or_default();
        let command = ["rauc".to_owned(), format!("--conf={}", self.path("system.conf").display())];
        let firmware = format!("[firmware]\ntarget = \"rauc\"\n[firmware.rauc]\ncommand = {command:?}\n");
        fs::write(device.config(), format!("{before}\n{firmware}{after}")).unwrap();
        device.simulate_reboots();
    }
}

impl Drop for Rauc {
    fn drop(&mut self) {
        // A hook that waits holds the bundle's mount.
        self.go_on();
        for process in self.service.iter_mut().chain([&mut self.bus]) {
            let _ = process.kill();
            let _ = process.wait();
        }
        let mount = self.path("mnt").join("bundle");
        while run("mountpoint", &["-q", mount.to_str().unwrap()]).status.success()
            && run("umount", &["--lazy", mount.to_str().unwrap()]).status.success()
        {}
        for device in self.slots.iter().filter(|device| device.starts_with("/dev")) {
            run("losetup", &["--detach", device.to_str().unwrap()]);
        }
        if std::thread::panicking() {
            eprintln!("RAUC's log:\n{}", fs::read_to_string(self.path("service.log")).unwrap_or_default());
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn done(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// RAUC's custom backend: the order in which the slots are tried, and whether each is good. Changed in one write, as a
/// bootloader's own environment is.
const BOOTLOADER: &str = r#"
order="A B" A=good B=good
[ ! -f boot ] || . ./boot
put() { echo "order='$order' A=$A B=$B" >boot.new && sync boot.new && mv boot.new boot && sync .; }
case $1 in
get-primary) for slot in $order; do
    eval "state=\$$slot"
    if [ "$state" = good ]; then echo "$slot"; exit; fi
    done; exit 1 ;;
set-primary) eval "$2=good"; if [ "$2" = A ]; then order="A B"; else order="B A"; fi; put ;;
get-state) eval "echo \$$2" ;;
set-state) echo "$2" "$3" >>marks; eval "$2=$3"; put ;;
*) exit 1 ;;
esac
"#;
