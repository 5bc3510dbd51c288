//! `[provisioning]`: how the device gets its certificates.

use std::collections::BTreeMap;
use std::fmt::{Formatter, Result as Shown};
use std::path::PathBuf;
use std::time::Duration;

use connection::tls::IdentityFiles;
use device::CommandSpec;

use super::DAY;
use super::show::{path, seconds, text};
use super::table::{ConfigError, Table, Word};
use crate::identity::Parameter;

#[derive(Debug, Clone, Default)]
pub struct Provisioning {
    pub claim: Option<Claim>,
    /// Of `rotate-certificate`, where its document names none.
    pub rotation_template: Option<String>,
    pub parameters: BTreeMap<String, Parameter>,
    command_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Claim {
    pub template: String,
    pub files: IdentityFiles,
    /// The default is the device's own, or one made up for each start.
    pub client_id: Option<String>,
}

/// AWS's rule for the names of templates. It also keeps `+`, `#` and `/` out of topics.
fn template(table: &mut Table<'_>, key: &'static str) -> Result<Option<String>, ConfigError> {
    let Some(name) = table.string(key, "the name of a provisioning template")? else { return Ok(None) };
    if !dispatcher::is_template_name(&name) {
        return Err(table.unusable(key, "expected 1 to 36 of the characters a-z A-Z 0-9 _ -"));
    }
    Ok(Some(name))
}

pub(super) fn provisioning(mut table: Table<'_>) -> Result<Provisioning, ConfigError> {
    let command_timeout =
        table.seconds("command_timeout_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(60));
    let mut words = table.optional_table_in("parameters", "provisioning.parameters")?;
    let words = words.as_mut().map(Table::words).transpose()?.unwrap_or_default();
    let parameters = words.into_iter().map(|(name, word)| {
        let parameter = match word {
            Word::Text(text) => Parameter::Text(text),
            Word::Command(program, arguments) => {
                Parameter::Command(CommandSpec { program, arguments, timeout: command_timeout })
            }
        };
        (name, parameter)
    });
    let parameters = parameters.collect();
    let rotation_template = template(&mut table, "rotation_template")?;
    let claim = match template(&mut table, "template")? {
        None => None,
        Some(template) => Some(Claim {
            template,
            files: IdentityFiles {
                certificate: table.required_path("claim_certificate")?,
                private_key: table.required_path("claim_private_key")?,
                // That of the connection, which is read later.
                root_ca: PathBuf::new(),
            },
            client_id: table.string("client_id", "a client id")?,
        }),
    };
    table.finish()?;
    Ok(Provisioning { claim, rotation_template, parameters, command_timeout })
}

impl Provisioning {
    pub(super) fn show(&self, f: &mut Formatter<'_>) -> Shown {
        if self.claim.is_none() && self.rotation_template.is_none() && self.parameters.is_empty() {
            return writeln!(f, "\n# [provisioning]: not configured");
        }
        writeln!(f, "\n[provisioning]")?;
        match &self.claim {
            None => writeln!(f, "# template: none")?,
            Some(claim) => {
                text(f, "template", &claim.template)?;
                path(f, "claim_certificate", &claim.files.certificate)?;
                path(f, "claim_private_key", &claim.files.private_key)?;
                if let Some(client_id) = &claim.client_id {
                    text(f, "client_id", client_id)?;
                }
            }
        }
        match &self.rotation_template {
            None => writeln!(f, "# rotation_template: none")?,
            Some(template) => text(f, "rotation_template", template)?,
        }
        seconds(f, "command_timeout_seconds", self.command_timeout)?;
        if !self.parameters.is_empty() {
            writeln!(f, "\n[provisioning.parameters]")?;
        }
        for (name, parameter) in &self.parameters {
            match parameter {
                Parameter::Text(value) => writeln!(f, "{name:?} = {value:?}")?,
                Parameter::Command(spec) => {
                    let words: Vec<_> = std::iter::once(&spec.program).chain(&spec.arguments).collect();
                    writeln!(f, "{name:?} = {{ command = {words:?} }}")?;
                }
            }
        }
        Ok(())
    }
}
