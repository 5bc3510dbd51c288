//! What would happen on this device, step by step, without doing any of it.

use std::time::SystemTime;

use device::{Admitted, Device, DeviceError, HostDevice, HostSettings, Installed, Step, When};

use crate::config::{changes, order, prepare};
use crate::operation::{Operation, UpdateConfig, UpdateFirmware};
use crate::outcome::{Outcome, Until};
use crate::policy::{Opening, Policy};
use crate::rotate::{CertificateSource, RotateCertificate};

/// The steps, and the outcome that they lead to as far as it can be known now.
pub async fn describe(operation: &Operation, host: &HostSettings, policy: &Policy) -> (Vec<Step>, Outcome) {
    let mut device = HostDevice::new(host.clone());
    let mut steps = Vec::new();
    let gate = gate(host, policy);
    let outcome = match operation {
        Operation::UpdateFirmware(update) => firmware(update, &mut device, gate, &mut steps).await,
        Operation::UpdateConfig(update) => config(update, &mut device, &mut steps).await,
        Operation::RotateCertificate(order) => Ok(rotation(order, &mut steps)),
        Operation::Reboot(order) => {
            if !order.delay.is_zero() {
                steps.push(Step::new("waiting", format!("wait {} s", order.delay.as_secs())));
            }
            steps.extend(gate);
            steps.push(Step::new("rebooting", format!("run {}", host.reboot.command)));
            steps.push(Step::new("rebooting", "after the start: the kernel must have another boot id"));
            Ok(Outcome::succeeded("rebooted", "the kernel has another boot id"))
        }
    };
    let outcome = outcome.unwrap_or_else(|error| Outcome::failed(error.reason(), error.to_string()));
    (steps, outcome)
}

/// What is waited for before the device is disturbed.
fn gate(host: &HostSettings, policy: &Policy) -> Vec<Step> {
    let mut steps = Vec::new();
    if !policy.windows.is_empty() {
        let text = match policy.opening(SystemTime::now()) {
            Opening::Open => "a maintenance window is open: go on".to_owned(),
            Opening::At(time) => {
                format!("wait for a maintenance window: the next opens {}", Until::Time(time))
            }
            Opening::ClockNotSet => {
                "wait until this device's clock is set: no window is open before".to_owned()
            }
            Opening::Unknown => "wait: the time zone of the maintenance windows cannot be known".to_owned(),
        };
        steps.push(Step::new("waiting", text));
    }
    if let Some(hook) = &host.hook {
        let again = policy.hook_interval.as_secs();
        let text = format!("run {hook}: exit code 0 goes on, with 75 it is asked again after {again} s");
        steps.push(Step::new("waiting", text));
    }
    steps
}

async fn firmware(
    update: &UpdateFirmware,
    device: &mut HostDevice,
    gate: Vec<Step>,
    steps: &mut Vec<Step>,
) -> Result<Outcome, DeviceError> {
    let (artifact, order) = (&update.artifact, update.order());
    let Admitted { sequence, size } = device.admit(&order).await?;
    let wanted = Installed { version: update.version.clone(), digest: artifact.digest, sequence };
    if device.installed().await?.is_some_and(|installed| installed.covers(&wanted)) {
        let message = format!("version {} was installed before", update.version);
        return Ok(Outcome::succeeded("already-installed", message));
    }
    if let Some(sequence) = sequence {
        let text = format!("the release is signed by keys that this device trusts, with sequence {sequence}");
        steps.push(Step::new("starting", text));
    }
    let size = size.map_or_else(|| "a size that the server tells".to_owned(), |size| format!("{size} bytes"));
    steps.push(Step::new("downloading", format!("fetch {} ({size})", artifact.url)));
    steps.extend(device.plan(&order).await?);
    let fetched = steps.iter().rposition(|step| ["downloading", "verifying"].contains(&step.phase));
    let behind = fetched.map_or(0, |last| last + 1);
    steps.splice(behind..behind, gate);
    let reboots = steps.iter().position(|step| step.phase == "rebooting");
    if let (When::NextReboot, Some(reboots)) = (update.activate, reboots) {
        steps.insert(reboots, Step::new("waiting", "wait for the next reboot: somebody else orders it"));
    }
    steps.push(Step::new("confirming", format!("record version {} as installed", update.version)));
    Ok(Outcome::succeeded("installed", format!("version {} is in force", update.version)))
}

fn rotation(order: &RotateCertificate, steps: &mut Vec<Step>) -> Outcome {
    let text = match &order.from {
        CertificateSource::Template { name: Some(name), .. } => {
            format!("make a key, and get a certificate for it by the provisioning template {name}")
        }
        CertificateSource::Template { name: None, .. } => {
            "make a key, and get a certificate for it by `[provisioning] rotation_template`".to_owned()
        }
        CertificateSource::Document { .. } => {
            "take the document's certificate for the key that there is".to_owned()
        }
    };
    steps.push(Step::new("rotating", text));
    steps.push(Step::new(
        "rotating",
        "connect with it, and ask for the next job: if that fails, nothing changes",
    ));
    Outcome::succeeded("rotated", "the new certificate is in force")
}

async fn config(
    update: &UpdateConfig,
    device: &mut HostDevice,
    steps: &mut Vec<Step>,
) -> Result<Outcome, DeviceError> {
    let current = device.read_config(&update.file.name).await?;
    let new = match prepare(current, update).await {
        Ok(new) => new,
        Err(ended) => return Ok(ended),
    };
    let changes = changes(new.before.as_ref(), &new.value);
    steps.extend(changes.into_iter().map(|change| Step::new("configuring", change)));
    if let Some(schema) = &update.file.schema {
        steps.push(Step::new("configuring", format!("it fits the schema {}", schema.display())));
    }
    steps.extend(device.plan(&order(&update.file, new.text.as_bytes())).await?);
    Ok(Outcome::succeeded("configured", "the new configuration is in force"))
}
