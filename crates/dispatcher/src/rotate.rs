//! `rotate-certificate`: the device gets another identity, or keeps the one that it has. How that is done is behind a line
//! of its own: only the process with the network has the private key.

use std::collections::BTreeMap;
use std::pin::Pin;

use device::{Device, HaltKind};

use crate::dispatcher::{Context, Dispatcher, Failure};
use crate::journal::ExecutionId;
use crate::outcome::{Outcome, Progress};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateCertificate {
    pub from: CertificateSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// A new key, and a certificate for it, by a provisioning template; by the configured one, where none is named.
    Template { name: Option<String>, parameters: BTreeMap<String, String> },
    /// A certificate that somebody has made for the key that the device has, PEM.
    Document { certificate: String },
}

pub type Renewing<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// The device's identity at the cloud. It is in force by one step on disk, and that step knows which execution it was made
/// for: the journal needs no entry of its own.
pub trait Identity {
    /// Is what is in force what this execution was to bring?
    fn renewed_for(&self, execution: &ExecutionId) -> bool;

    /// To its end, all or nothing. It may be dropped at any point.
    fn renew<'a>(&'a mut self, order: &'a RotateCertificate, execution: &'a ExecutionId) -> Renewing<'a>;

    /// What was obtained, and is not in force, is not wanted any more.
    fn discard(&mut self);
}

impl<D: Device> Dispatcher<D> {
    pub(crate) async fn rotate(
        &mut self,
        order: &RotateCertificate,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        let execution = self.entry().map(|entry| entry.execution.clone());
        let (Some(execution), Some(identity)) = (execution, &mut self.identity) else {
            let message = "there is no connection here whose certificate could be replaced";
            return Ok(Outcome::failed("not-configured", message));
        };
        if identity.renewed_for(&execution) {
            return Ok(rotated());
        }
        context.report(Progress::phase("rotating"));
        let outcome = tokio::select! {
            // What is done is done, also when it was withdrawn at the same moment.
            biased;
            outcome = identity.renew(order, &execution) => Some(outcome),
            () = context.halt.halted() => None,
        };
        match outcome {
            Some(outcome) => Ok(outcome),
            None => {
                // A restart goes on with what there is.
                if context.halt.kind() != Some(HaltKind::Stop) {
                    identity.discard();
                }
                Err(Failure::Halted)
            }
        }
    }

    /// A restart has come between the step and its entry in the journal.
    pub(crate) fn was_rotated(&self) -> Option<Outcome> {
        let (entry, identity) = (self.entry()?, self.identity.as_ref()?);
        identity.renewed_for(&entry.execution).then(rotated)
    }
}

fn rotated() -> Outcome {
    Outcome::succeeded("rotated", "the new certificate is in force")
}
