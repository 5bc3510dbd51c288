//! A pair of keys.

use std::io::Write;
use std::path::{Path, PathBuf};

use ::release::SigningKey;
use anyhow::bail;

use crate::{cli, files};

pub fn run(arguments: &cli::Keygen) -> anyhow::Result<()> {
    let (private, public) = (with(&arguments.out, "key"), with(&arguments.out, "pem"));
    // Both, before one of them is written.
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            bail!("{} is there already, and is not overwritten", path.display());
        }
    }
    let pem = SigningKey::generate(arguments.kind.into())?;
    let key = SigningKey::from_pem(pem.as_bytes())?;
    files::create(&private, 0o600, &pem)?;
    files::create(&public, 0o644, &key.public().to_pem())?;
    writeln!(std::io::stdout(), "{}", key.public().id())?;
    Ok(())
}

/// Not `with_extension`, which would take `.0` off `maker-2.0`.
fn with(name: &Path, suffix: &str) -> PathBuf {
    let mut name = name.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
