//! Where the first record that was not delivered begins, as an orderly stop leaves it. Without it some are delivered twice.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::Position;

const NAME: &str = "cursor";

/// It holds once: what is delivered from now on it does not know.
pub(super) fn take(folder: &Path) -> io::Result<Option<Position>> {
    let text = match fs::read_to_string(folder.join(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        // Somebody else wrote that.
        Err(error) if error.kind() == ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(error),
    };
    fs::remove_file(folder.join(NAME))?;
    let parsed = text
        .trim()
        .split_once(' ')
        .and_then(|(segment, end)| Some(Position { segment: segment.parse().ok()?, end: end.parse().ok()? }));
    Ok(parsed)
}

/// Whole or not at all: an offset that is not the end of a record would hide the rest of its segment.
pub(super) fn write(folder: &Path, position: Position) -> io::Result<()> {
    let temporary = folder.join("cursor.new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{} {}", position.segment, position.end)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(NAME))?;
    File::open(folder)?.sync_all()
}
