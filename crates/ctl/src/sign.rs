//! One signature more, so that several people on several machines reach a threshold.

use std::io::Write;

use ::release::Envelope;
use anyhow::Context;

use crate::{cli, document, files};

pub fn run(arguments: &cli::Sign) -> anyhow::Result<()> {
    let keys = files::keys(&arguments.key)?;
    let mut value = document::parse(&files::read(&arguments.envelope)?)?;
    let place = match value.get_mut("release") {
        Some(envelope) => envelope,
        None => &mut value,
    };
    let mut envelope =
        Envelope::from_value(place).context("found neither an envelope nor a document with one")?;
    // Whoever signs has to see what: the payload is not readable as it stands.
    let statement = envelope.unverified()?;
    writeln!(std::io::stderr(), "signing {:#}", serde_json::to_value(&statement)?)?;
    for key in &keys {
        envelope.sign(key)?;
    }
    *place = serde_json::to_value(&envelope)?;
    files::put(&value, arguments.out.as_deref())
}
