//! Fleet provisioning by MQTT: what a device asks for with its claim certificate, or with the certificate that it is to
//! replace. What concerns things is the engine's, and done by the hub with the plan that comes out of here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Identity;
use super::registry::{Registry, Status};
use super::template::{Plan, PolicyPlan};

/// A certificate that was not registered by then is deleted.
const TOKEN_SECONDS: i64 = 3600;

/// Whoever has the token may register the certificate, once.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Ownership {
    token: String,
    expires: i64,
}

/// A request by its topic, without `/json`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask<'t> {
    CreateFromCsr,
    CreateKeys,
    Register { template: &'t str },
}

/// As `…/rejected` has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rejected {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// A registration that is allowed, and not done yet.
pub(crate) struct Registration {
    pub(crate) certificate_id: String,
    pub(crate) plan: Plan,
}

impl Rejected {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    pub(crate) fn payload(&self) -> Value {
        json!({"statusCode": self.status, "errorCode": self.code, "errorMessage": self.message})
    }
}

/// What a topic asks for, and in which format.
pub(crate) fn ask(topic: &str) -> Option<(Ask<'_>, &str)> {
    let mut levels = topic.strip_prefix("$aws/")?.split('/');
    let (ask, format) = match (levels.next()?, levels.next()?, levels.next()?) {
        ("certificates", "create-from-csr", format) => (Ask::CreateFromCsr, format),
        ("certificates", "create", format) => (Ask::CreateKeys, format),
        ("provisioning-templates", template, "provision") => (Ask::Register { template }, levels.next()?),
        _ => return None,
    };
    (levels.next().is_none() && ["json", "cbor"].contains(&format)).then_some((ask, format))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateFromCsr {
    certificate_signing_request: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Register {
    certificate_ownership_token: String,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

impl Identity {
    /// A certificate that waits for its registration.
    pub(crate) fn create_pending(&self, now: i64, ask: &Ask<'_>, payload: &[u8]) -> Result<Value, Rejected> {
        let mut registry = self.registry();
        registry.forget_unregistered(now);
        let (issued, private_key) = if let Ask::CreateFromCsr = ask {
            let request: CreateFromCsr = parsed(payload)?;
            let issued = registry.authority.issue_from_request(&request.certificate_signing_request);
            let issued = issued.map_err(|error| {
                let message = format!("The certificate signing request cannot be used: {error}");
                Rejected::new(400, "InvalidCertificateSigningRequest", message)
            })?;
            (issued, None)
        } else {
            let made = registry.authority.issue();
            let (issued, key) =
                made.map_err(|error| Rejected::new(500, "InternalError", error.to_string()))?;
            (issued, Some(key))
        };
        let id = registry.add_certificate(&issued, Status::PendingActivation, now);
        let token = format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
        let ownership = Ownership { token: token.clone(), expires: now + TOKEN_SECONDS };
        registry.change_certificate(&id, now, |certificate| certificate.ownership = Some(ownership));
        let mut answer = json!({
            "certificateId": id,
            "certificatePem": issued.certificate_pem,
            "certificateOwnershipToken": token,
        });
        if let (Some(key), Some(members)) = (private_key, answer.as_object_mut()) {
            members.insert("privateKey".to_owned(), key.into());
        }
        Ok(answer)
    }

    /// What RegisterThing comes to. Nothing has changed.
    pub(crate) fn plan_registration(
        &self,
        now: i64,
        template: &str,
        payload: &[u8],
    ) -> Result<Registration, Rejected> {
        let mut registry = self.registry();
        registry.forget_unregistered(now);
        let request: Register = parsed(payload)?;
        let missing =
            || Rejected::new(404, "ResourceNotFound", format!("Template {template} does not exist"));
        let stored = registry.templates.get(template).ok_or_else(missing)?;
        if !stored.enabled {
            return Err(Rejected::new(400, "InvalidRequest", format!("Template {template} is not enabled")));
        }
        let owned = |token: &Ownership| token.token == request.certificate_ownership_token;
        let found =
            registry.certificates.iter().find(|(_, found)| found.ownership.as_ref().is_some_and(owned));
        let (certificate_id, _) = found.ok_or_else(|| {
            let message = "The certificate ownership token is not valid";
            Rejected::new(400, "InvalidCertificateOwnershipToken", message)
        })?;
        let invalid = |message: String| Rejected::new(400, "InvalidParameters", message);
        let plan = stored
            .template()
            .and_then(|template| template.plan(&request.parameters, certificate_id))
            .map_err(invalid)?;
        for policy in &plan.policies {
            match policy {
                PolicyPlan::Named(name) if !registry.policies.contains_key(name) => {
                    return Err(invalid(format!("Policy {name} does not exist")));
                }
                PolicyPlan::Document(text) => super::policy::Document::parse(text)
                    .map(drop)
                    .map_err(|error| invalid(format!("PolicyDocument: {error}")))?,
                PolicyPlan::Named(_) => {}
            }
        }
        Ok(Registration { certificate_id: certificate_id.clone(), plan })
    }

    /// The thing is there: the certificate becomes its own, and the token is used up.
    pub(crate) fn register(&self, now: i64, registration: &Registration) {
        let mut registry = self.registry();
        let Registration { certificate_id, plan } = registration;
        let policies: Vec<_> = plan.policies.iter().map(|policy| registry.policy_of(policy, now)).collect();
        registry.change_certificate(certificate_id, now, |certificate| {
            certificate.status = plan.status;
            certificate.ownership = None;
            certificate.policies.extend(policies);
            certificate.things.extend(plan.thing.iter().map(|thing| thing.name.clone()));
        });
    }
}

impl Registry {
    fn forget_unregistered(&mut self, now: i64) {
        let over = |ownership: &Ownership| ownership.expires <= now;
        let expired =
            self.certificates.iter().filter(|(_, found)| found.ownership.as_ref().is_some_and(over));
        let expired: Vec<_> = expired.map(|(id, _)| id.clone()).collect();
        for id in expired {
            self.remove_certificate(&id);
        }
    }

    /// Its name; a document in a template becomes a policy that is called by its digest.
    fn policy_of(&mut self, policy: &PolicyPlan, now: i64) -> String {
        match policy {
            PolicyPlan::Named(name) => name.clone(),
            PolicyPlan::Document(text) => {
                let name = super::registry::fingerprint(text.as_bytes());
                // It was parsed before.
                let _ = self.put_policy(&name, text, now);
                name
            }
        }
    }
}

fn parsed<'p, T: Deserialize<'p>>(payload: &'p [u8]) -> Result<T, Rejected> {
    serde_json::from_slice(payload)
        .map_err(|error| Rejected::new(400, "InvalidPayload", format!("The payload cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_ask_and_topics_that_do_not() {
        let register = |template| Some((Ask::Register { template }, "json"));
        for (topic, expected) in [
            ("$aws/certificates/create-from-csr/json", Some((Ask::CreateFromCsr, "json"))),
            ("$aws/certificates/create/cbor", Some((Ask::CreateKeys, "cbor"))),
            ("$aws/provisioning-templates/t/provision/json", register("t")),
            ("$aws/provisioning-templates/provision/provision/json", register("provision")),
            ("$aws/provisioning-templates/t/provision/json/accepted", None),
            ("$aws/certificates/create/json/rejected", None),
            ("$aws/certificates/create/xml", None),
            ("$aws/things/t/jobs/get", None),
            ("certificates/create/json", None),
        ] {
            assert_eq!(ask(topic), expected, "{topic}");
        }
    }
}
