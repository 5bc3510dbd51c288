//! `[publish]`: what other programs may publish, and how much of it is kept.

use std::path::PathBuf;
use std::time::Duration;

use publish::{Encoding, Rules, check_prefix};

use super::DAY;
use super::table::{ConfigError, Table};

const MIB: u64 = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub socket: PathBuf,
    pub rules: Rules,
    pub encoding: Encoding,
    /// A reading waits so long for others.
    pub batch_for: Duration,
    /// What is kept until the cloud has it.
    pub max_bytes: u64,
}

pub(super) fn publish(table: Option<Table<'_>>, thing_name: &str) -> Result<Option<Publish>, ConfigError> {
    let Some(mut table) = table else { return Ok(None) };
    let socket = table.required_path("socket")?;
    let prefixes = table.strings("topic_prefix", "prefixes of topics")?;
    let prefixes: Vec<_> =
        prefixes.into_iter().map(|prefix| prefix.replace("{thing_name}", thing_name)).collect();
    if prefixes.is_empty() {
        return Err(table.unusable("topic_prefix", "expected at least one, such as [\"dt/{thing_name}/\"]"));
    }
    for prefix in &prefixes {
        check_prefix(prefix)
            .map_err(|problem| table.unusable("topic_prefix", format!("{prefix:?} {problem}")))?;
    }
    let suffix = table.string("gzip_suffix", "the end of a topic")?.unwrap_or_else(|| "/gzip".to_owned());
    if suffix.starts_with('$') || suffix.contains(|c: char| "+#".contains(c) || c.is_control()) {
        return Err(table.unusable("gzip_suffix", "expected something that a topic may end with"));
    }
    let gzip = table.boolean("gzip")?.unwrap_or(false);
    let encoding = if gzip { Encoding::Gzip { suffix } } else { Encoding::Json };
    let settings = Publish {
        socket,
        rules: Rules { prefixes, suffix: encoding.suffix().to_owned() },
        encoding,
        batch_for: table.seconds("batch_seconds", 0..=DAY)?.unwrap_or(Duration::from_secs(10)),
        max_bytes: table.integer("max_bytes", MIB / 4..=1024 * 1024 * MIB)?.unwrap_or(16 * MIB),
    };
    table.finish()?;
    Ok(Some(settings))
}
