//! What was ordered, and what still has to be asked for.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use super::claim::ByClaim;
use crate::config::Settings;

/// Every option that is missing is taken from the configuration that is there, or asked for on a terminal.
#[derive(clap::Args)]
pub struct Order {
    /// The account's data endpoint: `aws iot describe-endpoint --endpoint-type iot:Data-ATS`.
    #[arg(long, value_name = "HOST")]
    endpoint: Option<String>,
    /// How MQTT gets there: tls (port 8883), alpn (port 443), auto (either), or websocket (port 443, with AWS credentials).
    /// [default: as configured, or tls]
    #[arg(long, value_name = "HOW", value_parser = ["tls", "alpn", "auto", "websocket"])]
    transport: Option<String>,
    /// The endpoint's port. [default: as configured, or the transport's]
    #[arg(long)]
    port: Option<u16>,
    /// The proxy to go through: http://USER:PASSWORD@HOST:PORT, or "environment". [default: as configured, or none]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
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
    pub transport: Option<String>,
    pub port: Option<u16>,
    pub proxy: Option<String>,
    pub thing: String,
    /// As many files of [`super::IDENTITY`] as there are.
    pub identity: [Option<PathBuf>; 3],
    pub force: bool,
    pub check: bool,
    pub enable: bool,
}

pub fn complete(order: &Order, before: Option<&Settings>) -> anyhow::Result<Complete> {
    let known = before.map(|settings| &settings.connection);
    let shown = |path: &PathBuf| path.display().to_string();
    let transport = order.transport.as_deref().or(known.map(|known| known.transport()));
    // Credentials say then who this is.
    let may_miss = transport == Some("websocket");
    let identity = known.filter(|known| known.anonymous.is_none()).map(|known| &known.identity);
    let anonymous_root = known.and_then(|known| known.anonymous.as_ref()?.root_ca.as_ref());
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
    let files = [
        ("--cert", "Certificate file", &order.cert, identity.map(|files| &files.certificate)),
        ("--key", "Private key file", &order.key, identity.map(|files| &files.private_key)),
        ("--ca", "Root CA file", &order.ca, identity.map(|files| &files.root_ca).or(anonymous_root)),
    ];
    let mut chosen = Vec::new();
    for (option, prompt, given, known) in files {
        let known = known.map(shown);
        chosen.push(match given.as_ref().map(shown) {
            Some(given) => Some(given),
            None if may_miss => known,
            None => Some(questions.answer(option, prompt, None, known)?),
        });
    }
    if !questions.missing.is_empty() {
        // As every other wrong usage.
        let missing = format!("{} must be given, or asked for on a terminal\n", questions.missing.join(", "));
        clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, missing).exit();
    }
    Ok(Complete {
        endpoint,
        transport: order.transport.clone(),
        port: order.port,
        proxy: order.proxy.clone(),
        thing,
        identity: std::array::from_fn(|n| chosen.get_mut(n)?.take().map(PathBuf::from)),
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
