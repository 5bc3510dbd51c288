//! `[status]` and `[metrics]`: who may see how it goes.

use std::path::PathBuf;
use std::time::Duration;

use super::DAY;
use super::table::{ConfigError, Table};
use crate::metrics::MetricsSettings;

pub(super) fn status(mut table: Table<'_>) -> Result<Option<PathBuf>, ConfigError> {
    let socket = table.path("socket")?;
    table.finish()?;
    Ok(socket)
}

pub(super) fn metrics(mut table: Table<'_>) -> Result<Option<MetricsSettings>, ConfigError> {
    let file = table.path("file")?;
    let interval = table.seconds("interval_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(15));
    table.finish()?;
    Ok(file.map(|file| MetricsSettings { file, interval }))
}
