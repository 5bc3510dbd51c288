//! Another certificate for a device that has one. All or nothing: until the new one has been connected with, and is in
//! force by one step on disk, everything else is as it was.

use std::time::Duration;

use connection::talk::TalkMeter;
use connection::tls::{Uri, client_config};
use device::read_bounded;
use dispatcher::{CertificateSource, ExecutionId, Outcome, Renewing, RotateCertificate};
use tokio::sync::{mpsc, oneshot};

use super::error::Again;
use super::obtain::{Order, obtain};
use super::prove::prove;
use super::store::{About, Generation, Store};
use super::{Error, evaluate};
use crate::config::Settings;
use crate::route::link;

/// How often something is asked that may pass.
const ATTEMPTS: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The template's parameter that says which thing it is for.
const THING_NAME: &str = "ThingName";

/// The loop's connection, for somebody who needs its client id. Given back when `back`'s other end goes.
pub struct Loan {
    pub granted: oneshot::Sender<Generation>,
    pub back: oneshot::Receiver<()>,
}

pub struct Rotation {
    settings: Box<Settings>,
    store: Store,
    meter: TalkMeter,
    loans: mpsc::Sender<Loan>,
}

impl Rotation {
    pub fn new(settings: &Settings, meter: TalkMeter, loans: mpsc::Sender<Loan>) -> Self {
        Self { settings: Box::new(settings.clone()), store: settings.identities(), meter, loans }
    }

    async fn renew(&self, order: &RotateCertificate, made_for: &str) -> Outcome {
        if !self.settings.connection.shows_certificate() {
            let message = "this device connects over a WebSocket, where a new certificate could not be tried";
            return Outcome::failed("not-configured", message);
        }
        let (granted, lent) = oneshot::channel();
        let (_until_the_end, back) = oneshot::channel();
        let asked = self.loans.send(Loan { granted, back }).await.is_ok();
        let Some(current) = (if asked { lent.await.ok() } else { None }) else {
            // The loop has ended, and this with it.
            return std::future::pending().await;
        };
        if is_the_same(order, &current) {
            return Outcome::succeeded("unchanged", "this certificate is in force");
        }
        let mut pause = self.settings.connection.reconnect_min;
        for attempt in 1.. {
            let error = match self.try_once(order, made_for, &current).await {
                Ok(()) => break,
                Err(error) => error,
            };
            let again = match error.again() {
                Again::Outage => true,
                Again::Perhaps => attempt < ATTEMPTS,
                Again::Useless => false,
            };
            if !again {
                self.store.discard();
                return Outcome::failed(error.reason(), error.to_string());
            }
            tracing::warn!(%error, attempt, "the certificate is not replaced yet");
            pause = (pause * 2).min(LONGEST_PAUSE);
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        rotated()
    }

    async fn try_once(
        &self,
        order: &RotateCertificate,
        made_for: &str,
        current: &Generation,
    ) -> Result<(), Error> {
        if current.files.private_key.to_str().is_some_and(Uri::is_one) {
            return Err(Error::KeyInToken);
        }
        let new = match &order.from {
            CertificateSource::Template { name, parameters } => {
                let configured = self.settings.provisioning.rotation_template.as_ref();
                let template = name.as_ref().or(configured).ok_or(Error::NoTemplate)?;
                let thing_name = self.settings.connection.thing_name.clone();
                let mut all = evaluate(&self.settings.provisioning.parameters).await?;
                all.insert(THING_NAME.to_owned(), thing_name.clone());
                all.extend(parameters.clone());
                let order = Order {
                    made_for: made_for.to_owned(),
                    template: template.clone(),
                    parameters: all,
                    thing_name: Some(thing_name),
                };
                let link = link(&self.settings, client_config(&current.files)?);
                obtain(&self.store, &link, &order, &self.meter).await?
            }
            CertificateSource::Document { certificate } => self.take(certificate, made_for, current)?,
        };
        let link = link(&self.settings, client_config(&new.files).map_err(Error::Mismatch)?);
        prove(&link, &self.settings.connection.thing_name, &self.meter).await?;
        self.store.put_in_force(&new)
    }

    /// A certificate that somebody has made for the key that this device has.
    fn take(&self, certificate: &str, made_for: &str, current: &Generation) -> Result<Generation, Error> {
        if let Some(taken) = self.store.pending_for(made_for) {
            return Ok(taken);
        }
        let path = &current.files.private_key;
        let key =
            read_bounded(path).and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
        let key = key.map_err(|source| Error::Storage { path: path.clone(), source })?;
        let thing_name = self.settings.connection.thing_name.clone();
        let about =
            About { thing_name, made_for: made_for.to_owned(), device_configuration: Default::default() };
        self.store.install(certificate, &key, &about)
    }
}

impl dispatcher::Identity for Rotation {
    fn renewed_for(&self, execution: &ExecutionId) -> bool {
        let about = self.store.in_force().and_then(|generation| generation.about);
        about.is_some_and(|about| about.made_for == name_of(execution))
    }

    fn renew<'a>(&'a mut self, order: &'a RotateCertificate, execution: &'a ExecutionId) -> Renewing<'a> {
        Box::pin(async move { Rotation::renew(self, order, &name_of(execution)).await })
    }

    fn discard(&mut self) {
        self.store.discard();
    }
}

fn rotated() -> Outcome {
    Outcome::succeeded("rotated", "the new certificate is in force")
}

/// Job ids and execution numbers may be used again after a deletion.
fn name_of(execution: &ExecutionId) -> String {
    format!("job {} {} {}", execution.job_id, execution.execution_number, execution.queued_at)
}

fn is_the_same(order: &RotateCertificate, current: &Generation) -> bool {
    let CertificateSource::Document { certificate } = &order.from else { return false };
    let in_force = std::fs::read_to_string(&current.files.certificate);
    in_force.is_ok_and(|in_force| in_force.trim() == certificate.trim())
}
