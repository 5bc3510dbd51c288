//! `fleethand shadow`: what the agent knows of its shadows, asked over its status socket, so that it costs no message and
//! takes no connection from the agent; and what is desired, told to a local cloud.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::config::Settings;
use crate::status::{self, Shadow};

const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// Of an answer; a shadow has 8 KiB, and its metadata some more.
const MAX_BYTES: u64 = 256 * 1024;

#[derive(clap::Subcommand)]
pub enum Order {
    /// Show what is desired and what is reported, as the agent that runs knows it.
    Get(Which),
    /// The same again whenever it changes, until it is interrupted.
    Watch(Which),
    /// Say what is desired, to a local cloud. At AWS: `aws iot-data update-thing-shadow`.
    SetDesired {
        /// The shadow.
        name: String,
        /// A JSON object, which is merged: null removes a member.
        desired: String,
        /// The local cloud's `api` address.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4566")]
        api: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
pub struct Which {
    /// One shadow; without it, all that the agent has.
    name: Option<String>,
    /// Print JSON; with watch a line each time.
    #[arg(long)]
    json: bool,
    /// The agent's socket. [default: `[status] socket` of the configuration]
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

pub fn run(order: &Order, config: &Path) -> anyhow::Result<ExitCode> {
    match order {
        Order::Get(which) => say(&shown(&which.ask(config)?, which.json, false)?),
        Order::Watch(which) => watch(which, config),
        Order::SetDesired { name, desired, api, json } => {
            let thing = Settings::of_device(config)?.connection.thing_name;
            let accepted = set_desired(api, &thing, name, desired)?;
            let version = accepted.get("version").and_then(Value::as_u64).unwrap_or_default();
            say(&if *json { format!("{accepted}\n") } else { format!("{name}: version {version}\n") })
        }
    }
}

fn say(text: &str) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn watch(which: &Which, config: &Path) -> anyhow::Result<ExitCode> {
    let mut before = None;
    loop {
        let now = which.ask(config)?;
        if before.as_ref() != Some(&now) {
            let text = shown(&now, which.json, true)?;
            let mut stdout = io::stdout();
            if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
            before = Some(now);
        }
        std::thread::sleep(EVERY);
    }
}

impl Which {
    fn ask(&self, config: &Path) -> anyhow::Result<Vec<Shadow>> {
        let shadows = status::ask(&status::socket(self.socket.as_deref(), config))?.shadows;
        let Some(name) = &self.name else {
            if shadows.is_empty() {
                bail!("the agent has no shadows: they need [[shadow]] or [shadows] in its configuration");
            }
            return Ok(shadows);
        };
        let known: Vec<_> = shadows.iter().filter_map(|shadow| shadow.name.clone()).collect();
        let found: Vec<_> = shadows.into_iter().filter(|shadow| shadow.name.as_ref() == Some(name)).collect();
        if found.is_empty() {
            bail!("the agent has no shadow {name:?}, it has: {}", known.join(", "));
        }
        Ok(found)
    }
}

/// All of them as an array, or line by line; a single one by itself.
fn shown(shadows: &[Shadow], json: bool, on_a_line: bool) -> anyhow::Result<String> {
    if !json {
        return Ok(shadows.iter().map(text).collect());
    }
    let value = match shadows {
        [one] => serde_json::to_value(one)?,
        all => serde_json::to_value(all)?,
    };
    Ok(if on_a_line { format!("{value}\n") } else { format!("{value:#}\n") })
}

fn text(shadow: &Shadow) -> String {
    let name = shadow.name.as_deref().unwrap_or("the classic shadow");
    let Some(version) = shadow.version else { return format!("{name}: not known yet\n") };
    let mut text = format!("{name}: version {version}");
    text += match (&shadow.refused, is_in(&shadow.desired, &shadow.reported)) {
        (Some(_), _) => ", refused\n",
        (None, true) => ", in force\n",
        (None, false) => ", not in force\n",
    };
    if let Some(refused) = &shadow.refused {
        text += &format!("  refused   {}: {}\n", refused.reason, refused.message);
    }
    text + &format!("  desired   {}\n  reported  {}\n", shadow.desired, shadow.reported)
}

/// All that is desired is so reported; more may be.
fn is_in(desired: &Value, reported: &Value) -> bool {
    match (desired, reported) {
        (Value::Object(desired), Value::Object(reported)) => desired
            .iter()
            .all(|(key, value)| reported.get(key).is_some_and(|reported| is_in(value, reported))),
        (desired, reported) => desired == reported,
    }
}

/// One request without TLS and without credentials: to this machine alone.
fn set_desired(api: &str, thing: &str, name: &str, desired: &str) -> anyhow::Result<Value> {
    if !::shadow::Shadow::is_name(name) {
        bail!("found {name:?}, expected {}", ::shadow::Shadow::NAME);
    }
    let desired: Value = serde_json::from_str(desired).context("what is desired is not JSON")?;
    if !desired.is_object() && !desired.is_null() {
        bail!("what is desired has to be a JSON object, or null for nothing");
    }
    let expected = || format!("found {api:?}, expected the address of a local cloud: http://127.0.0.1:4566");
    let host = api.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')).with_context(expected)?;
    let (address, port) = host.rsplit_once(':').with_context(expected)?;
    let address = if address == "localhost" { "127.0.0.1" } else { address };
    let address: IpAddr = address.trim_matches(['[', ']']).parse().with_context(expected)?;
    let port: u16 = port.parse().with_context(expected)?;
    if !address.is_loopback() {
        bail!("{}: nothing is signed or encrypted here", expected());
    }
    let body = json!({"state": {"desired": desired}}).to_string();
    let name = name.replace('$', "%24").replace(':', "%3A");
    let head = format!(
        "POST /things/{thing}/shadow?name={name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream =
        TcpStream::connect((address, port)).with_context(|| format!("{api} cannot be reached"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let said: Value = serde_json::from_str(body).context("the answer is not JSON")?;
    if head.split(' ').nth(1) != Some("200") {
        let message = said.get("message").and_then(Value::as_str);
        bail!("{}", message.unwrap_or("refused without a word"));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_force_is_what_is_reported_as_it_is_desired_whatever_else_is() {
        for (desired, reported, expected) in [
            (json!({}), json!({"a": 1}), true),
            (json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": 2}}), true),
            (json!({"a": {"b": 1}}), json!({"a": {"b": 2}}), false),
            (json!({"a": [1]}), json!({"a": [1, 2]}), false),
            (json!({"a": 1}), json!({}), false),
        ] {
            assert_eq!(is_in(&desired, &reported), expected, "{desired} {reported}");
        }
    }

    #[test]
    fn what_is_not_on_this_machine_is_told_nothing() {
        for api in ["https://127.0.0.1:1", "http://192.0.2.1:80", "http://example.com:80", "http://127.0.0.1"]
        {
            let error = set_desired(api, "t", "n", "{}").unwrap_err();
            assert!(error.to_string().contains("local cloud"), "{api}: {error}");
        }
        assert!(set_desired("http://127.0.0.1:1", "t", "a/b", "{}").is_err());
        assert!(
            set_desired("http://127.0.0.1:1", "t", "n", "[1]").unwrap_err().to_string().contains("object")
        );
    }
}
