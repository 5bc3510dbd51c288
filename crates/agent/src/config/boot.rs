//! `[boot]` and `[firmware.slots]`: the bootloader, and what it boots.

use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter, Result as Written};
use std::time::Duration;

use device::{BootSettings, Booted, BootloaderKind, SlotsTarget};

use super::show::{path, seconds, text};
use super::table::{ConfigError, Table};

const CMDLINE: &str = "/proc/cmdline";

pub(super) fn boot(table: Option<Table<'_>>) -> Result<Option<BootSettings>, ConfigError> {
    let Some(mut table) = table else { return Ok(None) };
    let kind = table.required_string("kind", "\"grub\", \"u-boot\" or \"command\"")?;
    let kind = match kind.as_str() {
        "grub" => BootloaderKind::Grub {
            editenv: table.string("program", "a program")?.unwrap_or("grub-editenv".into()),
            env: table.path("env")?.unwrap_or("/boot/grub/grubenv".into()),
            tries: tries(&mut table)?,
        },
        "u-boot" => BootloaderKind::UBoot {
            printenv: table.string("printenv", "a program")?.unwrap_or("fw_printenv".into()),
            setenv: table.string("setenv", "a program")?.unwrap_or("fw_setenv".into()),
            config: table.path("config")?,
            tries: tries(&mut table)?,
        },
        "command" => {
            let (program, arguments) = table.required_command("command")?;
            BootloaderKind::Command { program, arguments }
        }
        other => {
            let expected = "expected \"grub\", \"u-boot\" or \"command\"";
            return Err(table.unusable("kind", format!("found {other:?}, {expected}")));
        }
    };
    let asks_itself = matches!(kind, BootloaderKind::Command { .. });
    let settings = BootSettings {
        booted: booted(&mut table, asks_itself)?,
        timeout: table.seconds("command_timeout_seconds", 1..=3600)?.unwrap_or(Duration::from_secs(60)),
        kind,
    };
    table.finish()?;
    Ok(Some(settings))
}

/// One digit: U-Boot's scripts count in hexadecimal.
fn tries(table: &mut Table<'_>) -> Result<u64, ConfigError> {
    Ok(table.integer("tries", 1..=9)?.unwrap_or(3))
}

fn booted(table: &mut Table<'_>, asks_itself: bool) -> Result<Booted, ConfigError> {
    let default = if asks_itself { "command" } else { "cmdline" };
    let booted = table.string("booted", "\"cmdline\" or \"command\"")?.unwrap_or(default.to_owned());
    match booted.as_str() {
        "command" if asks_itself => Ok(Booted::Command),
        "cmdline" => Ok(Booted::Cmdline {
            file: table.path("cmdline_file")?.unwrap_or(CMDLINE.into()),
            parameter: table
                .string("cmdline_parameter", "the name of a kernel parameter")?
                .unwrap_or("slot".into()),
        }),
        other => {
            let expected = "expected \"cmdline\", or \"command\" where kind = \"command\"";
            Err(table.unusable("booted", format!("found {other:?}, {expected}")))
        }
    }
}

pub(super) fn slots(
    firmware: &mut Table<'_>,
    boot: Option<BootSettings>,
) -> Result<SlotsTarget, ConfigError> {
    let Some(boot) = boot else {
        return Err(
            firmware.unusable("target", "\"slots\" needs the table [boot]: who decides which slot boots")
        );
    };
    let mut table = firmware.required_table_in("slots", "firmware.slots")?;
    let slots = table.paths()?;
    two_slots(firmware, "slots", &slots)?;
    Ok(SlotsTarget { slots, boot })
}

/// Two, by names that every bootloader can store, and something else for each.
pub(super) fn two_slots<T: PartialEq + Debug>(
    table: &Table<'_>,
    key: &str,
    slots: &BTreeMap<String, T>,
) -> Result<(), ConfigError> {
    let legal = |name: &String| {
        (1..=32).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    if let Some(name) = slots.keys().find(|name| !legal(name)) {
        let problem = format!("{name:?}: a slot's name has 1 to 32 of the characters a-z A-Z 0-9 _ . -");
        return Err(table.unusable(key, problem));
    }
    let mut named = slots.iter();
    match (named.next(), named.next(), named.next()) {
        (Some((_, one)), Some((_, other)), None) if one != other => Ok(()),
        (Some(_), Some((_, both)), None) => Err(table.unusable(key, format!("both slots are {both:?}"))),
        _ => Err(table.unusable(key, format!("found {}, expected exactly two slots", slots.len()))),
    }
}

pub(super) fn show_slots(f: &mut Formatter<'_>, target: &SlotsTarget) -> Written {
    text(f, "target", "slots")?;
    writeln!(f, "\n[firmware.slots]")?;
    for (name, slot) in &target.slots {
        // A name may have a dot in it.
        path(f, &format!("{name:?}"), slot)?;
    }
    show_boot(f, &target.boot)
}

pub(super) fn show_boot(f: &mut Formatter<'_>, boot: &BootSettings) -> Written {
    writeln!(f, "\n[boot]")?;
    match &boot.kind {
        BootloaderKind::Grub { editenv, env, tries } => {
            text(f, "kind", "grub")?;
            text(f, "program", editenv)?;
            path(f, "env", env)?;
            writeln!(f, "tries = {tries}")?;
        }
        BootloaderKind::UBoot { printenv, setenv, config, tries } => {
            text(f, "kind", "u-boot")?;
            text(f, "printenv", printenv)?;
            text(f, "setenv", setenv)?;
            match config {
                Some(config) => path(f, "config", config)?,
                None => writeln!(f, "# config: the programs' own")?,
            }
            writeln!(f, "tries = {tries}")?;
        }
        BootloaderKind::Command { program, arguments } => {
            text(f, "kind", "command")?;
            let words: Vec<_> = std::iter::once(program).chain(arguments).collect();
            writeln!(f, "command = {words:?}")?;
        }
    }
    match &boot.booted {
        Booted::Command => text(f, "booted", "command")?,
        Booted::Cmdline { file, parameter } => {
            text(f, "booted", "cmdline")?;
            text(f, "cmdline_parameter", parameter)?;
            path(f, "cmdline_file", file)?;
        }
    }
    seconds(f, "command_timeout_seconds", boot.timeout)
}
