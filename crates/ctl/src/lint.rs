//! What an agent will say of a document, by the agent's own parser, and what AWS will say.

use std::io::Write;
use std::time::SystemTime;

use ::release::{Facts, Keyring};
use anyhow::Context;
use dispatcher::{Operation, Parsed, Rules, UpdateFirmware};

use crate::{cli, document, files};

/// No agent is older than a document's wish for one: only the device can tell.
const ANY_AGENT: &str = "4294967295.0.0";

pub fn run(arguments: &cli::Lint) -> anyhow::Result<()> {
    let text = files::read(&arguments.document)?;
    let keys =
        arguments.keys.as_ref().map(|folder| Keyring::load(folder, arguments.threshold)).transpose()?;
    let parsed = check(&text, arguments.allow_http)?;
    let mut stderr = std::io::stderr();
    for warning in &parsed.warnings {
        writeln!(stderr, "warning: {warning}")?;
    }
    if let Operation::UpdateFirmware(update) = &parsed.operation {
        match &keys {
            Some(keys) => admit(update, keys)?,
            None if update.release.is_some() => {
                writeln!(stderr, "warning: release: nobody checks its signatures without --keys")?;
            }
            None => {}
        }
    }
    writeln!(std::io::stdout(), "{}: fine", parsed.operation.name())?;
    Ok(())
}

/// The document as an agent would get it, by the agent's own parser.
pub fn check(text: &[u8], allow_http: bool) -> anyhow::Result<Parsed> {
    let document = document::delivered(text)?;
    let rules = Rules { allow_http, ..Rules::default() };
    Operation::parse(&document, &rules).map_err(|error| {
        let reason = error.reason();
        anyhow::Error::new(error).context(reason)
    })
}

/// As a device would that has these keys, the right hardware, a new agent and no floor.
fn admit(update: &UpdateFirmware, keys: &Keyring) -> anyhow::Result<()> {
    let verdict = || {
        let envelope = update.release.as_ref().ok_or(::release::Refusal::Missing)?;
        let release = keys.verify(envelope)?;
        release.admits(&Facts {
            sha256: update.artifact.digest.as_bytes(),
            length: update.artifact.size,
            version: &update.version,
            compression: update.compression.signed(),
            compatible: &release.statement().compatible,
            agent_version: ANY_AGENT,
            now: Some(SystemTime::now()),
            floor: None,
        })
    };
    verdict()
        .map_err(|refusal| anyhow::Error::new(refusal.clone()).context(refusal.reason()))
        .context("release")
}
