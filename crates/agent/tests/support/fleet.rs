//! What an operator prepares at the cloud so that devices get their certificates by themselves.

use std::path::Path;

use serde_json::{Value, json};

use super::cloud::{Cloud, arn};
use super::{Device, THING};

pub const ROLE: &str = "arn:aws:iam::123456789012:role/provisioning";

/// A policy that allows what a device asks of fleet provisioning with this template.
pub fn allow_provisioning(cloud: &Cloud, name: &str, template: &str) {
    let topics = [
        "$aws/certificates/create-from-csr/*".to_owned(),
        format!("$aws/provisioning-templates/{template}/provision/*"),
    ];
    let resources = |kind: &str| topics.each_ref().map(|topic| arn(&format!("{kind}/{topic}")));
    let allow =
        |action: Value, resource: Value| json!({"Effect": "Allow", "Action": action, "Resource": resource});
    let document = json!({"Version": "2012-10-17", "Statement": [
        allow(json!("iot:Connect"), json!("*")),
        allow(json!(["iot:Publish", "iot:Receive"]), json!(resources("topic"))),
        allow(json!("iot:Subscribe"), json!(resources("topicfilter"))),
    ]});
    let body = json!({"policyDocument": document.to_string()});
    cloud.done("CreatePolicy", json!({"policyName": name}), body);
}

/// A template whose thing is called `edge-` and the parameter `SerialNumber`, or by the parameter `ThingName`.
pub fn create_template(cloud: &Cloud, name: &str, status: &str, policies: &[&str]) {
    let policy = |policy: &str| json!({"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy}});
    let id = json!({"Ref": "AWS::IoT::Certificate::Id"});
    let mut body = json!({
        "Parameters": {
            "SerialNumber": {"Type": "String", "Default": ""},
            "ThingName": {"Type": "String", "Default": ""},
        },
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "ThingName"}}},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": id, "Status": status},
            },
        },
    });
    if name == "factory" {
        body["Resources"]["thing"]["Properties"]["ThingName"] = json!({"Fn::Sub": "edge-${SerialNumber}"});
    }
    for name in policies {
        body["Resources"][format!("policy-{name}")] = policy(name);
    }
    let order = json!({
        "templateName": name, "templateBody": body.to_string(), "provisioningRoleArn": ROLE, "enabled": true,
    });
    cloud.done("CreateProvisioningTemplate", json!({}), order);
}

/// An ACTIVE certificate with this policy alone, in two files. Its id.
pub fn create_claim(cloud: &Cloud, policy: &str, certificate: &Path, key: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let made = cloud.done("CreateKeysAndCertificate", json!({"setAsActive": "true"}), Value::Null);
    let target = json!({"target": made["certificateArn"]});
    cloud.done("AttachPolicy", json!({"policyName": policy}), target);
    std::fs::write(certificate, made["certificatePem"].as_str().unwrap()).unwrap();
    std::fs::write(key, made["keyPair"]["PrivateKey"].as_str().unwrap()).unwrap();
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o600)).unwrap();
    made["certificateId"].as_str().unwrap().to_owned()
}

/// A device that has a claim and nothing else: not even a name. The claim's id, too.
pub fn unprovisioned(cloud: &Cloud) -> (Device, String) {
    allow_provisioning(cloud, "claim", "factory");
    create_template(cloud, "factory", "Active", &["fleethand-device"]);
    let device = Device::create_named(cloud, "somebody");
    device.meters.differ("the cloud knows a device with a claim by other names");
    let claim = create_claim(cloud, "claim", &device.path("claim.pem"), &device.path("claim.key"));
    for file in ["certificate.pem", "private.key"] {
        std::fs::remove_file(device.path(file)).unwrap();
    }
    configure_claim(&device, "claim.pem", "claim.key");
    (device, claim)
}

/// Instead of a name, a certificate and a key of its own.
pub fn configure_claim(device: &Device, certificate: &str, key: &str) {
    let text = String::from_utf8(device.read("fleethand.toml")).unwrap();
    let own =
        |line: &&str| !["thing_name", "certificate", "private_key"].iter().any(|key| line.starts_with(key));
    let text: String = text.lines().filter(own).map(|line| format!("{line}\n")).collect();
    device.write("fleethand.toml", text);
    device.configure(
        "provisioning",
        &format!(
            "template = \"factory\"\nclaim_certificate = \"{certificate}\"\nclaim_private_key = \"{key}\"\n\
             parameters = {{ SerialNumber = {{ command = [\"/bin/echo\", \"01\"] }} }}"
        ),
    );
}

/// Every thing's certificate may do all of that, from the first on: a claim and a device are one and the same here.
pub fn allow_everything(cloud: &Cloud) {
    let name = json!({"policyName": "fleethand-device"});
    cloud.done("DeletePolicy", name.clone(), Value::Null);
    let all = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "iot:*", "Resource": "*"},
    ]});
    cloud.done("CreatePolicy", name, json!({"policyDocument": all.to_string()}));
    create_template(cloud, "factory", "Active", &["fleethand-device"]);
    create_template(cloud, "rotation", "Active", &["fleethand-device"]);
}

/// The thing's device may ask for another certificate, with the template `rotation`.
pub fn allow_rotation(cloud: &Cloud, status: &str) {
    allow_provisioning(cloud, "rotation", "rotation");
    create_template(cloud, "rotation", status, &["fleethand-device", "rotation"]);
    for principal in principals(cloud) {
        cloud.done("AttachPolicy", json!({"policyName": "rotation"}), json!({"target": principal}));
    }
}

/// The ARNs of the thing's certificates.
pub fn principals(cloud: &Cloud) -> Vec<String> {
    let answer = cloud.done("ListThingPrincipals", json!({"thingName": THING}), Value::Null);
    let all = answer["principals"].as_array().unwrap().iter();
    all.map(|arn| arn.as_str().unwrap().to_owned()).collect()
}

pub fn deactivate(cloud: &Cloud, arn: &str) {
    let id = arn.rsplit('/').next().unwrap();
    cloud.done("UpdateCertificate", json!({"certificateId": id, "newStatus": "INACTIVE"}), Value::Null);
}
