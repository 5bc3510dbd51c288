//! What is installed, in the named shadow `$package`, for the software package catalog. A version that jobs deploy is
//! written by AWS where that is switched on, and two writers diverge: so the firmware's is written on request alone.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use ::shadow::{Members, Session};
use serde_json::{Value, json};

use super::Facts;
use crate::config::{Package, ReportPackage, Shadows, Version};

/// What the catalog takes as a version.
const MOST_CHARACTERS: usize = 64;

pub struct Packages {
    when: ReportPackage,
    firmware: Option<String>,
    packages: Vec<Package>,
    pub session: Session,
    is_due: bool,
}

impl Packages {
    pub fn new(configured: &Shadows, session: Session) -> Self {
        Self {
            when: configured.report_package,
            firmware: configured.firmware_package.clone(),
            packages: configured.packages.clone(),
            session,
            is_due: true,
        }
    }

    pub fn job_ended(&mut self) {
        self.is_due |= self.when == ReportPackage::AfterJob;
    }

    pub fn note(&mut self, now: Instant, facts: &Facts<'_>) {
        if !std::mem::take(&mut self.is_due) {
            return;
        }
        let mut is = Members::new();
        for package in &self.packages {
            let version = match &package.version {
                Version::Of(version) => Some(version.clone()),
                Version::In(file) => first_line(file),
                Version::Agent => Some(env!("CARGO_PKG_VERSION").to_owned()),
            };
            is.extend(entry(&package.name, version.as_deref(), json!(package.attributes)));
        }
        if let (ReportPackage::AfterJob, Some(name)) = (self.when, &self.firmware) {
            is.extend(entry(name, facts.firmware.version.as_deref(), Value::Null));
        }
        self.session.report(now, &is);
    }
}

fn entry(name: &str, version: Option<&str>, attributes: Value) -> Option<(String, Value)> {
    let found = version.and_then(legal);
    let Some(version) = found else {
        tracing::warn!(package = name, version, "there is no version that the package catalog takes");
        return None;
    };
    let mut entry = json!({"version": version});
    if let (Some(entry), Value::Object(attributes)) = (entry.as_object_mut(), attributes)
        && !attributes.is_empty()
    {
        entry.insert("attributes".to_owned(), attributes.into());
    }
    Some((name.to_owned(), entry))
}

/// Without what a build adds after a `+`, which the catalog has no place for.
fn legal(version: &str) -> Option<&str> {
    let version = version.trim().split('+').next().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let fits = (1..=MOST_CHARACTERS).contains(&version.len()) && version.chars().all(allowed);
    fits.then_some(version)
}

fn first_line(file: &Path) -> Option<String> {
    let mut text = String::new();
    let read = File::open(file).and_then(|opened| opened.take(1024).read_to_string(&mut text));
    read.inspect_err(|error| tracing::warn!(file = %file.display(), %error, "a version cannot be read"))
        .ok()?;
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_as_the_catalog_takes_them() {
        for (version, expected) in [
            ("1.2.3", Some("1.2.3")),
            (" 1.2 \n", Some("1.2")),
            ("1.0.0+build.7", Some("1.0.0")),
            ("1 2", None),
            ("", None),
            (&"1".repeat(65), None),
        ] {
            assert_eq!(legal(version), expected, "{version:?}");
        }
    }
}
