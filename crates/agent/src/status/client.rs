//! `fleethand status`: asks the agent that runs.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{FORMAT, Status};
use crate::config::Settings;

/// Where the package has it.
const DEFAULT_SOCKET: &str = "/run/fleethand/status.sock";
/// An agent that does not answer by then hangs.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_BYTES: u64 = 256 * 1024;
const EVERY: Duration = Duration::from_secs(1);
/// To the upper left, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(clap::Args)]
pub struct Options {
    /// Print JSON; with --watch a line each time.
    #[arg(long)]
    json: bool,
    /// Again and again, every second, until it is interrupted.
    #[arg(long)]
    watch: bool,
    /// The agent's socket. [default: `[status] socket` of the configuration]
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

pub fn run(options: &Options, config: &Path) -> anyhow::Result<ExitCode> {
    let socket = socket(options.socket.as_deref(), config);
    let mut stdout = io::stdout();
    let clears = options.watch && !options.json && stdout.is_terminal();
    loop {
        let text = fetch(&socket)?;
        let shown = match (options.json, options.watch) {
            (true, true) => text.clone(),
            (true, false) => format!("{:#}\n", serde_json::from_str::<serde_json::Value>(&text)?),
            (false, _) => parse(&text)?.to_string(),
        };
        let shown = if clears { format!("{CLEAR}{shown}") } else { shown };
        if stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush()).is_err() || !options.watch {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(EVERY);
    }
}

/// The one that was named, the configuration's, or the package's.
pub fn socket(named: Option<&Path>, config: &Path) -> PathBuf {
    let configured = || Settings::load(config).ok().and_then(|settings| settings.status_socket);
    named.map(Path::to_owned).or_else(configured).unwrap_or_else(|| DEFAULT_SOCKET.into())
}

/// What the agent at this socket says.
pub fn ask(socket: &Path) -> anyhow::Result<Status> {
    parse(&fetch(socket)?)
}

fn parse(text: &str) -> anyhow::Result<Status> {
    let status: Status = serde_json::from_str(text).context("the agent's answer is not understood")?;
    if status.format != FORMAT {
        bail!(
            "the agent answers in format {}, and this program reads {FORMAT}: they are of two versions",
            status.format
        );
    }
    Ok(status)
}

fn fetch(socket: &Path) -> anyhow::Result<String> {
    let shown = socket.display();
    let text = read(socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            anyhow::anyhow!("there is no {shown}: does the agent run, and has it `[status] socket`?")
        }
        ErrorKind::ConnectionRefused => anyhow::anyhow!("nobody answers at {shown}: the agent does not run"),
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{shown} may be opened by root and the group fleethand alone: you are not in it")
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            anyhow::anyhow!("the agent does not answer within {} s: it hangs", PATIENCE.as_secs())
        }
        _ => anyhow::anyhow!("{shown}: {error}"),
    })?;
    if text.is_empty() {
        bail!("the agent has no place for another who asks at the moment");
    }
    Ok(text)
}

fn read(socket: &Path) -> io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
