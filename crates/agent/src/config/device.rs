//! What of the configuration is about the device: where things go, and how it is found that all is well.

use std::path::Path;
use std::time::Duration;

use device::{
    BootSettings, Checked, CommandSpec, FileTarget, FirmwareTarget, Health, InstallerTarget, RebootSpec,
};

use super::DAY;
use super::boot::slots;
use super::swupdate::swupdate;
use super::table::{ConfigError, Table};

pub(super) fn firmware(
    table: Option<Table<'_>>,
    boot: Option<BootSettings>,
    health: Health,
    state_directory: &Path,
) -> Result<Option<Checked<FirmwareTarget>>, ConfigError> {
    let Some(mut table) = table else { return Ok(None) };
    let kind = table.string("target", "a kind of target")?;
    let target = match kind.as_deref() {
        None | Some("file") => FirmwareTarget::File(file(&mut table, "command", "command_timeout_seconds")?),
        Some("command") => {
            let table = table.required_table_in("installer", "firmware.installer")?;
            FirmwareTarget::Command(installer(table, state_directory)?)
        }
        Some("slots") => FirmwareTarget::Slots(slots(&mut table, boot)?),
        #[cfg(feature = "rauc")]
        Some("rauc") => {
            let table = table.table_in("rauc", "firmware.rauc")?;
            FirmwareTarget::Rauc(rauc(table, state_directory)?)
        }
        #[cfg(not(feature = "rauc"))]
        Some("rauc") => {
            let problem = "this fleethand was built without the feature rauc";
            return Err(table.unusable("target", problem));
        }
        Some("swupdate") => FirmwareTarget::Swupdate(swupdate(&mut table, boot, state_directory)?),
        Some(other) => {
            let expected = "expected \"file\", \"slots\", \"rauc\", \"swupdate\" or \"command\"";
            return Err(table.unusable("target", format!("found {other:?}, {expected}")));
        }
    };
    table.finish()?;
    Ok(Some(Checked { target, health }))
}

#[cfg(feature = "rauc")]
fn rauc(mut table: Table<'_>, state_directory: &Path) -> Result<device::RaucTarget, ConfigError> {
    let (program, arguments) = table.command("command")?.unwrap_or_else(|| ("rauc".to_owned(), Vec::new()));
    let timeout = table.seconds("timeout_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(1800));
    let staging = table.path("staging")?.unwrap_or_else(|| state_directory.join("staging"));
    let max_bundle = table.integer("max_size_bytes", 1..=u64::MAX >> 1)?.unwrap_or((2 << 30) - 1);
    let read_back = table.boolean("read_back")?.unwrap_or(true);
    table.finish()?;
    let command = CommandSpec { program, arguments, timeout };
    Ok(device::RaucTarget { command, staging, max_bundle, read_back })
}

/// A file and a command. The keys of the command differ by what it is for.
pub(super) fn file(
    table: &mut Table<'_>,
    command: &'static str,
    timeout: &'static str,
) -> Result<FileTarget, ConfigError> {
    let file = table.required_path("file")?;
    if file.file_name().is_none() {
        return Err(table.unusable("file", format!("{} does not name a file", file.display())));
    }
    let words = table.command(command)?;
    let timeout = table.seconds(timeout, 1..=DAY)?.unwrap_or(Duration::from_secs(300));
    let command = words.map(|(program, arguments)| CommandSpec { program, arguments, timeout });
    Ok(FileTarget { file, command })
}

fn installer(mut table: Table<'_>, state_directory: &Path) -> Result<InstallerTarget, ConfigError> {
    let (program, arguments) = table.required_command("command")?;
    let timeout = table.seconds("timeout_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(1800));
    let staging = table.path("staging")?.unwrap_or_else(|| state_directory.join("staging"));
    table.finish()?;
    Ok(InstallerTarget { command: CommandSpec { program, arguments, timeout }, staging })
}

/// The checks of firmware, and within what time the cloud must be reached, if it must.
pub(super) fn health(mut table: Table<'_>) -> Result<(Health, Option<Duration>), ConfigError> {
    let defaults = Health::default();
    let within = table.seconds("within_seconds", 1..=DAY)?.unwrap_or(defaults.within);
    let interval = table.seconds("interval_seconds", 1..=DAY)?.unwrap_or(defaults.interval);
    let timeout = table.seconds("command_timeout_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(60));
    let spec = |program: String, arguments: Vec<String>| CommandSpec { program, arguments, timeout };
    let mut checks: Vec<_> = table
        .strings("units", "an array of systemd units: [\"product.service\"]")?
        .into_iter()
        .map(|unit| {
            let arguments = ["is-active", "--quiet", "--"].map(str::to_owned).into_iter().chain([unit]);
            spec("systemctl".to_owned(), arguments.collect())
        })
        .collect();
    checks
        .extend(table.commands("commands")?.into_iter().map(|(program, arguments)| spec(program, arguments)));
    let cloud = table.boolean("cloud")?.unwrap_or(false);
    table.finish()?;
    Ok((Health { checks, interval, within }, cloud.then_some(within)))
}

pub(super) fn reboot(mut table: Table<'_>) -> Result<RebootSpec, ConfigError> {
    let (program, arguments) =
        table.command("command")?.unwrap_or_else(|| ("systemctl".to_owned(), vec!["reboot".to_owned()]));
    let timeout = table.seconds("command_timeout_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(60));
    let boot_id_file = table.path("boot_id_file")?;
    table.finish()?;
    Ok(RebootSpec {
        command: CommandSpec { program, arguments, timeout },
        boot_id_file: boot_id_file.unwrap_or("/proc/sys/kernel/random/boot_id".into()),
    })
}
