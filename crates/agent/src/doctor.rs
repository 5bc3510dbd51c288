//! `fleethand doctor`: what is wrong with this device, in words, and what to do. Changes nothing and disturbs nobody: two
//! connections with one client id throw each other off, so a running agent is asked about its own.

mod cloud;
mod local;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

pub use report::{Check, Report};

use crate::config::Settings;
use crate::lock;

pub async fn run(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(json);
    match Settings::load(file) {
        Ok(settings) => examine(&settings, file, &mut report).await,
        Err(error) => report.add(Check::failed("configuration", error, "correct the file")),
    }
    report.end()
}

async fn examine(settings: &Settings, file: &Path, report: &mut Report) {
    report.add(local::configuration(settings, file));
    report.add(local::clock(SystemTime::now()));
    report.add(local::certificate(&settings.connection.identity.certificate, SystemTime::now()));
    for check in local::folders(settings) {
        report.add(check);
    }
    let runs = lock::is_held(&settings.state_directory);
    report.add(local::agent(&runs));
    match settings.tls(file) {
        Ok(tls) => cloud::connect(&settings.link(tls), &settings.connection.thing_name, runs, report).await,
        Err(error) => report.add(Check::failed(
            "identity",
            error,
            "correct the file, or give another one to `fleethand setup`",
        )),
    }
}

/// What `fleethand setup` asks of an identity that is not in force yet. `agent_runs`: with the same client id.
pub async fn examine_new(
    settings: &Settings,
    tls: std::sync::Arc<rustls::ClientConfig>,
    report: &mut Report,
) {
    report.add(local::clock(SystemTime::now()));
    report.add(local::certificate(&settings.connection.identity.certificate, SystemTime::now()));
    let runs = lock::is_held(&settings.state_directory);
    cloud::connect(&settings.link(tls), &settings.connection.thing_name, runs, report).await;
}
