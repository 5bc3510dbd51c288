//! `update-firmware`: fetched to where the device wants it, read back, checked, put in force, and confirmed.

use std::rc::Rc;

use bytes::Bytes;
use device::{Admitted, Before, Change, Device, DeviceError, Disturbance, Installed, Target};
use downloader::{Artifact, Digest, Error, Resume, Sink, SinkError};

use crate::dispatcher::{Context, Dispatcher, Failure};
use crate::journal::Phase;
use crate::operation::{Operation, UpdateFirmware};
use crate::outcome::{Outcome, Progress};

/// A device that is lost more often in one transfer is lost because of it.
pub(crate) const MAX_LOSSES: u32 = 3;

impl<D: Device> Dispatcher<D> {
    pub(crate) async fn update_firmware(
        &mut self,
        update: &UpdateFirmware,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        let digest = update.artifact.digest;
        // Before anything else, also where there is nothing to do: whoever may not order this hears so each time.
        let Admitted { sequence, size } = self.device.admit(&update.order()).await?;
        let update =
            &UpdateFirmware { artifact: Artifact { size, ..update.artifact.clone() }, ..update.clone() };
        let wanted = Installed { version: update.version.clone(), digest, sequence };
        if self.device.installed().await?.is_some_and(|installed| installed.covers(&wanted)) {
            let message = format!("version {} was installed before", update.version);
            return Ok(Outcome::succeeded("already-installed", message));
        }
        if let Some(outcome) = self.failed_before(digest) {
            return Ok(outcome);
        }
        let before = self.fetch_and_verify(update, context).await?;
        self.permission(Disturbance::UpdateFirmware, Some(&update.version), context).await?;
        self.activate_when(update.activate);
        let change = Change { target: Target::Firmware, digest, before, commit: Some(wanted) };
        self.put_in_force(change, context).await
    }

    async fn fetch_and_verify(
        &mut self,
        update: &UpdateFirmware,
        context: &Context,
    ) -> Result<Before, Failure> {
        let (mut losses, mut from_zero) = (0, false);
        loop {
            match self.fetch(update, context).await? {
                Ok(before) => return Ok(before),
                // As after a restart: what has arrived is still there.
                Err(error) if error.is_lost() && losses < MAX_LOSSES => {
                    losses += 1;
                    tracing::warn!(%error, losses, "going on where the transfer was");
                }
                // Bytes of before a restart were part of it, and may be what is wrong: once more, from zero.
                Err(error) if error.is_transient() && !from_zero => {
                    from_zero = true;
                    tracing::warn!(%error, "fetching again from zero");
                    self.device.discard(&Target::Firmware).await?;
                    self.save(Phase::Accepted)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What the device says to the bytes is the inner result.
    async fn fetch(
        &mut self,
        update: &UpdateFirmware,
        context: &Context,
    ) -> Result<Result<Before, DeviceError>, Failure> {
        let (mut artifact, digest) = (update.artifact.clone(), update.artifact.digest);
        let mut resume = match self.phase() {
            Some(Phase::Downloading { digest: earlier, resume }) if *earlier == digest => resume.clone(),
            _ => {
                self.device.discard(&Target::Firmware).await?;
                Resume::default()
            }
        };
        let position = self.device.begin(&update.order()).await?;
        let downloader = Rc::clone(&self.downloader);
        let mut sink = DeviceSink { dispatcher: self, digest, position, refused: None };
        let mut refreshed = false;
        loop {
            let mut report = |progress: downloader::Progress| {
                context.report(Progress {
                    done: progress.received,
                    total: progress.total,
                    ..Progress::phase("downloading")
                });
            };
            let fetched =
                downloader.fetch(&artifact, &mut resume, &mut sink, &mut report, context.halt.token()).await;
            match fetched {
                Ok(_) => break,
                Err(Error::Forbidden { status }) if !refreshed => {
                    refreshed = true;
                    tracing::info!(status, "the URL is not valid any more, asking for a fresh one");
                    artifact = fresh_artifact(&artifact, &sink.dispatcher.rules, context).await?;
                }
                Err(error) => return refused_or_failed(error, sink.refused),
            }
        }
        context.report(Progress::phase("verifying"));
        Ok(self.device.finish().await)
    }
}

/// The same artifact with a freshly signed URL. A document that asks for other bytes now is not this order.
async fn fresh_artifact(
    artifact: &Artifact,
    rules: &crate::Rules,
    context: &Context,
) -> Result<Artifact, Failure> {
    let document = tokio::select! {
        document = context.ask_for_fresh_document() => document,
        () = context.halt.halted() => return Err(Failure::Halted),
    };
    let Some(document) = document else {
        let message = "the URL is not valid any more, and the cloud gave no other";
        return Err(Failure::Outcome(Outcome::failed("url-expired", message)));
    };
    match Operation::parse(&document, rules).map(|parsed| parsed.operation) {
        Ok(Operation::UpdateFirmware(update)) if update.artifact.digest == artifact.digest => {
            Ok(Artifact { url: update.artifact.url, ..artifact.clone() })
        }
        _ => {
            let message = "the document asks for other firmware than before";
            Err(Failure::Outcome(Outcome::failed("document-changed", message)))
        }
    }
}

fn refused_or_failed<T>(
    error: Error,
    refused: Option<DeviceError>,
) -> Result<Result<T, DeviceError>, Failure> {
    match (error, refused) {
        (Error::Canceled, _) => Err(Failure::Halted),
        (Error::Sink(_), Some(refused)) => Ok(Err(refused)),
        (error, _) => Err(Failure::Outcome(Outcome::failed(error.reason(), error.to_string()))),
    }
}

/// Lets the downloader write to the device, and keeps in the journal which object the bytes are of.
struct DeviceSink<'a, D> {
    dispatcher: &'a mut Dispatcher<D>,
    digest: Digest,
    position: u64,
    /// What went wrong, in its own words; the downloader knows only that the sink failed.
    refused: Option<DeviceError>,
}

impl<D> DeviceSink<'_, D> {
    fn keep<T>(&mut self, result: Result<T, DeviceError>) -> Result<T, SinkError> {
        result.map_err(|error| match error {
            DeviceError::Staging(error) => error,
            error => {
                let refusal = SinkError::storage("write to the device", std::io::Error::other("refused"));
                self.refused = Some(error);
                refusal
            }
        })
    }
}

impl<D: Device> Sink for DeviceSink<'_, D> {
    async fn reserve(&mut self, object: &Resume) -> Result<(), SinkError> {
        // Not synced: after a power cut without it the transfer begins at zero, and that is all.
        let phase = Phase::Downloading { digest: self.digest, resume: object.clone() };
        if let Err(error) = self.dispatcher.save(phase) {
            tracing::warn!(%error, "this transfer would not go on after a restart");
        }
        let Some(total) = object.total else { return Ok(()) };
        let result = self.dispatcher.device.reserve(total).await;
        self.keep(result)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), SinkError> {
        let length = bytes.len() as u64;
        let result = self.dispatcher.device.write(bytes).await;
        self.keep(result)?;
        self.position += length;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        let result = self.dispatcher.device.restart().await;
        self.keep(result)?;
        self.position = 0;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }
}
