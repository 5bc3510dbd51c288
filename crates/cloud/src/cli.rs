//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::broker::{Limits, Outside};
use crate::clock;
use crate::engine::{SWITCHES, Switch};
use crate::faults::Fault;

/// AWS IoT Core's Jobs and S3 on one's own machine, for tests, demos and rehearsals
#[derive(Debug, Parser)]
#[command(name = "fleethand-cloud", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the cloud until it is told to stop
    Serve(Box<Serve>),
    /// Things of a running cloud
    #[command(subcommand)]
    Thing(Thing),
    /// Faults on purpose in a running cloud
    #[command(subcommand)]
    Fault(FaultCommand),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Folder in which the state survives a restart; without it everything is in memory
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Address of the control plane, of the device plane over HTTPS paths, and of the administration
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4566")]
    pub(crate) api: SocketAddr,
    /// Address of the object store
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4568")]
    pub(crate) s3: SocketAddr,
    /// What presigned URLs begin with, where devices reach the object store by another address: http://10.0.2.2:4568
    #[arg(long, value_name = "URL")]
    pub(crate) s3_url: Option<String>,
    /// Address of MQTT over mutual TLS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8883")]
    pub(crate) mqtts: SocketAddr,
    /// Address of what AWS has on port 443: MQTT over TLS by ALPN, MQTT over WebSocket, the credential provider, Cognito; off
    /// unless given
    #[arg(long, value_name = "ADDR")]
    pub(crate) https: Option<SocketAddr>,
    /// Address of MQTT without TLS: on loopback only, for any client id; off unless given
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) mqtt: Option<SocketAddr>,
    /// Serve the things of another MQTT broker as well, as its client
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(crate) broker: Option<(String, u16)>,
    /// Authority of that broker's certificate: PEM; with it the connection is TLS
    #[arg(long, value_name = "FILE", requires = "broker")]
    pub(crate) broker_ca: Option<PathBuf>,
    /// Our certificate for that broker: PEM
    #[arg(long, value_name = "FILE", requires_all = ["broker_ca", "broker_key"])]
    pub(crate) broker_cert: Option<PathBuf>,
    /// Its private key: PEM
    #[arg(long, value_name = "FILE", requires = "broker_cert")]
    pub(crate) broker_key: Option<PathBuf>,
    /// The region in ARNs
    #[arg(long, default_value = "us-east-1")]
    pub(crate) region: String,
    /// The account in ARNs
    #[arg(long, default_value = "123456789012")]
    pub(crate) account: String,
    /// `real`, or `manual:EPOCH_SECONDS` for a clock that only moves when told to
    #[arg(long, value_name = "CLOCK", default_value = "real")]
    pub(crate) clock: clock::Kind,
    /// Where AWS's texts leave a choice, take this one; may be repeated
    #[arg(long, value_name = "NAME=VALUE", long_help = switches())]
    pub(crate) compat: Vec<String>,
    /// Refuse a TLS handshake without SNI, as AWS does; a client of 127.0.0.1 sends none
    #[arg(long)]
    pub(crate) strict_sni: bool,
    /// Accept one CONNECT a second of one client id, as AWS does
    #[arg(long)]
    pub(crate) strict_connect_rate: bool,
    /// Lift AWS's rates of one connection: 100 PUBLISH packets and 512 KiB a second
    #[arg(long)]
    pub(crate) unlimited_rate: bool,
    /// Check the signature of every call of the control and device plane
    #[arg(long)]
    pub(crate) require_sigv4: bool,
    /// Access key of the object store, and of signed calls
    #[arg(long, value_name = "KEY", default_value = "test")]
    pub(crate) s3_access_key: String,
    /// Secret key of the object store, and of signed calls
    #[arg(long, value_name = "KEY", default_value = "test")]
    pub(crate) s3_secret_key: String,
    /// What is logged on stderr: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: tracing::Level,
}

impl Serve {
    /// The broker to attach to, if there is one.
    pub(crate) fn outside(&self) -> Option<Outside> {
        let (host, port) = self.broker.clone()?;
        let certificate = self.broker_cert.clone().zip(self.broker_key.clone());
        Some(Outside { host, port, ca: self.broker_ca.clone(), certificate })
    }

    /// AWS's limits on one connection, less those that were lifted.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits { require_sni: self.strict_sni, ..Limits::default() };
        if self.strict_connect_rate {
            limits.connects_per_second = Some(1);
        }
        if self.unlimited_rate {
            limits.publishes_per_second = None;
            limits.bytes_per_second = None;
        }
        limits
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Thing {
    /// Create a thing with a certificate of its own, and everything that an agent needs to be that thing
    Create {
        name: String,
        /// Folder for key, certificate, CA and fleethand.toml
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        api: Api,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FaultCommand {
    /// Put a fault in place; prints its id
    Add {
        #[command(flatten)]
        fault: Box<Fault>,
        #[command(flatten)]
        api: Api,
    },
    /// Show the faults that are in place
    List {
        #[command(flatten)]
        api: Api,
    },
    /// Remove one fault, or all of them
    Clear {
        id: Option<u64>,
        #[command(flatten)]
        api: Api,
    },
}

/// The running cloud.
#[derive(Debug, Args)]
pub(crate) struct Api {
    /// The `api` address of the running cloud
    #[arg(long = "api", value_name = "URL", default_value = "http://127.0.0.1:4566")]
    pub(crate) url: url::Url,
}

/// The table of switches, for `serve --help`.
fn switches() -> String {
    let mut help = "Where AWS's texts leave a choice, take this one; may be repeated:\n".to_owned();
    for Switch { name, values, default, about } in SWITCHES {
        let (values, default) = (values(), default());
        help.push_str(&format!("  {name}={default}  [{values}]\n      {about}\n"));
    }
    help
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let expected = || "expected HOST:PORT".to_owned();
    let (host, port) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).ok_or_else(expected)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), port.parse().map_err(|_| expected())?))
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected ADDRESS:PORT".to_owned())?;
    if !address.ip().is_loopback() {
        return Err("expected a loopback address: here nobody is asked who they are".to_owned());
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn another_broker() {
        assert_eq!(host_and_port("localhost:1883"), Ok(("localhost".to_owned(), 1883)));
        assert_eq!(host_and_port("[::1]:8883"), Ok(("::1".to_owned(), 8883)));
        assert!(host_and_port("localhost").is_err() && host_and_port(":1").is_err());
    }

    #[test]
    fn the_tour_lists_every_switch_with_its_default() {
        let tour = include_str!("../../../docs/local-cloud.md");
        for Switch { name, default, .. } in SWITCHES {
            let row = format!("| `{name}` | `{}` |", default());
            assert!(tour.contains(&row), "docs/local-cloud.md has no row {row}");
        }
    }

    #[test]
    fn mqtt_without_tls_stays_on_loopback() {
        assert!(loopback("127.0.0.1:0").is_ok());
        assert!(loopback("0.0.0.0:1883").unwrap_err().contains("loopback"));
    }
}
