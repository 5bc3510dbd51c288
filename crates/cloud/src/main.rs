//! AWS IoT Core's Jobs and S3 on one machine. Where to read first: `cloud` is the hub through which everything passes,
//! `engine` knows what Jobs do, `broker` and `identity` speak MQTT with devices, `http` with operators and SDKs,
//! `s3` holds the files.

mod broker;
mod cli;
mod client;
mod clock;
mod cloud;
mod engine;
mod faults;
mod http;
mod identity;
#[cfg(feature = "man")]
#[path = "../../../packaging/man.rs"]
mod man;
mod messages;
mod provisioning;
mod s3;
mod serve;
mod shadow;
mod store;
mod temporary;

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::Parser as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> anyhow::Result<()> {
    #[cfg(feature = "man")]
    if man::asked(&<cli::Cli as clap::CommandFactory>::command()) {
        return Ok(());
    }
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?;
    let said = match cli.command {
        cli::Command::Serve(options) => {
            log_to_stderr(options.log);
            return runtime.block_on(serve::run(*options));
        }
        cli::Command::Thing(command) => runtime.block_on(client::thing(command))?,
        cli::Command::Fault(command) => runtime.block_on(client::fault(command))?,
    };
    writeln!(std::io::stdout(), "{said}")?;
    Ok(())
}

/// Our own words only: libraries log whole requests, with the signatures in their URLs.
fn log_to_stderr(level: tracing::Level) {
    let ours = tracing_subscriber::filter::Targets::new().with_target("fleethand_cloud", level);
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    tracing_subscriber::registry().with(lines).with(ours).init();
}
