//! The highest sequence that was ever committed here: below it only a permit goes. A file of its own, so that neither a
//! rollback nor the loss of another file lowers it.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::DeviceError;
use crate::storage::{Durability, read_bounded, write_atomically};

#[derive(Debug)]
pub(crate) struct Floor {
    path: PathBuf,
}

impl Floor {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("sequence-floor") }
    }

    /// `None` before the first commit. What is there and cannot be read is not taken for nothing.
    pub(crate) fn read(&self) -> Result<Option<u64>, DeviceError> {
        let unreadable = |problem: String| DeviceError::Floor { path: self.path.clone(), problem };
        let bytes = match read_bounded(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let digits = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let number =
            std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match number.and_then(|text| text.parse().ok()) {
            Some(floor) => Ok(Some(floor)),
            None => Err(unreadable("it is not a number".to_owned())),
        }
    }

    /// Never lowers it.
    pub(crate) fn raise(&self, sequence: u64) -> Result<(), DeviceError> {
        if self.read()?.is_some_and(|floor| floor >= sequence) {
            return Ok(());
        }
        write_atomically(&self.path, format!("{sequence}\n").as_bytes(), Durability::PowerCut)
            .map_err(DeviceError::storage("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_never_falls() {
        let folder = tempfile::tempdir().unwrap();
        let floor = Floor::in_folder(folder.path());
        assert_eq!(floor.read().unwrap(), None);
        for (sequence, expected) in [(0, 0), (7, 7), (3, 7), (7, 7), (u64::MAX, u64::MAX)] {
            floor.raise(sequence).unwrap();
            // As the next start finds it.
            assert_eq!(Floor::in_folder(folder.path()).read().unwrap(), Some(expected));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_none_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let floor = Floor::in_folder(folder.path());
        for content in
            ["", "\n", "seven\n", "7\n8\n", "-7\n", "+7\n", " 7\n", "18446744073709551616\n", "7\0\n"]
        {
            std::fs::write(&floor.path, content).unwrap();
            for error in [floor.read().unwrap_err(), floor.raise(9).unwrap_err()] {
                assert_eq!(error.reason(), "sequence-floor-unreadable", "{content:?}");
            }
            assert_eq!(std::fs::read(&floor.path).unwrap(), content.as_bytes());
        }
    }
}
