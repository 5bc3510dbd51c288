"""Every operation of the local cloud, called with boto3; each answer is checked against botocore's service model.

Usage: answers.py API_URL
"""

import json
import subprocess
import sys
import tempfile

import boto3
from botocore.exceptions import ClientError

API = sys.argv[1]
ACCOUNT = "arn:aws:iot:us-east-1:123456789012:"

checked = set()
problems = []


def check(shape, value, path):
    """Members known, required ones there, types right, enumerations kept."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            return problems.append(f"{path}: not an object: {value!r}")
        names = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()
                 if member.serialization.get("location") not in ("header", "statusCode")}
        for name in value:
            if name not in names:
                problems.append(f"{path}.{name}: no member of {shape.name}")
            else:
                check(names[name][1], value[name], f"{path}.{name}")
        for name in shape.required_members:
            if name not in value:
                problems.append(f"{path}.{name}: required, and missing")
    elif kind == "list":
        if not isinstance(value, list):
            return problems.append(f"{path}: not a list: {value!r}")
        for at, item in enumerate(value):
            check(shape.member, item, f"{path}[{at}]")
    elif kind == "map":
        if not isinstance(value, dict):
            return problems.append(f"{path}: not a map: {value!r}")
        for key, item in value.items():
            check(shape.key, key, f"{path} key {key}")
            check(shape.value, item, f"{path}.{key}")
    else:
        wanted = {"string": str, "integer": int, "long": int, "boolean": bool, "timestamp": (int, float),
                  "double": (int, float), "float": (int, float), "blob": str}[kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean"):
            problems.append(f"{path}: {value!r} is no {kind}")
        elif kind == "string" and shape.enum and value not in shape.enum:
            problems.append(f"{path}: {value!r} is none of {shape.enum}")
        elif kind == "timestamp" and value > 1e11:
            problems.append(f"{path}: {value!r} are not seconds")


def before_parse(operation_model, response_dict, **_):
    if response_dict["status_code"] >= 300:
        return
    if operation_model.has_streaming_output:
        return checked.add(f"{operation_model.service_model.service_name}:{operation_model.name}")
    body = json.loads(response_dict["body"] or b"{}")
    if operation_model.output_shape is not None:
        check(operation_model.output_shape, body, operation_model.name)
    elif body:
        problems.append(f"{operation_model.name}: {body!r}, and it answers nothing")
    checked.add(f"{operation_model.service_model.service_name}:{operation_model.name}")


def client(service):
    made = boto3.client(service, endpoint_url=API, region_name="us-east-1",
                        aws_access_key_id="test", aws_secret_access_key="test")
    made.meta.events.register("before-parse.*.*", before_parse)
    return made


iot = client("iot")
device = client("iot-jobs-data")
data = client("iot-data")


def refused(code, http_status, call, /, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        if found != (code, http_status):
            problems.append(f"{error.operation_name}: refused with {found}, expected {(code, http_status)}")
    else:
        problems.append(f"{call.__name__} {arguments}: not refused with {code}")


def expect(what, found, wanted):
    if found != wanted:
        problems.append(f"{what}: {found!r}, expected {wanted!r}")


# Things and groups
for name in ("a", "b", "c"):
    iot.create_thing(thingName=name, attributePayload={"attributes": {"site": "north"}})
iot.describe_thing(thingName="a")
iot.update_thing(thingName="a", attributePayload={"attributes": {"site": "south"}, "merge": True})
expect("attributes", iot.describe_thing(thingName="a")["attributes"], {"site": "south"})
iot.list_things(maxResults=2)
things = [thing["thingName"] for page in iot.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 2})
          for thing in page["things"]]
expect("things, page by page", sorted(things), ["a", "b", "c"])
iot.create_thing_group(thingGroupName="fleet", thingGroupProperties={
    "thingGroupDescription": "all", "attributePayload": {"attributes": {"k": "v"}}})
iot.create_thing_group(thingGroupName="part", parentGroupName="fleet")
iot.update_thing_group(thingGroupName="fleet", thingGroupProperties={"thingGroupDescription": "all of them"})
iot.describe_thing_group(thingGroupName="part")
iot.list_thing_groups()
iot.add_thing_to_thing_group(thingGroupName="fleet", thingName="a")
iot.add_thing_to_thing_group(thingGroupArn=ACCOUNT + "thinggroup/fleet", thingArn=ACCOUNT + "thing/b")
expect("members", sorted(iot.list_things_in_thing_group(thingGroupName="fleet")["things"]), ["a", "b"])
iot.list_thing_groups_for_thing(thingName="a")
iot.remove_thing_from_thing_group(thingGroupName="fleet", thingName="b")
refused("ResourceNotFoundException", 404, iot.describe_thing, thingName="none")
refused("ResourceAlreadyExistsException", 409, iot.create_thing, thingName="a")

# The account
for endpoint in ("iot:Data-ATS", "iot:Data", "iot:Jobs", "iot:CredentialProvider"):
    iot.describe_endpoint(endpointType=endpoint)
iot.update_event_configurations(eventConfigurations={"JOB": {"Enabled": True}, "JOB_EXECUTION": {"Enabled": True}})
iot.describe_event_configurations()

# Certificates and policies
certificate = iot.create_keys_and_certificate(setAsActive=True)
with tempfile.TemporaryDirectory() as folder:
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
               "-subj", "/CN=x", "-keyout", f"{folder}/key", "-out", f"{folder}/csr"]
    subprocess.run(command, check=True, capture_output=True)
    with open(f"{folder}/csr", encoding="ascii") as request:
        second = iot.create_certificate_from_csr(certificateSigningRequest=request.read())
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
               "-subj", "/CN=y", "-days", "2", "-keyout", f"{folder}/key", "-out", f"{folder}/crt"]
    subprocess.run(command, check=True, capture_output=True)
    with open(f"{folder}/crt", encoding="ascii") as own:
        iot.register_certificate_without_ca(certificatePem=own.read(), status="ACTIVE")
iot.describe_certificate(certificateId=certificate["certificateId"])
iot.list_certificates()
iot.create_policy(policyName="everything", policyDocument=json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}))
iot.get_policy(policyName="everything")
iot.list_policies()
target = certificate["certificateArn"]
iot.attach_policy(policyName="everything", target=target)
iot.list_attached_policies(target=target)
iot.list_targets_for_policy(policyName="everything")
iot.attach_thing_principal(thingName="a", principal=target)
iot.list_thing_principals(thingName="a")
iot.list_principal_things(principal=target)
refused("InvalidRequestException", 400, iot.delete_thing, thingName="a")
refused("ResourceNotFoundException", 404, iot.attach_thing_principal, thingName="none", principal=target)
iot.detach_thing_principal(thingName="a", principal=target)
iot.detach_policy(policyName="everything", target=target)
iot.attach_principal_policy(policyName="everything", principal=target)
iot.list_principal_policies(principal=target)
iot.detach_principal_policy(policyName="everything", principal=target)
iot.delete_policy(policyName="everything")
iot.update_certificate(certificateId=second["certificateId"], newStatus="INACTIVE")
iot.delete_certificate(certificateId=second["certificateId"])

# Provisioning templates
BODY = json.dumps({"Resources": {"certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
    "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"}}}})
ROLE = "arn:aws:iam::123456789012:role/provisioning"
made = iot.create_provisioning_template(
    templateName="factory", templateBody=BODY, provisioningRoleArn=ROLE, enabled=True, description="at the end of the line",
    preProvisioningHook={"targetArn": "arn:aws:lambda:us-east-1:123456789012:function:check"})
expect("the first version", made["defaultVersionId"], 1)
refused("ResourceAlreadyExistsException", 409, iot.create_provisioning_template,
        templateName="factory", templateBody=BODY, provisioningRoleArn=ROLE)
refused("InvalidRequestException", 400, iot.create_provisioning_template,
        templateName="wrong", templateBody="{}", provisioningRoleArn=ROLE)
iot.create_provisioning_template_version(templateName="factory", templateBody=BODY)
iot.update_provisioning_template(templateName="factory", defaultVersionId=2, enabled=False, removePreProvisioningHook=True)
found = iot.describe_provisioning_template(templateName="factory")
expect("the template", (found["defaultVersionId"], found["enabled"], found["templateBody"], "preProvisioningHook" in found),
       (2, False, BODY, False))
expect("versions", [version["versionId"] for version in
                    iot.list_provisioning_template_versions(templateName="factory")["versions"]], [1, 2])
iot.describe_provisioning_template_version(templateName="factory", versionId=1)
refused("DeleteConflictException", 409, iot.delete_provisioning_template_version, templateName="factory", versionId=2)
iot.delete_provisioning_template_version(templateName="factory", versionId=1)
iot.list_provisioning_templates()
iot.delete_provisioning_template(templateName="factory")
refused("ResourceNotFoundException", 404, iot.describe_provisioning_template, templateName="factory")

# Jobs
DOCUMENT = json.dumps({"operation": "reboot"})
iot.create_job(jobId="all", targets=[ACCOUNT + "thinggroup/fleet", ACCOUNT + "thing/c"], document=DOCUMENT,
               description="every member", targetSelection="SNAPSHOT",
               presignedUrlConfig={"roleArn": "arn:aws:iam::123456789012:role/jobs", "expiresInSec": 300},
               jobExecutionsRolloutConfig={"maximumPerMinute": 50, "exponentialRate": {
                   "baseRatePerMinute": 10, "incrementFactor": 1.5,
                   "rateIncreaseCriteria": {"numberOfNotifiedThings": 10}}},
               abortConfig={"criteriaList": [{"failureType": "FAILED", "action": "CANCEL",
                                              "thresholdPercentage": 50.5, "minNumberOfExecutedThings": 10}]},
               timeoutConfig={"inProgressTimeoutInMinutes": 10},
               jobExecutionsRetryConfig={"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 1}]},
               tags=[{"Key": "k", "Value": "v"}])
job = iot.describe_job(jobId="all")["job"]
expect("status", job["status"], "IN_PROGRESS")
iot.get_job_document(jobId="all")
iot.list_jobs(status="IN_PROGRESS", maxResults=1)
iot.update_job(jobId="all", description="another", timeoutConfig={"inProgressTimeoutInMinutes": 20})
iot.list_job_executions_for_job(jobId="all", status="QUEUED")
iot.list_job_executions_for_thing(thingName="a", maxResults=1)
iot.describe_job_execution(jobId="all", thingName="a")
refused("ResourceAlreadyExistsException", 409, iot.create_job, jobId="all", targets=[ACCOUNT + "thing/a"], document="{}")
refused("ResourceNotFoundException", 404, iot.create_job, jobId="x", targets=[ACCOUNT + "thing/none"], document="{}")
refused("InvalidRequestException", 400, iot.create_job, jobId="x", targets=[ACCOUNT + "thing/a"])

# The device plane over HTTPS
pending = device.get_pending_job_executions(thingName="a")
expect("queued", [execution["jobId"] for execution in pending["queuedJobs"]], ["all"])
head = device.describe_job_execution(thingName="a", jobId="$next")["execution"]
expect("the document is a string here", json.loads(head["jobDocument"]), {"operation": "reboot"})
started = device.start_next_pending_job_execution(thingName="a", statusDetails={"phase": "begun"}, stepTimeoutInMinutes=5)
expect("started", started["execution"]["status"], "IN_PROGRESS")
refused("InvalidStateTransitionException", 409, device.update_job_execution, thingName="a", jobId="all",
        status="SUCCEEDED", expectedVersion=99)
refused("ResourceNotFoundException", 404, device.describe_job_execution, thingName="a", jobId="none")
expect("while it runs", "approximateSecondsBeforeTimedOut" in
       iot.describe_job_execution(jobId="all", thingName="a")["execution"], True)
done = device.update_job_execution(thingName="a", jobId="all", status="SUCCEEDED", expectedVersion=2,
                                   statusDetails={"phase": "done"}, includeJobExecutionState=True, includeJobDocument=True)
expect("version", done["executionState"]["versionNumber"], 3)
refused("TerminalStateException", 410, device.describe_job_execution, thingName="a", jobId="all")

iot.cancel_job_execution(jobId="all", thingName="c")
expect("completed", iot.describe_job(jobId="all")["job"]["status"], "COMPLETED")
iot.delete_job_execution(jobId="all", thingName="c", executionNumber=1)
iot.create_job(jobId="growing", targets=[ACCOUNT + "thinggroup/fleet"], document=DOCUMENT, targetSelection="CONTINUOUS",
               schedulingConfig={})
iot.associate_targets_with_job(jobId="growing", targets=[ACCOUNT + "thing/c"], comment="one more")
iot.cancel_job(jobId="growing", reasonCode="ENOUGH", comment="no more", force=True)
iot.describe_job(jobId="growing")
iot.delete_job(jobId="growing")
refused("ResourceNotFoundException", 404, iot.describe_job, jobId="growing")

# Templates
iot.create_job_template(jobTemplateId="t", description="a template", document=DOCUMENT,
                        timeoutConfig={"inProgressTimeoutInMinutes": 5})
refused("ConflictException", 409, iot.create_job_template, jobTemplateId="t", description="again", document=DOCUMENT)
iot.describe_job_template(jobTemplateId="t")
iot.list_job_templates()
iot.create_job(jobId="templated", targets=[ACCOUNT + "thing/b"], jobTemplateArn=ACCOUNT + "jobtemplate/t")
expect("timeout of the template", iot.describe_job(jobId="templated")["job"]["timeoutConfig"],
       {"inProgressTimeoutInMinutes": 5})
iot.delete_job_template(jobTemplateId="t")
managed = iot.list_managed_job_templates()["managedJobTemplates"]
iot.describe_managed_job_template(templateName=managed[0]["templateName"])

# Shadows
update = json.dumps({"state": {"desired": {"led": "on"}}, "clientToken": "boto"})
data.update_thing_shadow(thingName="a", payload=update)
shadow = json.load(data.get_thing_shadow(thingName="a")["payload"])
expect("delta", shadow["state"]["delta"], {"led": "on"})
refused("ConflictException", 409, data.update_thing_shadow, thingName="a", payload=json.dumps({"state": {}, "version": 9}))
refused("ResourceNotFoundException", 404, data.get_thing_shadow, thingName="a", shadowName="none")
refused("InvalidRequestException", 400, data.update_thing_shadow, thingName="a", payload="{")
refused("RequestEntityTooLargeException", 413, data.update_thing_shadow, thingName="a", payload="x" * 9000)
for name in ("one", "two", "$package"):
    data.update_thing_shadow(thingName="a", shadowName=name, payload=json.dumps({"state": {"reported": {"n": name}}}))
page = data.list_named_shadows_for_thing(thingName="a", pageSize=2)
expect("names", page["results"], ["$package", "one"])
expect("more names", data.list_named_shadows_for_thing(thingName="a", nextToken=page["nextToken"])["results"], ["two"])
data.delete_thing_shadow(thingName="a")
refused("ResourceNotFoundException", 404, data.get_thing_shadow, thingName="a")
iot.update_package_configuration(versionUpdateByJobsConfig={"enabled": True, "roleArn": "arn:aws:iam::123456789012:role/r"})
expect("enabled", iot.get_package_configuration()["versionUpdateByJobsConfig"]["enabled"], True)

# And gone
iot.delete_thing_group(thingGroupName="part")
iot.delete_thing(thingName="c")
refused("ResourceNotFoundException", 404, iot.describe_thing, thingName="c")
iot.delete_thing(thingName="c")

if problems:
    sys.exit("\n".join(problems))
print(json.dumps(sorted(checked)))
