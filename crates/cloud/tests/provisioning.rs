//! Fleet provisioning without a device: what the service answers to what, and until when a token is good.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use serde_json::{Value, json};
use support::Cloud;

const CREATE: &str = "$aws/certificates/create/json";
const REGISTER: &str = "$aws/provisioning-templates/factory/provision/json";

fn template() -> Value {
    let id = json!({"Ref": "AWS::IoT::Certificate::Id"});
    json!({
        "Parameters": {"Name": {"Type": "String"}, "Site": {"Type": "String", "Default": "north"}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {"ThingName": {"Ref": "Name"}, "AttributePayload": {"site": {"Ref": "Site"}}},
                "OverrideSettings": {"AttributePayload": "MERGE"},
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": id, "Status": "Active"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "fleethand-device"}},
        },
    })
}

struct Service {
    cloud: Cloud,
    seen: u64,
}

impl Service {
    fn start(options: &[&str]) -> Self {
        let service = Self { cloud: Cloud::manual(options), seen: 0 };
        service.create("factory", &template());
        service
    }

    fn create(&self, name: &str, template: &Value) {
        let role = "arn:aws:iam::123456789012:role/provisioning";
        let body = json!({
            "templateName": name, "templateBody": template.to_string(), "provisioningRoleArn": role, "enabled": true,
        });
        self.cloud.done("CreateProvisioningTemplate", json!({}), body);
    }

    /// The last level of the topic that it was answered on, and the answer.
    fn ask(&mut self, topic: &str, payload: Value) -> (String, Value) {
        self.cloud.messages(&mut self.seen);
        self.cloud.publish("claim", topic, payload);
        let answers = self.cloud.messages(&mut self.seen);
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };
        let verdict = answer["topic"].as_str().unwrap().strip_prefix(topic).unwrap();
        (verdict.to_owned(), answer["payload"].clone())
    }

    fn accepted(&mut self, topic: &str, payload: Value) -> Value {
        let (verdict, answer) = self.ask(topic, payload);
        assert_eq!(verdict, "/accepted", "{answer}");
        answer
    }

    #[track_caller]
    fn rejected(&mut self, topic: &str, payload: Value, status: u16, code: &str) {
        let (verdict, answer) = self.ask(topic, payload);
        assert_eq!(
            (verdict.as_str(), &answer["statusCode"], &answer["errorCode"]),
            ("/rejected", &json!(status), &json!(code))
        );
        assert_eq!((answer.as_object().unwrap().len(), answer["errorMessage"].is_string()), (3, true));
    }

    fn token(&mut self) -> (String, String) {
        let made = self.accepted(CREATE, json!({}));
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("certificateOwnershipToken"), text("certificateId"))
    }

    fn status(&self, certificate: &str) -> Option<String> {
        let params = json!({"certificateId": certificate});
        let answer = self.cloud.control("DescribeCertificate", &params, None);
        let status = answer.json()["certificateDescription"]["status"].as_str().map(str::to_owned);
        assert_eq!(status.is_none(), answer.status == 404);
        status
    }
}

fn register(token: &str, name: &str) -> Value {
    json!({"certificateOwnershipToken": token, "parameters": {"Name": name}})
}

#[test]
fn a_token_is_good_for_an_hour_and_once() {
    let mut service = Service::start(&[]);
    let (token, certificate) = service.token();
    service.cloud.advance(3599);
    let answer = service.accepted(REGISTER, register(&token, "a"));
    assert_eq!(answer, json!({"thingName": "a", "deviceConfiguration": {}}));
    service.rejected(REGISTER, register(&token, "a"), 400, "InvalidCertificateOwnershipToken");
    assert_eq!(service.status(&certificate).as_deref(), Some("ACTIVE"));

    let (token, certificate) = service.token();
    assert_eq!(service.status(&certificate).as_deref(), Some("PENDING_ACTIVATION"));
    service.cloud.advance(3600);
    service.rejected(REGISTER, register(&token, "a"), 400, "InvalidCertificateOwnershipToken");
    assert_eq!(service.status(&certificate), None);
}

#[test]
fn what_is_rejected_has_changed_nothing() {
    let mut service = Service::start(&[]);
    let (token, certificate) = service.token();
    let csr = |text: &str| json!({"certificateSigningRequest": text});
    let from_csr = "$aws/certificates/create-from-csr/json";
    service.rejected(from_csr, csr("x"), 400, "InvalidCertificateSigningRequest");
    service.rejected(from_csr, json!({}), 400, "InvalidPayload");
    service.rejected(REGISTER, json!({"parameters": {}}), 400, "InvalidPayload");
    service.rejected(REGISTER, register("another", "a"), 400, "InvalidCertificateOwnershipToken");
    service.rejected(REGISTER, json!({"certificateOwnershipToken": token}), 400, "InvalidParameters");
    service.rejected(REGISTER, register(&token, "no name"), 400, "InvalidParameters");
    let other = "$aws/provisioning-templates/other/provision/json";
    service.rejected(other, register(&token, "a"), 404, "ResourceNotFound");
    service.rejected("$aws/certificates/create/cbor", json!({}), 400, "InvalidPayload");
    let disable = json!({"enabled": false});
    service.cloud.done("UpdateProvisioningTemplate", json!({"templateName": "factory"}), disable);
    service.rejected(REGISTER, register(&token, "a"), 400, "InvalidRequest");
    assert_eq!(service.status(&certificate).as_deref(), Some("PENDING_ACTIVATION"));
    let things = service.cloud.done("ListThings", json!({}), Value::Null);
    assert_eq!(things["things"], json!([]));
    // Still good for what is right.
    let enable = json!({"enabled": true});
    service.cloud.done("UpdateProvisioningTemplate", json!({"templateName": "factory"}), enable);
    service.accepted(REGISTER, register(&token, "a"));
}

#[test]
fn a_thing_that_is_there_gets_a_second_certificate_and_keeps_what_its_template_does_not_override() {
    let mut service = Service::start(&[]);
    let body = json!({"attributePayload": {"attributes": {"own": "1", "site": "south"}}});
    service.cloud.done("CreateThing", json!({"thingName": "a"}), body);
    for _ in 0..2 {
        let (token, _) = service.token();
        service.accepted(REGISTER, register(&token, "a"));
    }
    let thing = service.cloud.done("DescribeThing", json!({"thingName": "a"}), Value::Null);
    assert_eq!(thing["attributes"], json!({"own": "1", "site": "north"}));
    let principals = service.cloud.done("ListThingPrincipals", json!({"thingName": "a"}), Value::Null);
    assert_eq!(principals["principals"].as_array().unwrap().len(), 2);

    let mut strict = template();
    strict["Resources"]["thing"]["OverrideSettings"] = json!({"AttributePayload": "FAIL"});
    service.create("strict", &strict);
    let (token, _) = service.token();
    let topic = "$aws/provisioning-templates/strict/provision/json";
    service.rejected(topic, register(&token, "a"), 409, "ResourceConflict");
}

#[test]
fn faults_reject_and_drop_what_devices_ask() {
    let mut service = Service::start(&[]);
    service.cloud.admin("POST", "faults", Some(json!({"fault": "throttle", "topic": CREATE})));
    service.rejected(CREATE, json!({}), 429, "RequestThrottled");
    service.cloud.admin(
        "POST",
        "faults",
        Some(json!({"fault": "drop", "topic": format!("{CREATE}/accepted")})),
    );
    service.cloud.publish("claim", CREATE, json!({}));
    assert!(service.cloud.messages(&mut service.seen).is_empty());
    service.token();
}

#[test]
fn templates_and_tokens_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--data", folder.path().to_str().unwrap()];
    let mut service = Service::start(&options);
    let (token, _) = service.token();
    service.cloud.kill();
    let mut service = Service { cloud: Cloud::manual(&options), seen: 0 };
    service.accepted(REGISTER, register(&token, "a"));
}
