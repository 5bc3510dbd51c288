//! A file that is replaced as a whole, and a command that makes a running system take it up: firmware of one file,
//! and every configuration.

use std::path::PathBuf;

use async_trait::async_trait;
use downloader::Digest;

use crate::command::{self, CommandSpec};
use crate::device::{Before, Change, Effect, Order, Percent, RolledBack, Step, Target, When};
use crate::error::DeviceError;
use crate::place::{Place, Stage};
use crate::staged::StagedFile;
use crate::storage::{beside, free_space};
use crate::{Halt, Installed, blocking, swap};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTarget {
    pub file: PathBuf,
    pub command: Option<CommandSpec>,
}

pub(crate) struct FilePlace {
    target: Target,
    settings: FileTarget,
    staged: StagedFile,
}

impl FilePlace {
    pub(crate) fn new(target: Target, settings: FileTarget) -> Self {
        let staged = StagedFile::new(target.clone(), beside(&settings.file, "staged"));
        Self { target, settings, staged }
    }

    async fn inspect(&self) -> Result<Before, DeviceError> {
        let file = self.settings.file.clone();
        blocking(move || swap::inspect(&file)).await
    }

    async fn in_force(&self, digest: Digest) -> Result<bool, DeviceError> {
        Ok(self.inspect().await? == Before::File { digest })
    }
}

#[async_trait(?Send)]
impl Place for FilePlace {
    fn stage(&mut self) -> &mut dyn Stage {
        &mut self.staged
    }

    async fn before(&mut self) -> Result<Before, DeviceError> {
        self.inspect().await
    }

    async fn admit(&mut self, order: &Order) -> Result<(), DeviceError> {
        if order.activate == When::NextReboot {
            return Err(DeviceError::NoReboot(order.target.clone()));
        }
        // A link or a folder in the place will not become a file meanwhile.
        swap::refuse_other_than_file(&self.settings.file)
    }

    async fn plan(&mut self, order: &Order) -> Result<Vec<Step>, DeviceError> {
        let file = self.settings.file.display();
        let mut steps = Vec::new();
        match self.inspect().await? {
            Before::File { digest } if digest == order.digest => {
                steps.push(Step::new(
                    "installing",
                    format!("{file} has these bytes already: it is left in place"),
                ));
            }
            Before::File { digest } => {
                let previous = beside(&self.settings.file, "previous");
                let keep = format!("keep the file in force ({digest}) as {}", previous.display());
                steps.push(Step::new("installing", keep));
                steps.push(Step::new("installing", format!("rename the new file over {file}")));
            }
            _ => {
                let text = format!("rename the new file to {file}, where none is yet");
                steps.push(Step::new("installing", text));
            }
        }
        if let Some(command) = &self.settings.command {
            let text = format!("run {command}; if it fails, the previous file comes back");
            steps.push(Step::new("confirming", text));
        }
        let staged = self.staged.path().display();
        let (into, free) = (format!("{staged}"), free_space(self.staged.path())?);
        if let Some(needed) = order.size.filter(|size| *size > free) {
            return Err(downloader::SinkError::NoSpace { needed, available: free }.into());
        }
        steps.insert(
            0,
            Step::new("verifying", format!("{into} is read back and compared with {}", order.digest)),
        );
        Ok(steps)
    }

    async fn holds(&mut self, installed: &Installed, _: Option<&str>) -> Result<bool, DeviceError> {
        self.in_force(installed.digest).await
    }

    async fn activate(&mut self, change: &Change, _: &Halt, _: &Percent) -> Result<Effect, DeviceError> {
        // The same bytes under another version: there is nothing to swap, and `….previous` stays what it was.
        if change.before == (Before::File { digest: change.digest }) {
            self.staged.discard().await?;
            return Ok(Effect::Now);
        }
        match self.staged.take_verified(change.digest).await? {
            Some(artifact) => {
                let file = self.settings.file.clone();
                blocking(move || swap::activate(&file, &artifact)).await?;
            }
            None if self.in_force(change.digest).await? => {}
            None => return Err(DeviceError::Lost(self.target.clone())),
        }
        Ok(Effect::Now)
    }

    async fn take_up(&mut self, _: &Change, halt: &Halt) -> Result<(), DeviceError> {
        match &self.settings.command {
            Some(spec) => Ok(command::run(spec, halt).await?),
            None => Ok(()),
        }
    }

    async fn mark_good(&mut self, _: &Change) -> Result<(), DeviceError> {
        Ok(())
    }

    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError> {
        let (target, file, before) = (self.target.clone(), self.settings.file.clone(), change.before.clone());
        blocking(move || swap::roll_back(target, &file, &before)).await?;
        let mut remark = None;
        if change.before != Before::Absent {
            // Its own halt: what stops the operation must not stop the system from taking up its old file.
            if let Err(error) = self.take_up(change, &Halt::default()).await {
                remark = Some(format!("with the previous file back, {error}"));
            }
        }
        Ok(RolledBack { effect: Effect::Now, remark })
    }
}
