//! `[[shadow]]` and `[shadows]`: the files that are kept as shadows desire, and what is reported besides. All of it is off
//! unless it is configured: every message costs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use device::{Checked, FileTarget};
use dispatcher::ConfigFile;
use shadow::Shadow;

use super::table::{ConfigError, Table};
use super::{DAY, Settings, files};

/// Each takes five of the fifty filters that AWS allows a connection; jobs have theirs, too.
const MOST_FILES: usize = 7;
const MOST_PACKAGES: usize = 20;

#[derive(Debug, Clone, Default)]
pub struct Shadows {
    pub files: Vec<ShadowFile>,
    /// What the device is, into the classic shadow.
    pub report: Option<Report>,
    pub report_package: ReportPackage,
    /// Under which name the firmware's version goes into `$package`.
    pub firmware_package: Option<String>,
    pub packages: Vec<Package>,
}

/// A shadow, and the file that is kept as it desires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowFile {
    pub shadow: String,
    pub file: ConfigFile,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub interval: Duration,
    pub without: BTreeSet<Member>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReportPackage {
    Never,
    /// What jobs do not deploy.
    #[default]
    Startup,
    /// And the firmware, where nobody else writes its version.
    AfterJob,
}

/// Something else that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: Version,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    Of(String),
    /// The first line of a file, read whenever it is reported.
    In(PathBuf),
    /// This agent's own.
    Agent,
}

/// What the classic shadow can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    Agent,
    Firmware,
    Job,
    BootTime,
    FreeSpace,
    Certificate,
}

impl Member {
    pub const ALL: [Self; 6] =
        [Self::Agent, Self::Firmware, Self::Job, Self::BootTime, Self::FreeSpace, Self::Certificate];

    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Firmware => "firmware",
            Self::Job => "job",
            Self::BootTime => "bootTime",
            Self::FreeSpace => "freeSpacePercent",
            Self::Certificate => "certificate",
        }
    }
}

impl ReportPackage {
    const ALL: [(Self, &str); 3] =
        [(Self::Never, "never"), (Self::Startup, "startup"), (Self::AfterJob, "after_job")];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(value, _)| *value == self).map_or("", |(_, name)| name)
    }
}

/// Each is a place of the device, like those of `[[config]]`, but for jobs it is not there.
pub(super) fn files(
    tables: Vec<Table<'_>>,
    configs: &[ConfigFile],
    places: &mut BTreeMap<String, Checked<FileTarget>>,
) -> Result<Vec<ShadowFile>, ConfigError> {
    let mut found: Vec<ShadowFile> = Vec::new();
    for mut table in tables {
        let shadow = table.required_string("name", Shadow::NAME)?;
        if !Shadow::is_name(&shadow) || shadow == "$package" {
            let problem = format!("found {shadow:?}, expected {}, and not $package", Shadow::NAME);
            return Err(table.unusable("name", problem));
        }
        if found.iter().any(|other| other.shadow == shadow) {
            return Err(table.again("name", &shadow));
        }
        if found.len() == MOST_FILES {
            let problem = format!("this is one more than the {MOST_FILES} that one connection can follow");
            return Err(table.unusable("name", problem));
        }
        let file = match table.string("config", "the name of a [[config]]")? {
            Some(name) => {
                let known = configs.iter().find(|config| config.name == name).cloned();
                let Some(known) = known else {
                    let problem = format!("found {name:?}, and there is no [[config]] of that name");
                    return Err(table.unusable("config", problem));
                };
                if found.iter().any(|other| other.file == known) {
                    return Err(table.again("config", &name));
                }
                table.finish()?;
                known
            }
            None => {
                let described = files::describe(&mut table)?;
                if places.values().any(|other| other.target.file == described.place.target.file) {
                    let problem = "this file is another's: name its [[config]] with `config` instead";
                    return Err(table.unusable("file", problem));
                }
                described.place(table, shadow.clone(), places)?
            }
        };
        found.push(ShadowFile { shadow, file });
    }
    Ok(found)
}

pub(super) fn shadows(mut table: Table<'_>, files: Vec<ShadowFile>) -> Result<Shadows, ConfigError> {
    let report = table.boolean("report")?.unwrap_or(false);
    let interval = table.seconds("report_interval_seconds", 1..=30 * DAY)?;
    let without = table.strings("report_without", "an array of members: [\"freeSpacePercent\"]")?;
    let without = without.iter().map(|name| {
        let found = Member::ALL.into_iter().find(|member| member.name() == name);
        found.ok_or_else(|| {
            let known = Member::ALL.map(Member::name).join(", ");
            table.unusable("report_without", format!("found {name:?}, expected some of {known}"))
        })
    });
    let without = without.collect::<Result<_, _>>()?;
    let report_package = match table.string("report_package", "a word")? {
        None => ReportPackage::default(),
        Some(word) => {
            let found = ReportPackage::ALL.into_iter().find(|(_, name)| *name == word);
            let expected = "expected \"never\", \"startup\" or \"after_job\"";
            let wrong = || table.unusable("report_package", format!("found {word:?}, {expected}"));
            found.map(|(value, _)| value).ok_or_else(wrong)?
        }
    };
    let firmware_package = table.string("firmware_package", "the name of a package")?;
    let packages = table.tables_in("packages", "shadows.packages")?;
    if packages.len() > MOST_PACKAGES {
        return Err(
            table.unusable("packages", format!("more than the {MOST_PACKAGES} that one shadow holds"))
        );
    }
    let packages = packages.into_iter().map(package).collect::<Result<Vec<_>, _>>()?;
    for name in packages.iter().map(|package| &package.name).chain(&firmware_package) {
        if !is_package_name(name) {
            return Err(table.unusable("packages", format!("found {name:?}, expected {PACKAGE}")));
        }
    }
    table.finish()?;
    let interval = interval.unwrap_or(Duration::from_secs(3600));
    let report = report.then_some(Report { interval, without });
    Ok(Shadows { files, report, report_package, firmware_package, packages })
}

const PACKAGE: &str = "1 to 128 of the characters a-z A-Z 0-9 - _ .";

fn is_package_name(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn package(mut table: Table<'_>) -> Result<Package, ConfigError> {
    let name = table.required_string("name", PACKAGE)?;
    let version = table.string("version", "a version")?;
    let file = table.path("version_file")?;
    let attributes = table.table_in("attributes", "shadows.packages.attributes")?;
    let attributes = { attributes }.strings_by_name("a string")?;
    let version = match (version, file) {
        (Some(version), None) => Version::Of(version),
        (None, Some(file)) => Version::In(file),
        (None, None) if name == "fleethand" => Version::Agent,
        _ => return Err(table.unusable("version", "expected either `version` or `version_file`")),
    };
    table.finish()?;
    Ok(Package { name, version, attributes })
}

impl Settings {
    /// What shadows have to hear.
    pub fn shadow_filters(&self) -> Vec<String> {
        let of = |name: Option<&str>, follows| {
            let thing = self.connection.thing_name.clone();
            Shadow { thing, name: name.map(str::to_owned) }.subscriptions(follows)
        };
        let shadows = &self.shadows;
        let files = shadows.files.iter().flat_map(|file| of(Some(&file.shadow), true));
        let classic = shadows.report.iter().flat_map(|_| of(None, false));
        let package = shadows.reports_packages().then(|| of(Some("$package"), false)).into_iter().flatten();
        files.chain(classic).chain(package).collect()
    }
}

impl Shadows {
    /// Whether there is anything for `$package`.
    pub fn reports_packages(&self) -> bool {
        match self.report_package {
            ReportPackage::Never => false,
            ReportPackage::Startup => !self.packages.is_empty(),
            ReportPackage::AfterJob => !self.packages.is_empty() || self.firmware_package.is_some(),
        }
    }
}
