//! `fleethand setup`: from the files that the cloud gave to a service that runs. What is in force stays so until what
//! replaces it has been checked, over the real connection.

mod ask;
mod claim;
mod edit;
mod place;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use connection::tls::{TlsError, Uri};

pub use self::ask::Order;
use self::ask::{Complete, complete};
use self::claim::Obtained;
use self::edit::Edited;
use self::place::{Owner, Placed};
use crate::config::{self, Settings};
use crate::doctor::{self, Report};
use crate::status::{self, State};

const SERVICE: &str = "fleethand.service";
/// Seconds. The connection was tried just before.
const CONNECTED_WITHIN: u32 = 30;
/// What the identity's files are called, beside the configuration.
const IDENTITY: [(&str, &str); 3] =
    [("certificate", "certificate.pem"), ("private_key", "private.key"), ("root_ca", "root-ca.pem")];

pub async fn run(order: Order, file: &Path) -> anyhow::Result<ExitCode> {
    let file = &std::path::absolute(file)?;
    let root = order.root.clone().unwrap_or_else(|| "/".into());
    let target = below(&root, file);
    let before = Settings::load(&target).ok().map(|settings| in_force(at_root(settings, &root)));
    // The package's configuration can be read, too, but is nobody's.
    let before = before.filter(|settings| settings.tls(&target).is_ok());
    let folder = file.parent().unwrap_or(Path::new("/")).join("identity");
    let owner = Owner::of_service(&root);
    if let Some(remark) = owner.remark() {
        say(&remark)?;
    }
    let (order, obtained) =
        claim::provision(order, before.as_ref(), &target, &below(&root, &folder), &owner).await?;
    let order = complete(&order, before.as_ref())?;

    let edited = edit::configuration(&target, &order, &folder)?;
    let mut staged = Vec::new();
    for ((_, name), source) in IDENTITY.iter().zip(&order.identity) {
        let Some(source) = source.as_ref().filter(|source| !is_in_token(source)) else { continue };
        let bytes = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        staged.push(Placed::beside(&below(&root, &folder.join(name)), &bytes, &owner)?);
    }
    staged.push(Placed::beside(&target, edited.text.as_bytes(), &owner)?);
    let settings = Settings::load(&staged_path(&target)).map_err(|error| named(&error, &target))?;
    let settings = at_root(settings, &root);
    let (settings, tls) = with_staged_identity(settings, &order)?;

    let mut report = Report::new(false);
    if order.check {
        doctor::examine_new(&settings, tls, &mut report).await;
    }
    if !report.is_ok() && before.is_some() && !order.force {
        say(
            "Nothing was changed: what is configured works, or may work, and this does not. `--force` writes it all the same.",
        )?;
        return Ok(ExitCode::FAILURE);
    }
    put_in_force(staged, &target, &edited)?;
    obtained.map(Obtained::forget).transpose()?;
    if !report.is_ok() {
        say(
            "Not enabled. When what is wrong above is put right: `fleethand doctor`, and then `systemctl enable --now fleethand`.",
        )?;
        return Ok(ExitCode::FAILURE);
    }
    if order.enable && root == Path::new("/") && file == Path::new(config::DEFAULT_FILE) {
        return enable(settings.status_socket.as_deref());
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that are checked are those that will be in force, under the name that they have until then.
fn with_staged_identity(
    mut settings: Settings,
    order: &Complete,
) -> anyhow::Result<(Settings, Arc<rustls::ClientConfig>)> {
    let mut sources = Vec::new();
    for (file, source) in files(&mut settings).into_iter().zip(&order.identity) {
        let source = source.as_ref().filter(|source| !is_in_token(source));
        if let (Some(file), Some(source)) = (file, source) {
            *file = staged_path(file);
            sources.push((file.clone(), source.clone()));
        }
    }
    let tls = settings.identity().map_err(|error| {
        // Named as the person knows it.
        let file = sources.iter().find(|(staged, _)| *staged == error.file).map(|(_, source)| source.clone());
        anyhow::Error::from(TlsError { file: file.unwrap_or(error.file), problem: error.problem })
    })?;
    Ok((settings, tls))
}

/// Their paths are those on the device, whose root may be a folder here.
fn at_root(mut settings: Settings, root: &Path) -> Settings {
    settings.state_directory = below(root, &settings.state_directory);
    for path in files(&mut settings).into_iter().flatten() {
        *path = below(root, path);
    }
    settings.connection.configured = settings.connection.identity.clone();
    settings
}

/// The device may have got another certificate since its configuration was written.
fn in_force(settings: Settings) -> Settings {
    let in_force = settings.identities().in_force();
    in_force.map(|generation| settings.with(&generation)).unwrap_or(settings)
}

/// Those of [`IDENTITY`] that there are.
fn files(settings: &mut Settings) -> [Option<&mut PathBuf>; 3] {
    let connection = &mut settings.connection;
    match &mut connection.anonymous {
        Some(anonymous) => [None, None, anonymous.root_ca.as_mut()],
        None => {
            let identity = &mut connection.identity;
            [Some(&mut identity.certificate), Some(&mut identity.private_key), Some(&mut identity.root_ca)]
        }
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    // Of the default root nothing is to be seen, and a relative path stays what it is.
    match path.strip_prefix("/") {
        Ok(rest) if root != Path::new("/") && !path.starts_with(root) => root.join(rest),
        _ => path.to_owned(),
    }
}

/// Of a key that never leaves its token there is no file.
fn is_in_token(key: &Path) -> bool {
    key.to_str().is_some_and(Uri::is_one)
}

fn staged_path(path: &Path) -> PathBuf {
    place::staged(path)
}

fn named(error: &config::ConfigError, target: &Path) -> anyhow::Error {
    let staged = staged_path(target).display().to_string();
    anyhow::anyhow!("{}", error.to_string().replace(&staged, &target.display().to_string()))
}

/// The configuration last: until then it is the old one, or none.
fn put_in_force(staged: Vec<Placed>, target: &Path, edited: &Edited) -> anyhow::Result<()> {
    if edited.replaces {
        let previous = device::beside(target, "previous");
        place::keep(target, &previous)?;
        for change in &edited.changes {
            say(change)?;
        }
        say(&format!("what was configured before is kept in {}", previous.display()))?;
    }
    for file in staged {
        say(&format!("wrote {}", file.put_in_force()?.display()))?;
    }
    Ok(())
}

/// Started anew where it runs: it reads its configuration once.
fn enable(status: Option<&Path>) -> anyhow::Result<ExitCode> {
    if !Path::new("/run/systemd/system").is_dir() {
        say("systemd does not run here: start `fleethand run` by whatever does.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let systemctl = |verb: &str| {
        let mut command = Command::new("systemctl");
        command.args([verb, SERVICE]);
        command
    };
    let known = systemctl("cat").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !known.context("systemctl cannot be started")?.success() {
        say(
            "There is no fleethand.service, which the package brings: start `fleethand run` by other means.",
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    // The helper's socket comes with it.
    for verb in ["enable", "restart"] {
        let done = systemctl(verb).status().context("systemctl cannot be started")?;
        if !done.success() {
            bail!("`systemctl {verb} {SERVICE}` failed: {done}");
        }
    }
    say("fleethand.service runs, and starts with the system.")?;
    // It says that it is ready before it is connected.
    let connected =
        |socket| status::ask(socket).is_ok_and(|status| status.connection.state == State::Connected);
    for _ in status.map_or(0..0, |_| 0..CONNECTED_WITHIN) {
        if status.is_some_and(connected) {
            say("It is connected.")?;
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    say("`fleethand status` says how it goes.")?;
    Ok(ExitCode::SUCCESS)
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
