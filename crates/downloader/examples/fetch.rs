//! `fetch URL DIGEST FILE [--ca FILE]`: one transfer, verified; what `scripts/bench` measures.
#![allow(clippy::print_stdout, reason = "a command-line example")]

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use downloader::{Artifact, Downloader, Resume, Settings, SourceUrl, Staging};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, digest, file, root_ca) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [url, digest, file] => (url, digest, file, None),
        [url, digest, file, "--ca", ca] => (url, digest, file, Some(PathBuf::from(ca))),
        _ => bail!("usage: fetch URL sha256:DIGEST FILE [--ca FILE]"),
    };
    let artifact = Artifact { url: SourceUrl::parse(url, false)?, digest: digest.parse()?, size: None };
    let downloader = Downloader::new(Settings { root_ca, ..Settings::default() });
    let mut staging = Staging::create(Path::new(file), artifact.digest, artifact.size)?;
    downloader
        .fetch(&artifact, &mut Resume::default(), &mut staging, &mut |_| {}, &CancellationToken::new())
        .await?;
    let verified = staging.finish().await?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
    println!(
        "{} bytes, {}, {}",
        verified.len(),
        verified.digest(),
        peak.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}
