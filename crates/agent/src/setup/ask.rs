//! What was ordered, and what still has to be asked for.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use connection::tls::IdentityFiles;

use super::claim::ByClaim;
use crate::config::Settings;

/// Every option that is missing is taken from the configuration that is there, or asked for on a terminal.
#[derive(clap::Args)]
pub struct Order {
    /// The account's data endpoint: `aws iot describe-endpoint --endpoint-type iot:Data-ATS`.
    #[arg(long, value_name = "HOST")]
    endpoint: Option<String>,
    /// The endpoint's port. [default: as configured, or 8883]
    #[arg(long)]
    port: Option<u16>,
    /// The name of the thing that this device is.
    #[arg(long, value_name = "NAME")]
    pub thing: Option<String>,
    /// The device's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The device's private key, PEM; or a PKCS#11 URI, if it is in a token.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub claim: ByClaim,
    /// The root that the endpoint's certificate comes from, PEM: Amazon Root CA 1.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Below this folder, which becomes the root of a device: for who builds images. Nothing is enabled.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Write it even if it replaces what works and does not work itself.
    #[arg(long)]
    force: bool,
    /// Do not connect.
    #[arg(long)]
    no_check: bool,
    /// Do not enable and start the service.
    #[arg(long)]
    no_enable: bool,
}

/// An order in which nothing is missing.
pub struct Complete {
    pub endpoint: String,
    pub port: Option<u16>,
    pub thing: String,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
    pub force: bool,
    pub check: bool,
    pub enable: bool,
}

pub fn complete(order: &Order, before: Option<&Settings>) -> anyhow::Result<Complete> {
    let known = before.map(|settings| &settings.connection);
    let file = |path: &PathBuf| path.display().to_string();
    let identity = |which: fn(&IdentityFiles) -> &PathBuf| {
        known.map(|known| which(&known.identity).display().to_string())
    };
    let mut questions = Questions { asks: std::io::stdin().is_terminal(), missing: Vec::new() };
    let endpoint = questions.answer(
        "--endpoint",
        "Endpoint",
        order.endpoint.clone(),
        known.map(|known| known.endpoint.clone()),
    )?;
    let thing = questions.answer(
        "--thing",
        "Thing name",
        order.thing.clone(),
        known.map(|known| known.thing_name.clone()),
    )?;
    let cert = questions.answer(
        "--cert",
        "Certificate file",
        order.cert.as_ref().map(file),
        identity(|files| &files.certificate),
    )?;
    let key = questions.answer(
        "--key",
        "Private key file",
        order.key.as_ref().map(file),
        identity(|files| &files.private_key),
    )?;
    let ca = questions.answer(
        "--ca",
        "Root CA file",
        order.ca.as_ref().map(file),
        identity(|files| &files.root_ca),
    )?;
    if !questions.missing.is_empty() {
        // As every other wrong usage.
        let missing = format!("{} must be given, or asked for on a terminal\n", questions.missing.join(", "));
        clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, missing).exit();
    }
    Ok(Complete {
        endpoint,
        port: order.port,
        thing,
        cert: cert.into(),
        key: key.into(),
        ca: ca.into(),
        force: order.force,
        check: !order.no_check,
        enable: !order.no_enable,
    })
}

struct Questions {
    asks: bool,
    missing: Vec<&'static str>,
}

impl Questions {
    /// What was given; or what a person says, for whom an empty line is what is known already; or that.
    fn answer(
        &mut self,
        option: &'static str,
        prompt: &str,
        given: Option<String>,
        known: Option<String>,
    ) -> std::io::Result<String> {
        if let Some(given) = given {
            return Ok(given);
        }
        if !self.asks {
            return Ok(known.unwrap_or_else(|| {
                self.missing.push(option);
                String::new()
            }));
        }
        let mut stderr = std::io::stderr();
        match &known {
            Some(known) => write!(stderr, "{prompt} [{known}]: ")?,
            None => write!(stderr, "{prompt}: ")?,
        }
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        let said = line.trim();
        if said.is_empty() && known.is_none() {
            self.missing.push(option);
        }
        Ok(if said.is_empty() { known.unwrap_or_default() } else { said.to_owned() })
    }
}
