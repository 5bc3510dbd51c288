//! `[credentials]` in the small build, which has no use for them.

use std::path::Path;

use connection::Route;

use super::ConfigError;
use super::table::Table;

const MISSING: &str = "this program was built without the feature `websocket`";

pub(super) struct Credentials;

impl Credentials {
    pub(super) fn parse(table: Option<Table<'_>>, _: &Path, _: &str) -> Result<Self, ConfigError> {
        match table {
            Some(table) => Err(table.unusable("region", MISSING)),
            None => Ok(Self),
        }
    }

    pub(super) fn route(self, _: &str, table: &Table<'_>) -> Result<Route, ConfigError> {
        Err(table.unusable("transport", MISSING))
    }
}
