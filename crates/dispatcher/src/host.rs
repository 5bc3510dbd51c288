//! The device as it is: files, commands, the kernel.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use downloader::{Digest, Resume, Sink, Staging, VerifiedArtifact};

use crate::command::{self, CommandSpec};
use crate::device::{Before, Device, DeviceError, Installed, Target};
use crate::journal::read_bounded;
use crate::storage::{Durability, beside, remove_if_there, sync_folder_of, write_atomically};
use crate::{Halt, swap};

/// A configuration file beyond this is not one.
const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct HostSettings {
    /// Where `installed.json` is kept.
    pub state_directory: PathBuf,
    pub firmware: Option<FileTarget>,
    pub config: Option<FileTarget>,
    pub reboot: RebootSpec,
}

#[derive(Debug, Clone)]
pub struct FileTarget {
    pub file: PathBuf,
    pub command: Option<CommandSpec>,
}

#[derive(Debug, Clone)]
pub struct RebootSpec {
    pub command: CommandSpec,
    /// `/proc/sys/kernel/random/boot_id`, except where a device is simulated.
    pub boot_id_file: PathBuf,
}

#[derive(Debug)]
pub struct HostDevice {
    settings: HostSettings,
    staged: Staged,
}

/// What lies beside a target. Only `Verified` can be activated.
enum Staged {
    Nothing,
    Writing { target: Target, staging: Staging },
    Verified { target: Target, artifact: VerifiedArtifact },
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Writing { .. } => "Writing",
            Self::Verified { .. } => "Verified",
        })
    }
}

impl HostDevice {
    pub fn new(settings: HostSettings) -> Self {
        Self { settings, staged: Staged::Nothing }
    }

    fn target(&self, target: Target) -> Result<&FileTarget, DeviceError> {
        let configured = match target {
            Target::Firmware => &self.settings.firmware,
            Target::Config => &self.settings.config,
        };
        configured.as_ref().ok_or(DeviceError::NotConfigured(target))
    }

    fn staged_path(&self, target: Target) -> Result<PathBuf, DeviceError> {
        Ok(beside(&self.target(target)?.file, "staged"))
    }

    fn installed_path(&self) -> PathBuf {
        self.settings.state_directory.join("installed.json")
    }

    fn writing(&mut self) -> Result<&mut Staging, DeviceError> {
        match &mut self.staged {
            Staged::Writing { staging, .. } => Ok(staging),
            Staged::Verified { target, .. } => Err(DeviceError::NothingVerified(*target)),
            Staged::Nothing => Err(DeviceError::NothingVerified(Target::Firmware)),
        }
    }
}

impl Device for HostDevice {
    async fn boot_id(&mut self) -> Result<String, DeviceError> {
        let path = &self.settings.reboot.boot_id_file;
        let text = read_bounded(path).map_err(DeviceError::storage("read the boot id in", path))?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    async fn installed(&mut self) -> Result<Option<Installed>, DeviceError> {
        let path = self.installed_path();
        let recorded: Installed = match read_bounded(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(recorded) => recorded,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the record of what is installed cannot be read, and is ignored");
                    return Ok(None);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DeviceError::storage("read", path)(error)),
        };
        let Some(firmware) = &self.settings.firmware else { return Ok(None) };
        let file = firmware.file.clone();
        let found = blocking(move || swap::inspect(&file)).await?;
        Ok((found == Before::File { digest: recorded.digest }).then_some(recorded))
    }

    async fn read_config(&mut self) -> Result<Option<Vec<u8>>, DeviceError> {
        let path = &self.target(Target::Config)?.file;
        match std::fs::metadata(path) {
            Ok(found) if found.len() > MAX_CONFIG_BYTES => {
                let error = io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("more than {MAX_CONFIG_BYTES} bytes"),
                );
                Err(DeviceError::storage("read", path)(error))
            }
            Ok(_) => std::fs::read(path).map(Some).map_err(DeviceError::storage("read", path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DeviceError::storage("read", path)(error)),
        }
    }

    async fn begin(&mut self, target: Target, digest: Digest, size: Option<u64>) -> Result<u64, DeviceError> {
        // Refused before a byte is fetched: a link or a folder in the place will not become a file meanwhile.
        refuse_other_than_file(&self.target(target)?.file)?;
        let staging = Staging::open_partial(&self.staged_path(target)?, digest, size)?;
        let position = staging.position();
        self.staged = Staged::Writing { target, staging };
        Ok(position)
    }

    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError> {
        let object = Resume { validator: None, total: Some(total) };
        Ok(self.writing()?.reserve(&object).await?)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError> {
        Ok(self.writing()?.write(bytes).await?)
    }

    async fn restart(&mut self) -> Result<(), DeviceError> {
        Ok(self.writing()?.restart().await?)
    }

    async fn finish(&mut self) -> Result<Before, DeviceError> {
        let Staged::Writing { target, staging } = std::mem::replace(&mut self.staged, Staged::Nothing) else {
            return Err(DeviceError::NothingVerified(Target::Firmware));
        };
        let artifact = staging.finish().await?;
        let file = self.target(target)?.file.clone();
        let before = blocking(move || swap::inspect(&file)).await?;
        self.staged = Staged::Verified { target, artifact };
        Ok(before)
    }

    async fn recover(&mut self, target: Target, digest: Digest) -> Result<bool, DeviceError> {
        let (file, staged) = (self.target(target)?.file.clone(), self.staged_path(target)?);
        if staged.exists() {
            let artifact = VerifiedArtifact::reverify(&staged, digest).await?;
            self.staged = Staged::Verified { target, artifact };
            return Ok(true);
        }
        match blocking(move || swap::inspect(&file)).await? {
            found if found == (Before::File { digest }) => Ok(false),
            _ => Err(DeviceError::Lost(target)),
        }
    }

    async fn discard(&mut self, target: Target) -> Result<(), DeviceError> {
        // Dropped first: its threads may still be writing.
        self.staged = Staged::Nothing;
        let Ok(staged) = self.staged_path(target) else { return Ok(()) };
        let removed = remove_if_there(&staged).map_err(DeviceError::storage("remove", &staged))?;
        if removed {
            sync_folder_of(&staged).map_err(DeviceError::storage("sync the folder of", &staged))?;
        }
        Ok(())
    }

    async fn activate(&mut self, target: Target) -> Result<(), DeviceError> {
        match std::mem::replace(&mut self.staged, Staged::Nothing) {
            Staged::Verified { target: verified, artifact } if verified == target => {
                let file = self.target(target)?.file.clone();
                blocking(move || swap::activate(&file, &artifact)).await
            }
            _ => Err(DeviceError::NothingVerified(target)),
        }
    }

    async fn run_command(&mut self, target: Target, halt: &Halt) -> Result<(), DeviceError> {
        match &self.target(target)?.command {
            Some(spec) => Ok(command::run(spec, halt).await?),
            None => Ok(()),
        }
    }

    async fn roll_back(&mut self, target: Target, before: Before) -> Result<(), DeviceError> {
        let file = self.target(target)?.file.clone();
        blocking(move || swap::roll_back(target, &file, before)).await
    }

    async fn commit(&mut self, installed: &Installed) -> Result<(), DeviceError> {
        let path = self.installed_path();
        serde_json::to_vec(installed)
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&path, &bytes, Durability::PowerCut))
            .map_err(DeviceError::storage("write", path))
    }

    async fn reboot(&mut self, halt: &Halt) -> Result<(), DeviceError> {
        Ok(command::run(&self.settings.reboot.command, halt).await?)
    }
}

fn refuse_other_than_file(path: &Path) -> Result<(), DeviceError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => swap::inspect(path).map(|_| ()),
        _ => Ok(()),
    }
}

/// Long work on files goes to a thread of its own: the loop must go on answering the broker.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
) -> Result<T, DeviceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(DeviceError::storage("work on", PathBuf::from("a file"))(io::Error::other(error))),
    }
}
