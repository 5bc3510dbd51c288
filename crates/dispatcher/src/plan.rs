//! What would happen on this device, step by step, without doing any of it.

use downloader::Digest;

use crate::command::CommandSpec;
use crate::config::compose;
use crate::device::{Before, Device, DeviceError, Installed, Target};
use crate::host::{FileTarget, HostDevice, HostSettings};
use crate::operation::{Operation, UpdateConfig, UpdateFirmware};
use crate::outcome::Outcome;
use crate::storage::{beside, folder_of};
use crate::swap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// As the status updates would name it.
    pub phase: &'static str,
    pub text: String,
}

#[derive(Debug, Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn say(&mut self, phase: &'static str, text: impl Into<String>) {
        self.0.push(Step { phase, text: text.into() });
    }
}

/// The steps, and the outcome that they lead to as far as it can be known now.
pub async fn describe(operation: &Operation, host: &HostSettings) -> (Vec<Step>, Outcome) {
    let mut steps = Steps::default();
    let outcome = match operation {
        Operation::UpdateFirmware(update) => firmware(update, host, &mut steps).await,
        Operation::UpdateConfig(update) => config(update, host, &mut steps).await,
        Operation::Reboot(order) => {
            if !order.delay.is_zero() {
                steps.say("waiting", format!("wait {} s", order.delay.as_secs()));
            }
            steps.say("rebooting", format!("run {}", show(&host.reboot.command)));
            steps.say("rebooting", "after the start: the kernel must have another boot id");
            Ok(Outcome::succeeded("rebooted", "the kernel has another boot id"))
        }
    };
    let outcome = outcome.unwrap_or_else(|error| Outcome::failed(error.reason(), error.to_string()));
    (steps.0, outcome)
}

async fn firmware(
    update: &UpdateFirmware,
    host: &HostSettings,
    steps: &mut Steps,
) -> Result<Outcome, DeviceError> {
    let target = host.firmware.as_ref().ok_or(DeviceError::NotConfigured(Target::Firmware))?;
    let artifact = &update.artifact;
    let before = swap::inspect(&target.file)?;
    let wanted = Installed { version: update.version.clone(), digest: artifact.digest };
    if HostDevice::new(host.clone()).installed().await? == Some(wanted) {
        return Ok(Outcome::succeeded(
            "already-installed",
            format!("version {} was installed before", update.version),
        ));
    }
    let staged = beside(&target.file, "staged");
    let free = free_space(&target.file)?;
    let size = artifact
        .size
        .map_or_else(|| "a size that the server tells".to_owned(), |size| format!("{size} bytes"));
    steps.say(
        "downloading",
        format!("fetch {} ({size}) into {} ({free} bytes are free)", artifact.url, staged.display()),
    );
    if let Some(needed) = artifact.size.filter(|size| *size > free) {
        return Err(downloader::SinkError::NoSpace { needed, available: free }.into());
    }
    steps.say("verifying", format!("read it back and compare with {}", artifact.digest));
    swap_steps(target, before, artifact.digest, steps);
    steps.say("installing", format!("record version {} as installed", update.version));
    Ok(Outcome::succeeded("installed", format!("version {} is in force", update.version)))
}

async fn config(
    update: &UpdateConfig,
    host: &HostSettings,
    steps: &mut Steps,
) -> Result<Outcome, DeviceError> {
    let target = host.config.as_ref().ok_or(DeviceError::NotConfigured(Target::Config))?;
    let current = HostDevice::new(host.clone()).read_config().await?;
    let new = match compose(current.as_deref(), update) {
        Ok(new) => new,
        Err(why) => return Ok(Outcome::failed("config-unreadable", why)),
    };
    if current.as_deref() == Some(new.as_slice()) {
        return Ok(Outcome::succeeded("unchanged", "the configuration says this already"));
    }
    let staged = beside(&target.file, "staged");
    steps.say("configuring", format!("write {} bytes to {} and read them back", new.len(), staged.display()));
    steps.say("configuring", format!("the new content: {}", String::from_utf8_lossy(&new).trim_end()));
    swap_steps(target, swap::inspect(&target.file)?, Digest::of_bytes(&new), steps);
    Ok(Outcome::succeeded("configured", "the new configuration is in force"))
}

fn swap_steps(target: &FileTarget, before: Before, digest: Digest, steps: &mut Steps) {
    let file = target.file.display();
    match before {
        Before::File { digest: current } if current == digest => {
            steps.say("installing", format!("{file} has these bytes already: it is left in place"));
        }
        Before::File { digest: current } => {
            let previous = beside(&target.file, "previous");
            steps.say("installing", format!("keep the file in force ({current}) as {}", previous.display()));
            steps.say("installing", format!("rename the new file over {file}"));
        }
        Before::Absent => {
            steps.say("installing", format!("rename the new file to {file}, where none is yet"));
        }
    }
    if let Some(command) = &target.command {
        steps.say("installing", format!("run {}; if it fails, the previous file comes back", show(command)));
    }
}

fn show(command: &CommandSpec) -> String {
    let words: Vec<_> = std::iter::once(&command.program).chain(&command.arguments).cloned().collect();
    format!("{words:?} (at most {} s)", command.timeout.as_secs())
}

fn free_space(path: &std::path::Path) -> Result<u64, DeviceError> {
    let folder = folder_of(path);
    let found = nix::sys::statvfs::statvfs(folder)
        .map_err(|error| DeviceError::storage("look for space in", folder)(error.into()))?;
    Ok(found.blocks_available() * found.fragment_size())
}
