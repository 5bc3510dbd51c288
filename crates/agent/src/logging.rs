//! Where log lines go, and in which form.

use std::io::IsTerminal;

use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::config::{Log, LogFormat};

/// Standard error in any case: standard output belongs to what a command was asked for.
pub fn start(log: Log) {
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let terminal = std::io::stderr().is_terminal();
    // journald stamps every line itself.
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let layer = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Auto if journald => lines.with_ansi(false).without_time().boxed(),
        LogFormat::Auto => lines.with_ansi(terminal).boxed(),
    };
    // Libraries speak of their own matters from debug on; of theirs, only warnings concern an operator.
    let ours = ["fleethand", "connection", "jobs", "dispatcher", "device", "downloader"];
    let filter = tracing_subscriber::filter::Targets::new()
        .with_default(log.level.min(tracing::level_filters::LevelFilter::WARN))
        .with_targets(ours.map(|target| (target, log.level)));
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
