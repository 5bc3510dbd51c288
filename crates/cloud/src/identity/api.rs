//! The REST operations on certificates and policies, with AWS's names, members and errors.

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use super::authority::Issued;
use super::cognito;
use super::registry::{Certificate, Registry, Status, fingerprint};
use crate::engine::ApiError;

pub(super) type Answer = Result<Value, ApiError>;

const CSR_MAX: usize = 4096;
const POLICY_MAX: usize = 2048;
const PAGE: usize = 25;

/// One call: its members, wherever they came from, and what ARNs are made of.
pub(super) struct Call<'a> {
    pub(super) now: i64,
    pub(super) region: &'a str,
    pub(super) account: &'a str,
    pub(super) params: &'a BTreeMap<String, String>,
    pub(super) body: &'a Value,
}

impl Call<'_> {
    pub(super) fn run(&self, op: &str, registry: &mut Registry) -> Option<Answer> {
        Some(match op {
            "CreateKeysAndCertificate" => self.create_keys_and_certificate(registry),
            "CreateCertificateFromCsr" => self.create_certificate_from_csr(registry),
            "RegisterCertificate" | "RegisterCertificateWithoutCA" => self.register_certificate(registry),
            "DescribeCertificate" => self.describe_certificate(registry),
            "ListCertificates" => self.list_certificates(registry),
            "UpdateCertificate" => self.update_certificate(registry),
            "DeleteCertificate" => self.delete_certificate(registry),
            "AttachThingPrincipal" => self.thing_principal(registry, true),
            "DetachThingPrincipal" => self.thing_principal(registry, false),
            "ListThingPrincipals" => self.list_thing_principals(registry),
            "ListPrincipalThings" => self.list_principal_things(registry),
            "CreatePolicy" => self.create_policy(registry),
            "GetPolicy" => self.get_policy(registry),
            "ListPolicies" => Ok(json!({ "policies": self.summaries(registry.policies.keys()) })),
            "DeletePolicy" => self.delete_policy(registry),
            "AttachPolicy" | "AttachPrincipalPolicy" => self.attach_policy(registry, true),
            "DetachPolicy" | "DetachPrincipalPolicy" => self.attach_policy(registry, false),
            "ListAttachedPolicies" | "ListPrincipalPolicies" => self.list_attached_policies(registry),
            "ListTargetsForPolicy" => self.list_targets(registry),
            _ => return self.role_alias(op, registry).or_else(|| self.run_on_templates(op, registry)),
        })
    }

    fn create_keys_and_certificate(&self, registry: &mut Registry) -> Answer {
        let (issued, private) = registry.authority.issue().map_err(|error| internal(&error))?;
        let public = rcgen::KeyPair::from_pem(&private).map_err(|error| internal(&error))?.public_key_pem();
        let answer = self.add(registry, &issued, self.initial_status());
        Ok(with(answer, json!({ "keyPair": { "PublicKey": public, "PrivateKey": private } })))
    }

    fn create_certificate_from_csr(&self, registry: &mut Registry) -> Answer {
        let request = self.required("certificateSigningRequest")?;
        if request.len() > CSR_MAX {
            return Err(invalid(format!("certificateSigningRequest is longer than {CSR_MAX} characters")));
        }
        let issued = registry
            .authority
            .issue_from_request(request)
            .map_err(|error| invalid(format!("certificateSigningRequest cannot be used: {error}")))?;
        Ok(self.add(registry, &issued, self.initial_status()))
    }

    fn register_certificate(&self, registry: &mut Registry) -> Answer {
        let pem = self.required("certificatePem")?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| api(400, "CertificateValidationException", error.to_string()))?;
        let id = fingerprint(&der);
        if registry.certificates.contains_key(&id) {
            return Err(already_exists(
                format!("The certificate {id} is already registered"),
                &id,
                &self.certificate_arn(&id),
            ));
        }
        let status = match self.get("status") {
            Some(status) => parse_status(status)?,
            None => self.initial_status(),
        };
        let issued = Issued { certificate_pem: pem.to_owned(), certificate_der: der.to_vec() };
        let mut answer = self.add(registry, &issued, status);
        if let Some(members) = answer.as_object_mut() {
            members.remove("certificatePem");
        }
        Ok(answer)
    }

    fn add(&self, registry: &mut Registry, issued: &Issued, status: Status) -> Value {
        let id = registry.add_certificate(issued, status, self.now);
        json!({
            "certificateArn": self.certificate_arn(&id),
            "certificateId": id,
            "certificatePem": issued.certificate_pem,
        })
    }

    fn describe_certificate(&self, registry: &Registry) -> Answer {
        let id = self.required("certificateId")?;
        let certificate = find(registry, id)?;
        let more = json!({
            "certificatePem": certificate.pem,
            "ownedBy": self.account,
            "lastModifiedDate": certificate.modified,
            "customerVersion": 1,
        });
        Ok(json!({ "certificateDescription": with(self.summary(id, certificate), more) }))
    }

    fn summary(&self, id: &str, certificate: &Certificate) -> Value {
        json!({
            "certificateArn": self.certificate_arn(id),
            "certificateId": id,
            "status": certificate.status,
            "certificateMode": "DEFAULT",
            "creationDate": certificate.created,
        })
    }

    fn list_certificates(&self, registry: &Registry) -> Answer {
        let size = self.get("pageSize").and_then(|size| size.parse().ok()).unwrap_or(PAGE).clamp(1, 250);
        let after = self.get("marker").unwrap_or_default();
        let mut rest = registry.certificates.iter().filter(|(id, _)| id.as_str() > after);
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let certificates: Vec<_> = page.iter().map(|(id, found)| self.summary(id, found)).collect();
        let answer = json!({ "certificates": certificates });
        Ok(match (page.last(), rest.next()) {
            (Some((last, _)), Some(_)) => with(answer, json!({ "nextMarker": last })),
            _ => answer,
        })
    }

    fn update_certificate(&self, registry: &mut Registry) -> Answer {
        let id = self.required("certificateId")?;
        let status = parse_status(self.required("newStatus")?)?;
        find(registry, id)?;
        registry.change_certificate(id, self.now, |certificate| certificate.status = status);
        Ok(json!({}))
    }

    fn delete_certificate(&self, registry: &mut Registry) -> Answer {
        let id = self.required("certificateId")?;
        let certificate = find(registry, id)?;
        if certificate.status == Status::Active {
            let message = format!("Certificate must be deactivated (not ACTIVE) before deletion. Id: {id}");
            return Err(api(406, "CertificateStateException", message));
        }
        let force = self.get("forceDelete") == Some("true");
        if !certificate.things.is_empty() || (!force && !certificate.policies.is_empty()) {
            let kind = if certificate.things.is_empty() { "policies" } else { "things" };
            return Err(api(
                409,
                "DeleteConflictException",
                format!("Certificate {kind} must be detached before deletion. Id: {id}"),
            ));
        }
        registry.remove_certificate(id);
        Ok(json!({}))
    }

    fn thing_principal(&self, registry: &mut Registry, attach: bool) -> Answer {
        let thing = self.required("thingName")?;
        let id = self.principal(registry)?;
        registry.change_certificate(&id, self.now, |certificate| {
            if attach {
                certificate.things.insert(thing.to_owned());
            } else {
                certificate.things.remove(thing);
            }
        });
        Ok(json!({}))
    }

    fn list_thing_principals(&self, registry: &Registry) -> Answer {
        let thing = self.required("thingName")?;
        let arns: Vec<_> = registry.certificates_of(thing).map(|id| self.certificate_arn(id)).collect();
        Ok(json!({ "principals": arns }))
    }

    fn list_principal_things(&self, registry: &Registry) -> Answer {
        let id = self.principal(registry)?;
        Ok(json!({ "things": find(registry, &id)?.things }))
    }

    fn create_policy(&self, registry: &mut Registry) -> Answer {
        let name = self.required("policyName")?;
        let text = self.required("policyDocument")?;
        let legal = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        if name.len() > 128 || !name.chars().all(legal) {
            return Err(invalid(format!("policyName {name:?} must match [\\w+=,.@-]{{1,128}}")));
        }
        if registry.policies.contains_key(name) {
            let message = format!("Policy cannot be created - name already exists (name={name})");
            return Err(already_exists(message, name, &self.policy_arn(name)));
        }
        if text.chars().filter(|c| !c.is_whitespace()).count() > POLICY_MAX {
            return Err(api(
                400,
                "MalformedPolicyException",
                format!("Policy document is longer than {POLICY_MAX} characters"),
            ));
        }
        registry.put_policy(name, text, self.now).map_err(|error| {
            api(400, "MalformedPolicyException", format!("Policy document is malformed: {error}"))
        })?;
        Ok(json!({
            "policyName": name,
            "policyArn": self.policy_arn(name),
            "policyDocument": text,
            "policyVersionId": "1",
        }))
    }

    fn get_policy(&self, registry: &Registry) -> Answer {
        let name = self.policy(registry)?;
        let found = registry.policies.get(name).ok_or_else(|| no_policy(name))?;
        Ok(json!({
            "policyName": name,
            "policyArn": self.policy_arn(name),
            "policyDocument": found.text,
            "defaultVersionId": "1",
            "creationDate": found.created,
            "lastModifiedDate": found.created,
        }))
    }

    fn delete_policy(&self, registry: &mut Registry) -> Answer {
        let name = self.policy(registry)?;
        if registry.certificates.values().any(|certificate| certificate.policies.contains(name)) {
            let message = format!(
                "The policy cannot be deleted as the policy is attached to one or more principals (name={name})"
            );
            return Err(api(409, "DeleteConflictException", message));
        }
        registry.remove_policy(name);
        Ok(json!({}))
    }

    fn attach_policy(&self, registry: &mut Registry, attach: bool) -> Answer {
        let name = self.policy(registry)?;
        if self.get("target").is_some_and(|target| cognito::attach(registry, target, name, attach)) {
            return Ok(json!({}));
        }
        let id = self.principal(registry)?;
        registry.change_certificate(&id, self.now, |certificate| {
            if attach {
                certificate.policies.insert(name.to_owned());
            } else {
                certificate.policies.remove(name);
            }
        });
        Ok(json!({}))
    }

    fn list_attached_policies(&self, registry: &Registry) -> Answer {
        let id = self.principal(registry)?;
        Ok(json!({ "policies": self.summaries(find(registry, &id)?.policies.iter()) }))
    }

    fn list_targets(&self, registry: &Registry) -> Answer {
        let name = self.policy(registry)?;
        let attached = registry.certificates.iter().filter(|(_, found)| found.policies.contains(name));
        Ok(json!({ "targets": attached.map(|(id, _)| self.certificate_arn(id)).collect::<Vec<_>>() }))
    }

    fn summaries<'n>(&self, names: impl Iterator<Item = &'n String>) -> Vec<Value> {
        names.map(|name| json!({ "policyName": name, "policyArn": self.policy_arn(name) })).collect()
    }

    pub(super) fn get(&self, member: &str) -> Option<&str> {
        self.params.get(member).map(String::as_str).or_else(|| self.body.get(member)?.as_str())
    }

    pub(super) fn required(&self, member: &str) -> Result<&str, ApiError> {
        self.get(member)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| invalid(format!("{member} is required")))
    }

    fn initial_status(&self) -> Status {
        if self.get("setAsActive") == Some("true") { Status::Active } else { Status::Inactive }
    }

    fn policy(&self, registry: &Registry) -> Result<&str, ApiError> {
        let name = self.required("policyName")?;
        registry.policies.contains_key(name).then_some(name).ok_or_else(|| no_policy(name))
    }

    /// The id of the certificate that `principal` (a header at AWS) or `target` names by its ARN.
    fn principal(&self, registry: &Registry) -> Result<String, ApiError> {
        let named = ["principal", "x-amzn-principal", "x-amzn-iot-principal", "target"];
        let arn = named
            .iter()
            .find_map(|member| self.get(member))
            .ok_or_else(|| invalid("principal is required".to_owned()))?;
        let id = arn.rsplit_once("cert/").map_or(arn, |(_, id)| id);
        find(registry, id).map(|_| id.to_owned())
    }

    fn certificate_arn(&self, id: &str) -> String {
        format!("arn:aws:iot:{}:{}:cert/{id}", self.region, self.account)
    }

    fn policy_arn(&self, name: &str) -> String {
        format!("arn:aws:iot:{}:{}:policy/{name}", self.region, self.account)
    }
}

/// An object with the members of another.
pub(super) fn with(mut object: Value, more: Value) -> Value {
    if let (Some(members), Value::Object(more)) = (object.as_object_mut(), more) {
        members.extend(more);
    }
    object
}

fn find<'r>(registry: &'r Registry, id: &str) -> Result<&'r Certificate, ApiError> {
    registry.certificates.get(id).ok_or_else(|| {
        api(
            404,
            "ResourceNotFoundException",
            format!("The certificate given in the principal does not exist. Id: {id}"),
        )
    })
}

fn no_policy(name: &str) -> ApiError {
    api(404, "ResourceNotFoundException", format!("Policy not found (name={name})"))
}

fn parse_status(text: &str) -> Result<Status, ApiError> {
    match text {
        "ACTIVE" => Ok(Status::Active),
        "INACTIVE" => Ok(Status::Inactive),
        "REVOKED" => Ok(Status::Revoked),
        other => Err(invalid(format!("status {other:?} must be ACTIVE, INACTIVE or REVOKED"))),
    }
}

pub(super) fn api(http: u16, kind: &'static str, message: String) -> ApiError {
    ApiError { http, kind, message, extra: Map::new() }
}

pub(super) fn invalid(message: String) -> ApiError {
    api(400, "InvalidRequestException", message)
}

fn internal(error: &rcgen::Error) -> ApiError {
    api(500, "InternalFailureException", error.to_string())
}

pub(super) fn already_exists(message: String, id: &str, arn: &str) -> ApiError {
    let extra =
        Map::from_iter([("resourceId".to_owned(), json!(id)), ("resourceArn".to_owned(), json!(arn))]);
    ApiError { extra, ..api(409, "ResourceAlreadyExistsException", message) }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
