//! `--provision`: certificate, key and thing name come from AWS IoT, by a claim, and then it is as with files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use connection::talk::TalkMeter;
use connection::tls::IdentityFiles;

use super::ask::{Order, complete};
use super::place::{Owner, Placed};
use super::{edit, say, staged_path};
use crate::config::{Claim, Settings, is_thing_name};
use crate::identity::{Generation, Parameter, try_to_provision};

#[derive(clap::Args)]
pub struct ByClaim {
    /// Get certificate and thing name from AWS IoT with this provisioning template, instead of from files.
    #[arg(long, value_name = "TEMPLATE", requires_all = ["claim_cert", "claim_key"], conflicts_with_all = ["cert", "key"])]
    provision: Option<String>,
    /// The claim certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "provision")]
    claim_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "provision")]
    claim_key: Option<PathBuf>,
    /// A parameter of the template, besides those of `[provisioning.parameters]`.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter, requires = "provision")]
    parameters: Vec<(String, String)>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What was obtained, until it is where it belongs: a setup that is interrupted goes on with it.
pub struct Obtained {
    folder: PathBuf,
}

impl Obtained {
    /// It has been copied, and is in force.
    pub fn forget(self) -> anyhow::Result<()> {
        let removed = std::fs::remove_dir_all(&self.folder);
        removed.with_context(|| format!("cannot remove {}", self.folder.display()))
    }
}

/// The order with the files that came of it. `folder` is that of the identity, on this machine.
pub async fn provision(
    mut order: Order,
    before: Option<&Settings>,
    target: &Path,
    folder: &Path,
    owner: &Owner,
) -> anyhow::Result<(Order, Option<Obtained>)> {
    let Some(template) = order.claim.provision.take() else { return Ok((order, None)) };
    anyhow::ensure!(dispatcher::is_template_name(&template), "{template:?} is not the name of a template");
    let thing = order.thing.clone();
    anyhow::ensure!(thing.as_deref().is_none_or(is_thing_name), "{thing:?} is not the name of a thing");
    // The claim stands in for what it brings.
    order.cert = order.claim.claim_cert.clone();
    order.key = order.claim.claim_key.clone();
    order.thing = Some(thing.clone().unwrap_or_else(|| "claim".to_owned()));
    let known = complete(&order, before)?;
    let edited = edit::configuration(target, &known, folder)?;
    let staged = Placed::beside(target, edited.text.as_bytes(), owner)?;
    let mut settings = Settings::load(&staged_path(target))?;
    drop(staged);
    // Where there is a claim, it has a certificate and a key.
    let [certificate, private_key, root_ca] = known.identity.map(Option::unwrap_or_default);
    let claim = Claim {
        template: template.clone(),
        files: IdentityFiles { certificate, private_key, root_ca: root_ca.clone() },
        client_id: settings.provisioning.claim.as_ref().and_then(|claim| claim.client_id.clone()),
    };
    let obtained = Obtained { folder: folder.join("provisioning") };
    settings.state_directory.clone_from(&obtained.folder);
    let absent = obtained.folder.join("none");
    let connection = &mut settings.connection;
    connection.configured = IdentityFiles { certificate: absent.clone(), private_key: absent, root_ca };
    connection.client_id.clear();
    connection.thing_name = thing.clone().unwrap_or_default();
    let given = std::mem::take(&mut order.claim.parameters).into_iter();
    settings.provisioning.parameters.extend(given.map(|(name, value)| (name, Parameter::Text(value))));

    let generation = match settings.identities().in_force() {
        Some(generation) => generation,
        None => {
            say(&format!("asking AWS IoT for an identity, with the template {template}"))?;
            try_to_provision(&settings, &claim, &TalkMeter::default()).await?
        }
    };
    let Generation { files, about, .. } = generation;
    let name = about.map(|about| about.thing_name).unwrap_or_default();
    say(&format!("this device is the thing {name}, and has a certificate"))?;
    order.thing = Some(name);
    order.cert = Some(files.certificate);
    order.key = Some(files.private_key);
    Ok((order, Some(obtained)))
}
