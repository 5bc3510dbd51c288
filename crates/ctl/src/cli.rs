//! What can be typed, and the exit code that answers it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ::release::{AgentVersion, Kind, Timestamp};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::schema::SCHEMA;
use crate::{cost, keygen, lint, release, sign};

/// Keys, signed releases and job documents for fleethand
///
/// Exits with 0 if it was done or the document is fine, 1 if not, 2 if the command was used wrongly.
#[derive(Parser)]
#[command(name = "fleethandctl", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a pair of keys: NAME.key, which stays with you, and NAME.pem, which goes to the devices
    Keygen(Keygen),
    /// Sign what a file is and who may install it, and print the job document that orders it
    Release(Box<Release>),
    /// Add a signature to an envelope, or to the envelope in a job document
    Sign(Sign),
    /// Say what an agent would say of a job document, and what AWS would
    Lint(Lint),
    /// Print the JSON Schema of job documents
    Schema,
    /// Print what a month of a fleet's messages costs at AWS IoT Core
    Cost(Cost),
}

#[derive(Args)]
pub struct Cost {
    #[arg(long, value_name = "N")]
    pub devices: u64,
    /// Of each device
    #[arg(long, value_name = "M")]
    pub jobs_per_month: u64,
    /// Of each job, beside the first and the last status
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub progress_reports: u64,
    /// Of each device
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub reconnects_per_month: u64,
    /// How often each idle device asks whether it missed a job ([connection] poll_interval_seconds)
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub asks_per_month: u64,
    /// Files that are kept as shadows desire, on each device
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub shadow_files: u64,
    /// How often each of them is desired otherwise
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub shadow_changes_per_month: u64,
    /// How often each device reports what it is ([shadows] report, and packages)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub shadow_reports_per_month: u64,
    /// Dollars for a million units; without it, that of us-east-1 for the first billion
    #[arg(long, value_name = "P")]
    pub price_per_million: Option<f64>,
}

#[derive(Args)]
pub struct Keygen {
    #[arg(long = "type", value_enum, default_value = "ed25519")]
    pub kind: KeyType,
    /// Path of the two files without .key and .pem; neither may be there already
    #[arg(long, value_name = "NAME")]
    pub out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum KeyType {
    Ed25519,
    P256,
}

impl From<KeyType> for Kind {
    fn from(kind: KeyType) -> Self {
        match kind {
            KeyType::Ed25519 => Self::Ed25519,
            KeyType::P256 => Self::P256,
        }
    }
}

#[derive(Args)]
pub struct Release {
    /// The firmware, as it will be fetched
    pub file: PathBuf,
    #[arg(long)]
    pub version: String,
    /// At least that of every earlier release: devices go no further back
    #[arg(long)]
    pub sequence: u64,
    /// Hardware that this is for; may be given more than once
    #[arg(long, value_name = "NAME", required = true)]
    pub compatible: Vec<String>,
    /// Private key, PEM; may be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    pub key: Vec<PathBuf>,
    /// No device installs it after this moment: 2030-12-31T23:59:59Z
    #[arg(long, value_name = "TIME")]
    pub expires: Option<Timestamp>,
    /// The oldest agent that may install it: 1.2.3
    #[arg(long, value_name = "VERSION")]
    pub min_agent_version: Option<AgentVersion>,
    /// How the file is compressed
    #[arg(long, value_name = "NAME")]
    pub compression: Option<String>,
    /// Permit to go back: a device whose floor is above this sequence takes it all the same, up to this floor
    #[arg(long, value_name = "SEQUENCE")]
    pub permit_floor: Option<u64>,
    /// Where the file will be in S3: the document gets the placeholder that AWS signs. Without it and without --url the
    /// envelope alone is printed
    #[arg(long, value_name = "s3://BUCKET/KEY", conflicts_with = "url")]
    pub s3: Option<String>,
    /// Region of that bucket; AWS_REGION in the environment otherwise
    #[arg(long, requires = "s3")]
    pub region: Option<String>,
    /// Where else the file will be
    #[arg(long)]
    pub url: Option<String>,
    /// A new file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct Sign {
    /// What `release` printed; `-` for standard input
    pub envelope: PathBuf,
    /// Private key, PEM; may be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    pub key: Vec<PathBuf>,
    /// A new file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct Lint {
    /// A job document; `-` for standard input
    pub document: PathBuf,
    /// The devices' folder of public keys: checks the signatures of the release, too
    #[arg(long, value_name = "FOLDER")]
    pub keys: Option<PathBuf>,
    /// Signatures by so many of these keys
    #[arg(long, default_value_t = 1, requires = "keys")]
    pub threshold: usize,
    /// The devices fetch over plain http ([download] allow_http)
    #[arg(long)]
    pub allow_http: bool,
}

pub fn main() -> ExitCode {
    #[cfg(feature = "man")]
    if crate::man::asked(&<Cli as clap::CommandFactory>::command()) {
        return ExitCode::SUCCESS;
    }
    let done = match Cli::parse().command {
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Release(arguments) => release::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Cost(arguments) => cost::run(&arguments),
        Command::Schema => std::io::stdout().write_all(SCHEMA.as_bytes()).map_err(anyhow::Error::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fleethandctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
