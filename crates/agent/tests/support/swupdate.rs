//! SWUpdate as Debian has it, writing the slots of a simulated device; and bundles for it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Device, sha256, until};

/// Whoever signs bundles.
pub struct Maker {
    folder: tempfile::TempDir,
}

impl Maker {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem \
                       -subj /CN=maker -days 30 -addext extendedKeyUsage=emailProtection";
        run(folder.path(), "openssl", &options.split_whitespace().collect::<Vec<_>>());
        Self { folder }
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub fn bundle(&self, image: &[u8]) -> Vec<u8> {
        self.bundle_that_says(image, &sha256(image))
    }

    /// A bundle for both slots of whichever device, that says this of its image.
    pub fn bundle_that_says(&self, image: &[u8], checksum: &str) -> Vec<u8> {
        let folder = self.folder.path();
        fs::write(folder.join("rootfs.img"), image).unwrap();
        let mode = |mode: &str, slot: &str| {
            format!(
                "{mode} = {{ images: ( {{ filename = \"rootfs.img\"; type = \"raw\"; device = {slot:?}; sha256 = {:?}; \
                 installed-directly = true; }} ); }};",
                checksum.trim_start_matches("sha256:"),
            )
        };
        let (a, b) = (mode("slot-a", "slotA"), mode("slot-b", "slotB"));
        let description = format!(
            "software = {{ version = \"1.0\"; hardware-compatibility: [ \"1.0\" ]; stable = {{ {a} {b} }}; }}"
        );
        fs::write(folder.join("sw-description"), description).unwrap();
        let sign = "cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem -outform DER \
                    -nosmimecap -binary";
        run(folder, "openssl", &sign.split_whitespace().collect::<Vec<_>>());
        let pack =
            "printf '%s\\n' sw-description sw-description.sig rootfs.img | cpio --quiet -o -H crc > fw.swu";
        run(folder, "sh", &["-c", pack]);
        fs::read(folder.join("fw.swu")).unwrap()
    }
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The daemon, and all that it has started.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn start(device: &Device, maker: &Maker) -> Self {
        Self::launch(device, maker, Command::new("swupdate"))
    }

    /// One that takes as long as this for each 16 KiB.
    pub fn start_slow(device: &Device, maker: &Maker, delay: &str) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e"]);
        strace
            .arg(format!("inject=write:delay_enter={delay}"))
            .arg("-P")
            .arg(device.path("slotB"))
            .arg("swupdate");
        Self::launch(device, maker, strace)
    }

    fn launch(device: &Device, maker: &Maker, mut command: Command) -> Self {
        let folder = device.path("swupdate");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let log = fs::File::options().create(true).append(true).open(device.path("swupdate.log")).unwrap();
        let child = command
            .args(["-H", "board:1.0", "-B", "none", "-l", "5", "-k"])
            .arg(maker.certificate())
            .args(["-q", "stable,slot-a", "-q", "stable,slot-b"])
            .env("TMPDIR", &folder)
            // Where the slots are that bundles name.
            .current_dir(device.path(""))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        for socket in ["sockinstctrl", "swupdateprog"] {
            until(socket, || super::exists(&folder.join(socket)).then_some(()));
        }
        Self { child, log: device.path("swupdate.log") }
    }

    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("SWUpdate's log:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Device {
    /// In the place of the target `slots` of `simulate_slots`.
    pub fn leave_the_slots_to_swupdate(&self) {
        let text = fs::read_to_string(self.config()).unwrap();
        let (before, rest) = text.split_once("target = \"slots\"").unwrap();
        let (_slots, after) = rest.split_once("[boot]").unwrap();
        let text = format!(
            "{before}target = \"swupdate\"\n\n[firmware.swupdate]\nsoftware_set = \"stable\"\n\
             control = {:?}\nprogress = {:?}\ntimeout_seconds = 60\n\n\
             [firmware.swupdate.modes]\nA = \"slot-a\"\nB = \"slot-b\"\n\n[boot]{after}",
            self.path("swupdate/sockinstctrl"),
            self.path("swupdate/swupdateprog"),
        );
        fs::write(self.config(), text).unwrap();
    }
}
