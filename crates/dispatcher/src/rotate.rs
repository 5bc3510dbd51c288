//! `rotate-certificate`: the device gets another identity, or keeps the one that it has. How that is done is behind a line
//! of its own: only the process with the network has the private key.

use std::collections::BTreeMap;
use std::pin::Pin;

use device::{Device, HaltKind};

use crate::dispatcher::{Context, Dispatcher, Failure};
use crate::journal::ExecutionId;
use crate::operation::{DocumentError, Members, as_string};
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

/// As AWS has them. It also keeps `+`, `#` and `/` out of topics.
pub fn is_template_name(name: &str) -> bool {
    (1..=36).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

pub(crate) fn rotate_certificate(members: &mut Members) -> Result<RotateCertificate, DocumentError> {
    let template = members.optional("template", "1 to 36 of the characters a-z A-Z 0-9 _ -", |v| {
        as_string(v).filter(|name| is_template_name(name))
    })?;
    let parameters = members.optional("parameters", "an object whose members are strings", |v| {
        v.as_object()?.iter().map(|(name, value)| Some((name.clone(), as_string(value)?))).collect()
    })?;
    let certificate = members.optional("certificate", CERTIFICATE, |v| {
        as_string(v).filter(|pem| pem.starts_with(PEM_BEGINS) && pem.len() <= MAX_CERTIFICATE_BYTES)
    })?;
    let from = match (certificate, &template, &parameters) {
        (None, ..) => {
            CertificateSource::Template { name: template, parameters: parameters.unwrap_or_default() }
        }
        (Some(certificate), None, None) => CertificateSource::Document { certificate },
        (Some(_), ..) => {
            let found = "a certificate and a template or parameters".to_owned();
            return Err(DocumentError::Invalid {
                member: "certificate",
                found,
                expected: "one or the other",
            });
        }
    };
    Ok(RotateCertificate { from })
}

pub(crate) const PEM_BEGINS: &str = "-----BEGIN CERTIFICATE-----";
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
const CERTIFICATE: &str = "PEM of at most 16 KiB that begins with -----BEGIN CERTIFICATE-----";

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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::operation::{Operation, Rules};

    fn with(document: &Value, member: &str, value: Value) -> Value {
        let mut document = document.clone();
        document[member] = value;
        document
    }

    #[test]
    fn a_certificate_comes_by_a_template_or_in_the_document() {
        let from = |document: Value| match Operation::parse(&document, &Rules::default()).unwrap().operation {
            Operation::RotateCertificate(order) => order.from,
            other => panic!("{other:?}"),
        };
        let template = |name: Option<&str>, parameters: &[(&str, &str)]| CertificateSource::Template {
            name: name.map(str::to_owned),
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let rotate = json!({"operation": "rotate-certificate"});
        assert_eq!(from(rotate.clone()), template(None, &[]));
        let named = with(&rotate, "template", json!("t-1"));
        assert_eq!(from(named.clone()), template(Some("t-1"), &[]));
        assert_eq!(from(with(&named, "parameters", json!({"a": "b"}))), template(Some("t-1"), &[("a", "b")]));
        let certificate = format!("{PEM_BEGINS}\nx\n");
        let document = CertificateSource::Document { certificate: certificate.clone() };
        assert_eq!(from(with(&rotate, "certificate", json!(certificate))), document);
    }
}
