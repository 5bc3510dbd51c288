use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{DEVICE_POLICY_NAME, Identity};
use crate::engine::ApiError;

struct Cloud(Identity);

impl Cloud {
    fn new() -> Self {
        Self(Identity::new("eu-west-1", "123456789012", &[]).unwrap())
    }

    fn call(&self, op: &str, params: &[(&str, &str)], body: Value) -> Result<Value, ApiError> {
        let params: BTreeMap<_, _> = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.0.control(1_700_000_000, op, &params, &body).expect("an operation of this room")
    }

    fn ok(&self, op: &str, params: &[(&str, &str)], body: Value) -> Value {
        self.call(op, params, body).unwrap_or_else(|error| panic!("{op}: {error}"))
    }

    fn error(&self, op: &str, params: &[(&str, &str)], body: Value) -> (u16, &'static str) {
        let error = self.call(op, params, body).unwrap_err();
        (error.http, error.kind)
    }
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_else(|| panic!("{member} in {value}"))
}

#[test]
fn a_certificate_from_birth_to_death() {
    let cloud = Cloud::new();
    let made = cloud.ok("CreateKeysAndCertificate", &[("setAsActive", "true")], json!({}));
    let (id, arn) = (text(&made, "certificateId"), text(&made, "certificateArn"));
    assert_eq!(id.len(), 64);
    assert_eq!(arn, format!("arn:aws:iot:eu-west-1:123456789012:cert/{id}"));
    assert!(text(&made["keyPair"], "PrivateKey").starts_with("-----BEGIN PRIVATE KEY-----"));
    assert!(text(&made["keyPair"], "PublicKey").starts_with("-----BEGIN PUBLIC KEY-----"));

    let (with_id, with_arn) = ([("certificateId", id)], [("thingName", "lamp"), ("principal", arn)]);
    let attach = [("policyName", DEVICE_POLICY_NAME)];
    cloud.ok("AttachPolicy", &attach, json!({ "target": arn }));
    cloud.ok("AttachThingPrincipal", &with_arn, Value::Null);
    assert_eq!(
        cloud.ok("ListThingPrincipals", &[("thingName", "lamp")], Value::Null),
        json!({ "principals": [arn] })
    );
    assert_eq!(cloud.0.principals_of("lamp"), [arn]);
    let attached = cloud.ok("ListAttachedPolicies", &[("target", arn)], Value::Null);
    assert_eq!(attached["policies"][0]["policyName"], DEVICE_POLICY_NAME);
    assert_eq!(
        cloud.ok("DescribeCertificate", &with_id, Value::Null)["certificateDescription"]["status"],
        "ACTIVE"
    );

    let conflict = (409, "DeleteConflictException");
    assert_eq!(cloud.error("DeletePolicy", &attach, Value::Null), conflict);
    assert_eq!(cloud.error("DeleteCertificate", &with_id, Value::Null), (406, "CertificateStateException"));
    cloud.ok("UpdateCertificate", &[("certificateId", id), ("newStatus", "INACTIVE")], Value::Null);
    assert_eq!(cloud.error("DeleteCertificate", &with_id, Value::Null), conflict);
    cloud.ok("DetachThingPrincipal", &with_arn, Value::Null);
    assert_eq!(cloud.error("DeleteCertificate", &with_id, Value::Null), conflict);
    cloud.ok("DeleteCertificate", &[("certificateId", id), ("forceDelete", "true")], Value::Null);
    assert_eq!(cloud.error("DescribeCertificate", &with_id, Value::Null), (404, "ResourceNotFoundException"));
}

#[test]
fn a_request_signed_here_cannot_become_an_authority() {
    let cloud = Cloud::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let made = cloud.ok(
        "CreateCertificateFromCsr",
        &[("setAsActive", "true")],
        json!({ "certificateSigningRequest": request }),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("certificate.pem");
    std::fs::write(&file, text(&made, "certificatePem")).unwrap();
    let shown = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg(&file)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("CA:FALSE") && !shown.contains("CA:TRUE"), "{shown}");
    assert!(!shown.contains("evil.example"), "{shown}");

    for bad in ["", "not a request", &"x".repeat(5000)] {
        let refused =
            cloud.error("CreateCertificateFromCsr", &[], json!({ "certificateSigningRequest": bad }));
        assert_eq!(refused, (400, "InvalidRequestException"));
    }
}

#[test]
fn policies() {
    let cloud = Cloud::new();
    let document = r#"{"Version":"2012-10-17","Statement":[]}"#;
    let named = [("policyName", "p")];
    let made = cloud.ok("CreatePolicy", &named, json!({ "policyDocument": document }));
    assert_eq!(made["policyArn"], "arn:aws:iot:eu-west-1:123456789012:policy/p");
    assert_eq!(cloud.ok("GetPolicy", &named, Value::Null)["policyDocument"], document);
    for (params, body, expected) in [
        ([("policyName", "p")], document, (409, "ResourceAlreadyExistsException")),
        ([("policyName", "q")], "{}", (400, "MalformedPolicyException")),
        ([("policyName", "a b")], document, (400, "InvalidRequestException")),
    ] {
        assert_eq!(cloud.error("CreatePolicy", &params, json!({ "policyDocument": body })), expected);
    }
    cloud.ok("DeletePolicy", &named, Value::Null);
    assert_eq!(cloud.error("GetPolicy", &named, Value::Null), (404, "ResourceNotFoundException"));
}

#[test]
fn pages_of_certificates() {
    let cloud = Cloud::new();
    for _ in 0..5 {
        cloud.ok("CreateKeysAndCertificate", &[], json!({}));
    }
    let mut seen = Vec::new();
    let mut marker = String::new();
    loop {
        let page = cloud.ok("ListCertificates", &[("pageSize", "2"), ("marker", &marker)], Value::Null);
        let certificates = page["certificates"].as_array().unwrap();
        assert!(certificates.len() <= 2);
        seen.extend(certificates.iter().map(|found| text(found, "certificateId").to_owned()));
        match page["nextMarker"].as_str() {
            Some(next) => marker = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[test]
fn everything_comes_back_from_the_store() {
    let cloud = Cloud::new();
    let files = cloud.0.create_for_thing(1, "lamp").unwrap();
    cloud.ok(
        "CreatePolicy",
        &[("policyName", "p")],
        json!({ "policyDocument": r#"{"Version":"2012-10-17","Statement":[]}"# }),
    );
    cloud.ok(
        "CreatePolicy",
        &[("policyName", "gone")],
        json!({ "policyDocument": r#"{"Version":"2012-10-17","Statement":[]}"# }),
    );
    cloud.ok("DeletePolicy", &[("policyName", "gone")], Value::Null);
    let rows: Vec<_> = cloud.0.take_changes();
    assert!(cloud.0.take_changes().is_empty());

    let again = Cloud::new();
    assert_ne!(again.0.ca_pem(), files.ca_pem, "another authority until it is loaded");
    let rows = rows.into_iter().filter_map(|row| Some((row.kind.to_owned(), row.key, row.value?)));
    again.0.load(rows).unwrap();
    assert_eq!(again.0.ca_pem(), files.ca_pem);
    assert_eq!(again.0.principals_of("lamp").len(), 1);
    again.ok("GetPolicy", &[("policyName", "p")], Value::Null);
    assert_eq!(again.error("GetPolicy", &[("policyName", "gone")], Value::Null).0, 404);
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(files.certificate_pem.as_bytes());
    let der: rustls::pki_types::CertificateDer = der.unwrap();
    let principal = again.0.principal(&der).expect("known after the restart");
    assert!(principal.things.contains("lamp"));
    assert_eq!(principal.documents.len(), 1);
}

#[test]
fn who_is_told_of_a_certificate_that_ends() {
    let cloud = Cloud::new();
    let (tell, told) = std::sync::mpsc::channel();
    cloud.0.on_revoked(move |id| tell.send(id.to_owned()).unwrap());
    let files = cloud.0.create_for_thing(1, "lamp").unwrap();
    let id = [("certificateId", &*files.certificate_id)];
    cloud.ok("UpdateCertificate", &[id[0], ("newStatus", "ACTIVE")], Value::Null);
    assert!(told.try_recv().is_err(), "still active");
    cloud.ok("UpdateCertificate", &[id[0], ("newStatus", "REVOKED")], Value::Null);
    assert_eq!(told.try_recv().unwrap(), files.certificate_id);
}
