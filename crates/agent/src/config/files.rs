//! `[config]` and `[[config]]`: the files that `update-config` changes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use device::{Checked, CommandSpec, FileTarget, Health};
use dispatcher::{ConfigFile, Format, JSON_SCHEMA};

use super::table::{ConfigError, Table};
use super::{DAY, device::file};

/// What the device has to know, by name, and what has to be known to decide.
pub(super) type Files = (BTreeMap<String, Checked<FileTarget>>, Vec<ConfigFile>);

pub(super) fn configs(tables: Vec<Table<'_>>) -> Result<Files, ConfigError> {
    let (mut places, mut rules): Files = Files::default();
    for mut table in tables {
        let described = describe(&mut table)?;
        let target = &described.place.target;
        let named = table.string("name", "a name")?;
        let own = target.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = named.unwrap_or(own);
        if !ConfigFile::is_name(&name) {
            return Err(table.unusable("name", format!("found {name:?}, expected {}", ConfigFile::NAME)));
        }
        rules.push(described.place(table, name, &mut places)?);
    }
    Ok((places, rules))
}

/// A file, as its table describes it.
pub(super) struct Described {
    pub place: Checked<FileTarget>,
    format: Format,
    schema: Option<PathBuf>,
}

pub(super) fn describe(table: &mut Table<'_>) -> Result<Described, ConfigError> {
    let target = file(table, "reload_command", "reload_timeout_seconds")?;
    let format = format(table, &target.file)?;
    let schema = schema(table)?;
    Ok(Described { place: Checked { target, health: health(table)? }, format, schema })
}

impl Described {
    /// Among the places of the device; each has a name and a file of its own.
    pub(super) fn place(
        self,
        table: Table<'_>,
        name: String,
        places: &mut BTreeMap<String, Checked<FileTarget>>,
    ) -> Result<ConfigFile, ConfigError> {
        let Self { place, format, schema } = self;
        if places.contains_key(&name) {
            return Err(table.again("name", &name));
        }
        if places.values().any(|other| other.target.file == place.target.file) {
            return Err(table.again("file", &place.target.file.to_string_lossy()));
        }
        table.finish()?;
        places.insert(name.clone(), place);
        Ok(ConfigFile { name, format, schema })
    }
}

fn format(table: &mut Table<'_>, file: &std::path::Path) -> Result<Format, ConfigError> {
    const EXPECTED: &str = "\"json\", \"toml\" or \"yaml\"";
    match table.string("format", EXPECTED)? {
        Some(name) => Format::by_name(&name)
            .ok_or_else(|| table.unusable("format", format!("found {name:?}, expected {EXPECTED}"))),
        None => Format::by_extension(file).ok_or_else(|| {
            let problem =
                format!("not set, and the name of {} does not tell: expected {EXPECTED}", file.display());
            table.unusable("format", problem)
        }),
    }
}

fn schema(table: &mut Table<'_>) -> Result<Option<PathBuf>, ConfigError> {
    let schema = table.path("schema")?;
    match &schema {
        Some(_) if !JSON_SCHEMA => {
            Err(table.unusable("schema", "this fleethand was built without the feature json-schema"))
        }
        _ => Ok(schema),
    }
}

fn health(table: &mut Table<'_>) -> Result<Health, ConfigError> {
    let command = table.command("health_command")?;
    let within = table.seconds("health_timeout_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(60));
    let interval = table.seconds("health_interval_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(5));
    let spec = |(program, arguments)| CommandSpec { program, arguments, timeout: within };
    Ok(Health { checks: command.map(spec).into_iter().collect(), interval, within })
}
