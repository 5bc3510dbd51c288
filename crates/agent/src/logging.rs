//! Where log lines go, and in which form.

use std::io::IsTerminal;
use std::path::Path;

use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::config::{Log, LogFormat};
use crate::journald::{self, Journald};

/// Standard error, or the journal that it leads to: standard output belongs to what a command was asked for.
pub fn start(log: Log) {
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let terminal = std::io::stderr().is_terminal();
    let journald = journald::is_standard_error();
    let layer = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Auto if journald => match Journald::at(Path::new(journald::SOCKET)) {
            Ok(journald) => journald.boxed(),
            // journald stamps every line itself.
            Err(_) => lines.with_ansi(false).without_time().boxed(),
        },
        LogFormat::Auto => lines.with_ansi(terminal).boxed(),
    };
    // Libraries speak of their own matters from debug on; of theirs, only warnings concern an operator.
    let ours = ["fleethand", "connection", "jobs", "dispatcher", "device", "downloader"];
    let filter = tracing_subscriber::filter::Targets::new()
        .with_default(log.level.min(tracing::level_filters::LevelFilter::WARN))
        .with_targets(ours.map(|target| (target, log.level)));
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
