//! A file becomes a signed release, and the job document that orders it.

use std::fs::File;
use std::path::Path;

use ::release::{Envelope, Statement};
use anyhow::{Context, bail};
use downloader::Digest;
use serde::Serialize;

use crate::{cli, document, files, lint};

pub fn run(arguments: &cli::Release) -> anyhow::Result<()> {
    // What can be wrong without reading the file comes first: it may be large.
    let keys = files::keys(&arguments.key)?;
    let url = url(arguments)?;
    let (digest, length) = measure(&arguments.file)?;
    let statement = Statement {
        expires: arguments.expires.clone(),
        min_agent_version: arguments.min_agent_version,
        compression: arguments.compression.clone(),
        permit_floor: arguments.permit_floor,
        ..Statement::new(
            *digest.as_bytes(),
            length,
            &arguments.version,
            arguments.sequence,
            &arguments.compatible,
        )
    };
    let mut envelope = Envelope::of(&statement)?;
    for key in &keys {
        envelope.sign(key)?;
    }
    let Some(url) = url else {
        return files::put(&envelope, arguments.out.as_deref());
    };
    let document = Document {
        operation: "update-firmware",
        url,
        version: &arguments.version,
        checksum: digest,
        size: length,
        compression: arguments.compression.as_deref(),
        release: &envelope,
    };
    // Nothing leaves this tool that its own `lint` refuses.
    lint::check(&serde_json::to_vec(&document)?, true).context("the document would not be accepted")?;
    files::put(&document, arguments.out.as_deref())
}

/// In the order in which a person reads it.
#[derive(Serialize)]
struct Document<'a> {
    operation: &'static str,
    url: String,
    version: &'a str,
    checksum: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<&'a str>,
    release: &'a Envelope,
}

fn url(arguments: &cli::Release) -> anyhow::Result<Option<String>> {
    let Some(s3) = &arguments.s3 else { return Ok(arguments.url.clone()) };
    let region = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
    let Some(region) = arguments.region.clone().or_else(region) else {
        bail!("--s3 wants the bucket's region: --region, or AWS_REGION in the environment");
    };
    let parts = s3.strip_prefix("s3://").and_then(|path| path.split_once('/'));
    let Some((bucket, key)) = parts.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty()) else {
        bail!("--s3: found {s3:?}, expected s3://BUCKET/KEY");
    };
    if key.contains(['{', '}', '?', '#', '%']) || key.contains(char::is_control) {
        bail!(
            "--s3: {key:?} cannot be written in a placeholder: expected a key without {{ }} ? # % and control characters"
        );
    }
    Ok(Some(document::placeholder(&format!("https://s3.{region}.amazonaws.com/{bucket}/{key}"))))
}

/// Reads the file once for its digest. Its length must be the same before and after.
fn measure(path: &Path) -> anyhow::Result<(Digest, u64)> {
    let length = || File::open(path).and_then(|file| file.metadata()).map(|found| found.len());
    let cannot = || format!("cannot read {}", path.display());
    let before = length().with_context(cannot)?;
    let digest = Digest::of_file(path).with_context(cannot)?;
    if length().with_context(cannot)? != before {
        bail!("{} has changed while it was read", path.display());
    }
    Ok((digest, before))
}
