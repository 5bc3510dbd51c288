"""AWS's device SDK provisions itself by claim, with a key of its own and with one that the cloud makes.

Usage: provision.py API_URL PORT CA_FILE
"""

import json
import os
import subprocess
import sys
import tempfile

import boto3
from awscrt import mqtt_request_response
import awsiot
from awsiot import iotidentity, mqtt_connection_builder

API, PORT, CA = sys.argv[1:]
WAIT = 10
ACCOUNT = "arn:aws:iot:us-east-1:123456789012:"

iot = boto3.client("iot", endpoint_url=API, region_name="us-east-1",
                   aws_access_key_id="test", aws_secret_access_key="test")


def policy(name, *statements):
    document = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": action, "Resource": [ACCOUNT + resource for resource in resources]}
        for action, *resources in statements]}
    iot.create_policy(policyName=name, policyDocument=json.dumps(document))


CREATE, PROVISION = "$aws/certificates/create*", "$aws/provisioning-templates/factory/provision/json*"
policy("claim",
       ("iot:Connect", "client/*"),
       (["iot:Publish", "iot:Receive"], f"topic/{CREATE}", f"topic/{PROVISION}"),
       ("iot:Subscribe", f"topicfilter/{CREATE}", f"topicfilter/{PROVISION}"))
policy("device", ("iot:Connect", "client/${iot:Connection.Thing.ThingName}"))
claim = iot.create_keys_and_certificate(setAsActive=True)
iot.attach_policy(policyName="claim", target=claim["certificateArn"])
iot.create_thing_group(thingGroupName="lamps")
iot.create_provisioning_template(
    templateName="factory", provisioningRoleArn="arn:aws:iam::123456789012:role/provisioning", enabled=True,
    templateBody=json.dumps({
        "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {
                "ThingName": {"Fn::Join": ["", ["lamp-", {"Ref": "SerialNumber"}]]},
                "AttributePayload": {"serial": {"Ref": "SerialNumber"}}, "ThingGroups": ["lamps"]}},
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
                "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"}},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}},
        },
        "DeviceConfiguration": {"greeting": {"Fn::Sub": "hello ${SerialNumber}"}},
    }))
folder = tempfile.mkdtemp()


def connect(certificate, key, client_id):
    for name, text in (("certificate", certificate), ("key", key)):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)
    link = mqtt_connection_builder.mtls_from_path(
        endpoint="localhost", port=int(PORT), ca_filepath=CA, client_id=client_id, clean_session=True,
        cert_filepath=os.path.join(folder, "certificate"), pri_key_filepath=os.path.join(folder, "key"))
    link.connect().result(WAIT)
    return link


link = connect(claim["certificatePem"], claim["keyPair"]["PrivateKey"], "claim-1")
identity = iotidentity.IotIdentityClientV2(link, mqtt_request_response.ClientOptions(
    max_request_response_subscriptions=6, max_streaming_subscriptions=0, operation_timeout_in_seconds=WAIT))


def register(token, **parameters):
    return identity.register_thing(iotidentity.RegisterThingRequest(
        template_name="factory", certificate_ownership_token=token, parameters=parameters))


def rejected(status, code, future):
    try:
        future.result(WAIT)
    except awsiot.V2ServiceException as error:
        found = error.modeled_error
        assert (found.status_code, found.error_code) == (status, code) and found.error_message, vars(found)
        return
    raise AssertionError(f"not rejected with {code}")


def status(certificate):
    return iot.describe_certificate(certificateId=certificate)["certificateDescription"]["status"]


# A key that never leaves the device
key = os.path.join(folder, "own-key")
csr = subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-subj", "/CN=x", "-keyout", key], check=True, capture_output=True, text=True).stdout
made = identity.create_certificate_from_csr(
    iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=csr)).result(WAIT)
assert status(made.certificate_id) == "PENDING_ACTIVATION"
token = made.certificate_ownership_token
rejected(400, "InvalidParameters", register(token))
rejected(400, "InvalidCertificateOwnershipToken", register("x" + token, SerialNumber="7"))
thing = register(token, SerialNumber="7").result(WAIT)
assert (thing.thing_name, thing.device_configuration) == ("lamp-7", {"greeting": "hello 7"}), vars(thing)
assert status(made.certificate_id) == "ACTIVE"
rejected(400, "InvalidCertificateOwnershipToken", register(token, SerialNumber="7"))
assert iot.describe_thing(thingName="lamp-7")["attributes"] == {"serial": "7"}
assert iot.list_things_in_thing_group(thingGroupName="lamps")["things"] == ["lamp-7"]
assert iot.list_thing_principals(thingName="lamp-7")["principals"] == [ACCOUNT + "cert/" + made.certificate_id]

# A key that the cloud makes
keys = identity.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(WAIT)
thing = register(keys.certificate_ownership_token, SerialNumber="8").result(WAIT)

# What came out of it works, for that thing alone
identity = None
link.disconnect().result(WAIT)
with open(key, encoding="ascii") as own:
    connect(made.certificate_pem, own.read(), "lamp-7").disconnect().result(WAIT)
connect(keys.certificate_pem, keys.private_key, "lamp-8").disconnect().result(WAIT)
try:
    connect(keys.certificate_pem, keys.private_key, "lamp-7")
    raise SystemExit("another thing's certificate was let in")
except Exception as error:  # the SDK's own kind
    assert "AWS_ERROR" in str(error), error
print("ok")
