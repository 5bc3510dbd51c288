//! `fleethand doctor`: what is wrong with this device, in words, and what to do. Changes nothing and disturbs nobody: two
//! connections with one client id throw each other off, so a running agent is asked about its own.

mod cloud;
mod local;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

pub use local::EXPIRES_SOON;
pub use report::{Check, Report};

use crate::config::Settings;
use crate::lock;
use crate::status::{self, Status};

pub async fn run(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(json);
    match Settings::of_device(file) {
        Ok(settings) => examine(&settings, file, &mut report).await,
        Err(error) => report.add(Check::failed("configuration", error, "correct the file")),
    }
    report.end()
}

async fn examine(settings: &Settings, file: &Path, report: &mut Report) {
    report.add(local::configuration(settings, file));
    report.add(local::clock(SystemTime::now()));
    let claim = settings.awaits_provisioning();
    match claim {
        None => certificate(settings, report),
        Some(claim) => report.add(local::claim(claim, settings.check_identity(file))),
    }
    for check in local::folders(settings) {
        report.add(check);
    }
    if let Some(helper) = &settings.helper {
        report.add(local::helper(&helper.socket));
    }
    let agent = Agent::of(settings);
    report.add(local::agent(&agent));
    if claim.is_some() {
        return;
    }
    match settings.tls(file) {
        Ok(tls) => cloud::connect(&settings.link(tls), &settings.connection.thing_name, &agent, report).await,
        Err(error) => report.add(Check::failed(
            "identity",
            error,
            "correct the file, or give another one to `fleethand setup`",
        )),
    }
}

fn certificate(settings: &Settings, report: &mut Report) {
    if settings.connection.anonymous.is_none() {
        report.add(local::certificate(&settings.connection.identity.certificate, SystemTime::now()));
    }
}

/// What is known of an agent that may run here, with the same client id.
enum Agent {
    Stopped,
    /// And what it says, where it can be asked.
    Runs(Option<Box<Status>>),
    /// Only root can tell.
    Unknown,
}

impl Agent {
    fn of(settings: &Settings) -> Self {
        match lock::is_held(&settings.state_directory) {
            Some(true) => {
                let socket = settings.status_socket.as_deref();
                Self::Runs(socket.and_then(|socket| status::ask(socket).ok()).map(Box::new))
            }
            Some(false) => Self::Stopped,
            None => Self::Unknown,
        }
    }
}

/// What `fleethand setup` asks of an identity that is not in force yet.
pub async fn examine_new(
    settings: &Settings,
    tls: std::sync::Arc<rustls::ClientConfig>,
    report: &mut Report,
) {
    report.add(local::clock(SystemTime::now()));
    certificate(settings, report);
    // What the one that runs knows is of the identity of before.
    let agent = match Agent::of(settings) {
        Agent::Runs(_) => Agent::Runs(None),
        other => other,
    };
    cloud::connect(&settings.link(tls), &settings.connection.thing_name, &agent, report).await;
}
