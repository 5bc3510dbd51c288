//! Digests of what is at hand, and digests on disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::Digest;

const PIECE: usize = 256 * 1024;

impl Digest {
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut context = Self::context();
        context.update(bytes);
        Self::of(context)
    }

    /// Reads the whole file. Blocking.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut context = Self::context();
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(Self::of(context)),
                read => context.update(piece.get(..read).unwrap_or_default()),
            }
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
