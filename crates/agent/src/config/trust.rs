//! What of the configuration is about signed firmware.

use device::Trust;
use release::Keyring;

use super::table::{ConfigError, Table};

/// Far more than keys that a device can have.
const MAX_THRESHOLD: u64 = 16;

pub(super) fn compatible(mut table: Table<'_>) -> Result<Vec<String>, ConfigError> {
    let names = table.strings("compatible", "an array of names of this hardware: [\"board-1\"]")?;
    if names.iter().any(String::is_empty) {
        return Err(table.unusable("compatible", "a name is empty, expected the name of this hardware"));
    }
    table.finish()?;
    Ok(names)
}

/// The keys are read here and nowhere else: where they are configured, there is no device without them.
pub(super) fn trust(mut table: Table<'_>, compatible: &[String]) -> Result<Option<Trust>, ConfigError> {
    let folder = table.path("keys")?;
    let threshold = table.integer("threshold", 1..=MAX_THRESHOLD)?;
    let Some(folder) = folder else {
        if threshold.is_some() {
            return Err(table.unusable("threshold", "there is nothing to count, expected `keys`, too"));
        }
        table.finish()?;
        return Ok(None);
    };
    if compatible.is_empty() {
        let problem = "no signed release could fit, expected `compatible` in [device], too";
        return Err(table.unusable("keys", problem));
    }
    let keyring = Keyring::load(&folder, threshold.unwrap_or(1) as usize)
        .map_err(|error| table.unusable("keys", error))?;
    table.finish()?;
    Ok(Some(Trust { folder, keyring }))
}
