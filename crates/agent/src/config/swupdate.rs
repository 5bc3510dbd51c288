//! `[firmware.swupdate]`: how SWUpdate is reached, and which of its modes writes which slot.

use std::fmt::{Formatter, Result as Written};
use std::path::Path;
use std::time::Duration;

use device::{BootSettings, SwupdateTarget};

use super::DAY;
use super::boot::{show_boot, two_slots};
use super::show::{path, seconds, text};
use super::table::{ConfigError, Table};

pub(super) fn swupdate(
    firmware: &mut Table<'_>,
    boot: Option<BootSettings>,
    state_directory: &Path,
) -> Result<SwupdateTarget, ConfigError> {
    let Some(boot) = boot else {
        return Err(
            firmware.unusable("target", "\"swupdate\" needs the table [boot]: who decides which slot boots")
        );
    };
    let mut table = firmware.required_table_in("swupdate", "firmware.swupdate")?;
    let mut modes = table.required_table_in("modes", "firmware.swupdate.modes")?;
    let target = SwupdateTarget {
        software_set: table.string("software_set", "a software set")?.unwrap_or("stable".into()),
        modes: modes.strings_by_name("a mode of the software set")?,
        control: table.path("control")?.unwrap_or("/tmp/sockinstctrl".into()),
        progress: table.path("progress")?.unwrap_or("/tmp/swupdateprog".into()),
        staging: table.path("staging")?.unwrap_or_else(|| state_directory.join("staging")),
        timeout: table.seconds("timeout_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(1800)),
        boot,
    };
    two_slots(&table, "modes", &target.modes)?;
    for name in target.modes.values().chain([&target.software_set]) {
        // It goes into a C string, and with a comma between into the daemon's own list.
        if name.len() > SwupdateTarget::MAX_NAME || name.contains([',', '\0']) {
            let problem = format!("{name:?} is too long, or has a comma or a zero in it");
            return Err(table.unusable("modes", problem));
        }
    }
    table.finish()?;
    Ok(target)
}

pub(super) fn show_swupdate(f: &mut Formatter<'_>, target: &SwupdateTarget) -> Written {
    text(f, "target", "swupdate")?;
    writeln!(f, "\n[firmware.swupdate]")?;
    text(f, "software_set", &target.software_set)?;
    path(f, "control", &target.control)?;
    path(f, "progress", &target.progress)?;
    path(f, "staging", &target.staging)?;
    seconds(f, "timeout_seconds", target.timeout)?;
    writeln!(f, "\n[firmware.swupdate.modes]")?;
    for (slot, mode) in &target.modes {
        // A name may have a dot in it.
        text(f, &format!("{slot:?}"), mode)?;
    }
    show_boot(f, &target.boot)
}
