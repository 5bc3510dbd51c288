//! The local time zone: a compiled file of the system's, read when it is needed, so that a change of it counts.

use std::io::Read;
use std::path::{Path, PathBuf};

use tz::TimeZone;

const FOLDER: &str = "/usr/share/zoneinfo";
const SYSTEM: &str = "/etc/localtime";
/// The largest one of the system's has 4 KiB.
const MAX_BYTES: u64 = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// As configured; `None` is the system's.
    name: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    #[error("the time zone file {} cannot be read: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{} is no time zone file: {problem}", file.display())]
    Invalid { file: PathBuf, problem: String },
}

impl Zone {
    pub fn system() -> Self {
        Self { name: None }
    }

    /// A name like `Europe/Berlin`, or the path of a file.
    pub fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()) }
    }

    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub fn load(&self) -> Result<TimeZone, ZoneError> {
        let file = self.name.as_ref().map_or(SYSTEM.into(), |name| Path::new(FOLDER).join(name));
        let bytes = match read(&file) {
            Ok(bytes) => bytes,
            // What the C library makes of a system without the file.
            Err(error) if self.name.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(TimeZone::utc());
            }
            Err(source) => return Err(ZoneError::Unreadable { file, source }),
        };
        TimeZone::from_tz_data(&bytes)
            .map_err(|error| ZoneError::Invalid { file, problem: error.to_string() })
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_a_file_of_the_system_or_any_other() {
        let offset =
            |zone: Zone| zone.load().unwrap().find_local_time_type(1_800_000_000).unwrap().ut_offset();
        assert_eq!(offset(Zone::named("Asia/Kolkata")), 19_800);
        assert_eq!(offset(Zone::named("/usr/share/zoneinfo/Asia/Kolkata")), 19_800);
        Zone::system().load().unwrap();
    }

    #[test]
    fn what_is_none_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read("/usr/share/zoneinfo/Europe/Berlin").unwrap();
        for length in (0..whole.len()).step_by(7) {
            let file = folder.path().join("torn");
            std::fs::write(&file, whole.get(..length).unwrap()).unwrap();
            let error = Zone::named(file.to_str().unwrap()).load().unwrap_err().to_string();
            assert!(error.contains("is no time zone file"), "{length}: {error}");
        }
        let missing = Zone::named("Mars/Olympus").load().unwrap_err().to_string();
        assert!(missing.contains("/usr/share/zoneinfo/Mars/Olympus cannot be read"), "{missing}");
        assert!(Zone::named("Europe").load().unwrap_err().to_string().contains("Europe cannot be read"));
    }
}
