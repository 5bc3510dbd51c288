//! `[policy]`: when the device may be disturbed.

use std::time::Duration;

use device::{CommandSpec, Holds};
use dispatcher::policy::{Policy, Window, Zone};

use super::table::{ConfigError, Table};

/// A window that is longer is not one.
const MAX_MINUTES: u64 = 7 * 24 * 60;

/// Where the package's programs that may hold an update off are looked for.
const HOLD_DIRECTORY: &str = "/etc/fleethand/hold.d";

/// What the dispatcher waits for, the command that it asks, and who else is asked.
pub(super) fn policy(mut table: Table<'_>) -> Result<(Policy, Option<CommandSpec>, Holds), ConfigError> {
    let windows = table.tables_in("windows", "policy.windows")?.into_iter().map(window);
    let windows = windows.collect::<Result<Vec<_>, _>>()?;
    let zone = table.string("time_zone", "a name like \"Europe/Berlin\"")?;
    let zone = zone.map_or_else(Zone::system, |name| Zone::named(&name));
    if !windows.is_empty() {
        zone.load().map_err(|error| table.unusable("time_zone", error))?;
    }
    let hook = table.command("hook")?;
    let timeout = table.seconds("hook_timeout_seconds", 1..=3600)?.unwrap_or(Duration::from_secs(60));
    let interval = table.seconds("hook_interval_seconds", 1..=super::DAY)?;
    let directory = table.path("hold_directory")?.unwrap_or(HOLD_DIRECTORY.into());
    let inhibitors = table.boolean("inhibitors")?.unwrap_or(true);
    table.finish()?;
    let policy = Policy { windows, zone, hook_interval: interval.unwrap_or(Policy::default().hook_interval) };
    let hook = hook.map(|(program, arguments)| CommandSpec { program, arguments, timeout });
    Ok((policy, hook, Holds { directory, timeout, inhibitors }))
}

fn window(mut table: Table<'_>) -> Result<Window, ConfigError> {
    let start = table.required_string("start", "a schedule like \"0 2 * * sat-sun\"")?;
    let start = start.parse().map_err(|error| table.unusable("start", error))?;
    let minutes = table.required_integer("minutes", 1..=MAX_MINUTES)?;
    table.finish()?;
    Ok(Window { start, minutes: u32::try_from(minutes).unwrap_or(u32::MAX) })
}
