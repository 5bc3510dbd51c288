//! Reading with a limit, writing without overwriting.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ::release::SigningKey;
use anyhow::{Context, bail};
use serde::Serialize;

/// Far beyond any document or key.
const MAX_BYTES: u64 = 1024 * 1024;

/// `-` is standard input.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut read = |source: &mut dyn Read| source.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    if path == Path::new("-") {
        read(&mut std::io::stdin())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    }
    .with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{} has more than {MAX_BYTES} bytes", path.display());
    }
    Ok(bytes)
}

pub fn keys(paths: &[PathBuf]) -> anyhow::Result<Vec<SigningKey>> {
    let key = |path: &PathBuf| {
        SigningKey::from_pem(&read(path)?).with_context(|| format!("{} is not usable", path.display()))
    };
    paths.iter().map(key).collect()
}

/// What somebody may have is not overwritten.
pub fn create(path: &Path, mode: u32, content: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

pub fn put(value: &impl Serialize, out: Option<&Path>) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    match out {
        Some(path) => create(path, 0o666, &text),
        None => Ok(std::io::stdout().write_all(text.as_bytes())?),
    }
}
