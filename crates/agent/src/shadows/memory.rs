//! What became of what each shadow desired last: it is done once, and what was refused is not tried again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use device::{Durability, read_bounded, write_atomically};
use dispatcher::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::status;

/// A shadow is no place for a long story.
const MAX_MESSAGE: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    /// The wish, by its number.
    pub desired: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    reason: String,
    message: String,
}

impl Refusal {
    pub fn new(outcome: &Outcome) -> Self {
        let message = outcome.message.chars().take(MAX_MESSAGE).collect();
        Self { reason: outcome.reason.clone(), message }
    }

    pub fn said(&self) -> Value {
        json!({"reason": self.reason, "message": self.message})
    }

    pub fn shown(&self) -> status::Refused {
        status::Refused { reason: self.reason.clone(), message: self.message.clone() }
    }
}

#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    of: BTreeMap<String, Handled>,
}

impl Memory {
    /// One that cannot be read is begun anew: a wish that is in force already is then found to be so.
    pub fn open(state_directory: &Path, is_needed: bool) -> Self {
        let path = state_directory.join("shadows.json");
        let read = || match read_bounded(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "what became of shadows cannot be read");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what became of shadows cannot be read");
                BTreeMap::new()
            }
        };
        let of = if is_needed { read() } else { BTreeMap::new() };
        Self { path, of }
    }

    pub fn of(&self, shadow: &str) -> Option<&Handled> {
        self.of.get(shadow)
    }

    /// On disk when this returns, or said not to be.
    pub fn remember(&mut self, shadow: &str, handled: Handled) {
        self.of.insert(shadow.to_owned(), handled);
        self.save();
    }

    pub fn forget(&mut self, shadow: &str) {
        if self.of.remove(shadow).is_some() {
            self.save();
        }
    }

    fn save(&self) {
        let written = serde_json::to_vec(&self.of)
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&self.path, &bytes, Durability::PowerCut));
        if let Err(error) = written {
            tracing::error!(path = %self.path.display(), %error, "what became of a shadow is not on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_wish_survives_and_what_is_torn_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = Outcome::failed("config-invalid", "x".repeat(1000));
        let handled = Handled { desired: 7, refused: Some(Refusal::new(&outcome)) };
        let mut memory = Memory::open(folder.path(), true);
        memory.remember("a", handled.clone());
        memory.remember("b", Handled { desired: 8, refused: None });
        memory.forget("b");
        let again = Memory::open(folder.path(), true);
        assert_eq!((again.of("a"), again.of("b")), (Some(&handled), None));
        assert!(handled.refused.unwrap().said()["message"].as_str().unwrap().len() == MAX_MESSAGE);
        std::fs::write(folder.path().join("shadows.json"), "{torn").unwrap();
        assert_eq!(Memory::open(folder.path(), true).of("a"), None);
    }
}
