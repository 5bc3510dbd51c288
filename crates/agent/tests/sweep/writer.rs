//! Who writes the slot that does not run, and tells the bootloader.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::support::Device;
use crate::support::swupdate::{Daemon, Maker};

pub enum Writer {
    Agent,
    /// Target `command`: the example of docs/targets.md, on this simulated device.
    Installer,
    Swupdate(Swupdate),
}

/// The real daemon. What it is given must outlive a power cut, it itself does not.
pub struct Swupdate {
    maker: Maker,
    /// And the boot that it belongs to.
    daemon: Mutex<Option<(Vec<u8>, Daemon)>>,
}

/// Why there can be no SWUpdate on this machine.
pub fn swupdate_is_missing() -> Option<&'static str> {
    let asked =
        Command::new("swupdate").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_err().then_some("it takes swupdate: scripts/install-deps")
}

impl Writer {
    pub fn swupdate() -> Self {
        Self::Swupdate(Swupdate { maker: Maker::new(), daemon: Mutex::new(None) })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Agent => "slots",
            Self::Installer => "an installer",
            Self::Swupdate(_) => "swupdate",
        }
    }

    /// What a job brings for this image.
    pub fn artifact(&self, image: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Agent | Self::Installer => image,
            Self::Swupdate(swupdate) => swupdate.maker.bundle(&image),
        }
    }

    /// The folder of the disk where files arrive.
    pub fn staging(&self) -> Option<&'static str> {
        match self {
            Self::Agent => None,
            Self::Installer => Some("staging"),
            Self::Swupdate(_) => Some("state/staging"),
        }
    }

    /// In the place of the agent, which the device is configured for.
    pub fn configure(&self, device: &Device, disk: &Path) {
        match self {
            Self::Agent => {}
            Self::Installer => use_installer(device, disk),
            Self::Swupdate(_) => device.leave_the_slots_to_swupdate(),
        }
    }

    pub fn power_goes(&self) {
        if let Self::Swupdate(swupdate) = self {
            *swupdate.daemon.lock().unwrap() = None;
        }
    }

    pub fn bring_up(&self, device: &Device) {
        let Self::Swupdate(swupdate) = self else { return };
        let (boot, mut daemon) = (device.read("boot-id"), swupdate.daemon.lock().unwrap());
        if daemon.as_ref().is_none_or(|(of, _)| *of != boot) {
            // The old one first: they have their sockets in the same place.
            *daemon = None;
            *daemon = Some((boot, Daemon::start(device, &swupdate.maker)));
        }
    }
}

fn use_installer(device: &Device, disk: &Path) {
    let mut config = fs::read_to_string(device.config()).unwrap();
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
    device.write("fleethand.toml", config);
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
