//! Certificates and keys in generations, of which one is in force. What is configured is generation 0; others are folders
//! with a number in the state directory, whole or not there. One small file says which is in force, and replacing it is the
//! one step from one identity to the next.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use connection::tls::IdentityFiles;
use device::{Durability, read_bounded, remove_if_there, write_atomically};
use downloader::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

const CURRENT: &str = "current.json";
const CANDIDATE: &str = "candidate.json";
const STAGED: &str = "staged";
const CERTIFICATE: &str = "certificate.pem";
const PRIVATE_KEY: &str = "private.key";
const ABOUT: &str = "about.json";

#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    configured: IdentityFiles,
}

#[derive(Debug, Clone)]
pub struct Generation {
    pub number: u64,
    pub files: IdentityFiles,
    /// Absent for what is configured.
    pub about: Option<About>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub thing_name: String,
    pub made_for: String,
    /// What the template says for the device's own use.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub device_configuration: Map<String, Value>,
}

/// Issued and not registered: with the token somebody else could do that.
#[derive(Serialize, Deserialize)]
pub struct Candidate {
    pub made_for: String,
    pub template: String,
    pub private_key: String,
    pub certificate: String,
    pub token: String,
    pub issued_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Current {
    generation: u64,
    /// The configured certificate of then. A person who has given the device another one since means that one.
    configured: Option<Digest>,
}

impl Store {
    pub fn new(folder: PathBuf, configured: IdentityFiles) -> Self {
        Self { folder, configured }
    }

    pub fn in_force(&self) -> Option<Generation> {
        let current = self.current().filter(|current| {
            let configured = self.configured_digest();
            configured.is_none() || configured == current.configured
        });
        current.and_then(|current| self.generation(current.generation)).or_else(|| self.generation(0))
    }

    /// Registered for this, and not in force.
    pub fn pending_for(&self, made_for: &str) -> Option<Generation> {
        let last = self.last();
        let mut newer = self.numbers().into_iter().filter(|number| *number > last);
        newer.find_map(|number| {
            let found = self.generation(number)?;
            let about = found.about.as_ref()?;
            (about.made_for == made_for).then_some(found)
        })
    }

    /// What else this thing may still connect with: first what is newer than what is in force, then what is older.
    pub fn others(&self, thing_name: &str) -> Vec<Generation> {
        let in_force = self.in_force().map(|generation| generation.number);
        let mut numbers = self.numbers();
        numbers.reverse();
        numbers.push(0);
        let others = numbers.into_iter().filter(|number| Some(*number) != in_force);
        let same =
            |found: &Generation| found.about.as_ref().is_none_or(|about| about.thing_name == thing_name);
        others.filter_map(|number| self.generation(number)).filter(same).collect()
    }

    /// Was it never in force?
    pub fn is_pending(&self, generation: &Generation) -> bool {
        generation.number > self.last()
    }

    pub fn candidate(&self) -> Option<Candidate> {
        self.read(CANDIDATE)
    }

    pub fn keep(&self, candidate: &Candidate) -> Result<(), Error> {
        self.make_folder().and_then(|()| self.write(CANDIDATE, candidate)).map_err(self.failed(CANDIDATE))
    }

    /// Both files beside those in force, on disk when this returns.
    pub fn install(&self, certificate: &str, private_key: &str, about: &About) -> Result<Generation, Error> {
        let number = self.numbers().last().copied().unwrap_or_default().max(self.last()) + 1;
        let install = || {
            self.make_folder()?;
            let staged = self.folder.join(STAGED);
            remove_folder(&staged)?;
            DirBuilder::new().mode(0o700).create(&staged)?;
            write_new(&staged.join(CERTIFICATE), certificate.as_bytes())?;
            write_new(&staged.join(PRIVATE_KEY), private_key.as_bytes())?;
            write_new(&staged.join(ABOUT), &serde_json::to_vec(about)?)?;
            File::open(&staged)?.sync_all()?;
            fs::rename(&staged, self.folder_of(number))?;
            self.sync()?;
            remove_if_there(&self.folder.join(CANDIDATE))
        };
        install().map_err(self.failed(&number.to_string()))?;
        self.generation(number).ok_or_else(|| self.failed(ABOUT)(io::ErrorKind::NotFound.into()))
    }

    /// The one step. What was in force before stays until the next time.
    pub fn put_in_force(&self, generation: &Generation) -> Result<(), Error> {
        let before = self.in_force().map(|generation| generation.number);
        // A power cut may have brought it back. The next write to the folder is synced.
        remove_if_there(&self.folder.join(CANDIDATE)).map_err(self.failed(CANDIDATE))?;
        let current = Current { generation: generation.number, configured: self.configured_digest() };
        self.write(CURRENT, &current).map_err(self.failed(CURRENT))?;
        for number in self.numbers() {
            if number != generation.number && Some(number) != before {
                self.remove(number);
            }
        }
        Ok(())
    }

    /// What was obtained and has not been in force goes.
    pub fn discard(&self) {
        let last = self.last();
        for number in self.numbers().into_iter().filter(|number| *number > last) {
            self.remove(number);
        }
        if let Err(error) = remove_if_there(&self.folder.join(CANDIDATE)) {
            tracing::warn!(%error, "a certificate that is not needed any more could not be removed");
        }
    }

    fn generation(&self, number: u64) -> Option<Generation> {
        if number == 0 {
            let there = self.configured.certificate.exists();
            return there.then(|| Generation { number, files: self.configured.clone(), about: None });
        }
        let folder = self.folder_of(number);
        let about = self.read(&format!("{number}/{ABOUT}"))?;
        let files = IdentityFiles {
            certificate: folder.join(CERTIFICATE),
            private_key: folder.join(PRIVATE_KEY),
            root_ca: self.configured.root_ca.clone(),
        };
        Some(Generation { number, files, about: Some(about) })
    }

    fn current(&self) -> Option<Current> {
        self.read(CURRENT)
    }

    /// The newest that was ever put in force, also where the configuration has overruled it since.
    fn last(&self) -> u64 {
        self.current().map_or(0, |current| current.generation)
    }

    fn configured_digest(&self) -> Option<Digest> {
        read_bounded(&self.configured.certificate).ok().map(|bytes| Digest::of_bytes(&bytes))
    }

    /// In ascending order.
    fn numbers(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    fn folder_of(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        // The folder's own name has to be on disk, too.
        self.folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.folder.join(name);
        let read = match read_bounded(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| format!("{:?} error", error.classify()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
        };
        let unreadable =
            |error| tracing::warn!(path = %path.display(), error, "cannot be read, and is passed over");
        read.map_err(unreadable).ok()
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        write_atomically(&self.folder.join(name), &serde_json::to_vec(value)?, Durability::PowerCut)
    }

    fn remove(&self, number: u64) {
        // Its record first: what is half removed is not a generation any more.
        let folder = self.folder_of(number);
        let removed = remove_if_there(&folder.join(ABOUT)).and_then(|_| remove_folder(&folder));
        if let Err(error) = removed {
            tracing::warn!(folder = %folder.display(), %error, "could not be removed");
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn failed(&self, name: &str) -> impl Fn(io::Error) -> Error {
        let path = self.folder.join(name);
        move |source| Error::Storage { path: path.clone(), source }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
