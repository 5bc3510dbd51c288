//! What can be typed, and the exit code that answers it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, ConfigError, Settings};
use crate::lock::lock;
use crate::{agent, doctor, dry_run, helper, identity, install, logging, setup, shadow_command, status};

/// `EX_CONFIG` of sysexits.h: a restart does not help, and systemd is told not to try.
const EXIT_CONFIG: u8 = 78;

/// Runs a fleet's AWS IoT jobs on this device.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Connect, and do what jobs say.
    Run {
        #[command(flatten)]
        config: Config,
        /// Listen to the real queue and describe what would be done, without touching any execution.
        ///
        /// It connects with the same client id: stop the agent first, or set another client_id that the policy allows.
        #[arg(long)]
        dry_run: bool,
    },
    /// Install, reboot and run commands for the agent: the process with the privileges, and without the network.
    ///
    /// systemd starts it by its socket; it ends when it was idle for a while. Needs `[helper]` in the configuration.
    Helper {
        #[command(flatten)]
        config: Config,
    },
    /// Check the configuration and the device's identity, and print the settings as understood.
    CheckConfig {
        #[command(flatten)]
        config: Config,
    },
    /// Check a job document and say step by step what would happen on this device. Changes nothing.
    ///
    /// Exits with 0 if it would succeed, 1 if it would fail, 2 if this command was used wrongly.
    DryRun {
        /// A file with a job document; `-` for standard input.
        document: PathBuf,
        #[command(flatten)]
        config: Config,
        /// Really fetch and verify the firmware, into a temporary file that is removed.
        #[arg(long)]
        download: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the configuration and the identity, check the connection, and enable the service.
    Setup {
        #[command(flatten)]
        order: Box<setup::Order>,
        #[command(flatten)]
        config: Config,
    },
    /// Show how the agent that runs is: connection, execution, outcomes, firmware, certificate.
    Status {
        #[command(flatten)]
        options: status::Options,
        #[command(flatten)]
        config: Config,
    },
    /// Show what this device's shadows desire, and what is reported.
    Shadow {
        #[command(subcommand)]
        order: shadow_command::Order,
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE, global = true)]
        config: PathBuf,
    },
    /// Say what is wrong with this device and its connection, and what to do. Changes nothing.
    ///
    /// Exits with 0 if nothing is, 1 otherwise.
    Doctor {
        #[command(flatten)]
        config: Config,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Do what a document says, or install firmware, from files on this machine: without the cloud, with the same checks.
    ///
    /// The agent must not run meanwhile. Where the firmware needs a reboot, the agent confirms it after the start, or goes
    /// back. Exits with 0 if it succeeded or reboots, 1 if it failed.
    Install {
        #[command(flatten)]
        order: install::Order,
        #[command(flatten)]
        config: Config,
    },
}

#[derive(clap::Args)]
struct Config {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
}

pub fn main() -> ExitCode {
    #[cfg(feature = "man")]
    if crate::man::asked(&<Cli as clap::CommandFactory>::command()) {
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fleethand: {error:#}");
            let config = error.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if config { EXIT_CONFIG } else { 1 })
        }
    }
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run { config, dry_run } => {
                let settings = Settings::of_device(&config.config)?;
                // What is wrong with the files is said before anything else begins.
                if settings.awaits_provisioning().is_none() {
                    settings.tls(&config.config)?;
                }
                logging::start(settings.log);
                let runtime = runtime()?;
                let done = runtime.block_on(run(settings, &config.config, dry_run));
                // A name that is still being resolved, or a sync that hangs, does not hold up the exit.
                runtime.shutdown_background();
                done.map(|()| ExitCode::SUCCESS)
            }
            Self::Helper { config } => {
                let settings = Settings::load(&config.config)?;
                let helper = settings.required_helper(&config.config)?;
                logging::start(settings.log);
                let runtime = runtime()?;
                let done = runtime.block_on(async { helper::run(&settings, helper, stop_signal()?).await });
                runtime.shutdown_background();
                done.map(|()| ExitCode::SUCCESS)
            }
            Self::CheckConfig { config } => {
                let settings = Settings::of_device(&config.config)?;
                settings.check_identity(&config.config)?;
                settings.check_schemas(&config.config)?;
                write!(std::io::stdout(), "{settings}")?;
                Ok(ExitCode::SUCCESS)
            }
            Self::DryRun { document, config, download, json } => {
                let settings = Settings::load(&config.config)?;
                runtime()?.block_on(dry_run::document(&document, &settings, download, json))
            }
            Self::Setup { order, config } => finish(setup::run(*order, &config.config)),
            Self::Status { options, config } => status::run(&options, &config.config),
            Self::Shadow { order, config } => shadow_command::run(&order, &config),
            Self::Doctor { config, json } => finish(doctor::run(&config.config, json)),
            Self::Install { order, config } => {
                let settings = Settings::load(&config.config)?;
                logging::start(settings.log);
                let runtime = runtime()?;
                let done = runtime.block_on(install(&settings, &order));
                runtime.shutdown_background();
                done
            }
        }
    }
}

/// A name that is still being resolved does not hold up the exit.
fn finish(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}

async fn install(settings: &Settings, order: &install::Order) -> anyhow::Result<ExitCode> {
    let stop = stop_signal()?;
    let _locks = (lock(&settings.state_directory)?, lock_of_helper(settings)?);
    install::run(order, settings, stop).await
}

/// Where there is one, it serves nobody meanwhile.
fn lock_of_helper(settings: &Settings) -> anyhow::Result<Option<nix::fcntl::Flock<std::fs::File>>> {
    settings.helper.as_ref().map(|helper| lock(&helper.state_directory)).transpose()
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn run(mut settings: Settings, file: &Path, dry_run: bool) -> anyhow::Result<()> {
    // Before anything else: a stop must find its handler.
    let mut stop = Box::pin(stop_signal()?);
    if dry_run {
        let tls = settings.tls(file)?;
        return dry_run::listen(&settings, tls, stop).await;
    }
    let _lock = lock(&settings.state_directory)?;
    if let Some(claim) = settings.awaits_provisioning() {
        if !identity::provision(&settings, claim, &mut stop).await {
            return Ok(());
        }
        settings = Settings::of_device(file)?;
    }
    let tls = settings.tls(file)?;
    agent::run(&settings, tls, stop).await
}

/// One thread: the loop is never busy, and a device has better uses for its memory. Long work on files has a
/// few threads of its own, for as long as it lasts.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()
}
