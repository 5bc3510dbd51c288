"""AWS's device SDK as the device: its Jobs client against the local cloud.

Usage: device.py PROTOCOL API_URL PORT FOLDER, where FOLDER was written by `fleethand-cloud thing create edge-01`, and PROTOCOL
is `mqtt311` or `mqtt5`, with the certificate in it; or `mqtt311-websocket`, signed with the keys of an account, or
`mqtt5-websocket`, signed with those of a guest in an identity pool.
"""

import json
import queue
import sys

import awsiot
import boto3
from awscrt import auth, mqtt5, mqtt_request_response
from botocore import UNSIGNED
from botocore.config import Config
from awsiot import iotjobs, mqtt5_client_builder, mqtt_connection_builder

PROTOCOL, API, PORT, FOLDER = sys.argv[1:]
THING = "edge-01"
WAIT = 10

iot = boto3.client("iot", endpoint_url=API, region_name="us-east-1",
                   aws_access_key_id="test", aws_secret_access_key="test")
credentials = {
    "endpoint": "localhost",
    "port": int(PORT),
    "ca_filepath": f"{FOLDER}/root-ca.pem",
    "client_id": THING,
}


def guest():
    """An identity pool is made, and a guest of it asks for credentials."""
    pools = boto3.client("cognito-identity", endpoint_url=API, region_name="us-east-1",
                         aws_access_key_id="test", aws_secret_access_key="test")
    pool = pools.create_identity_pool(IdentityPoolName="devices", AllowUnauthenticatedIdentities=True)
    asks = boto3.client("cognito-identity", endpoint_url=API, region_name="us-east-1",
                        config=Config(signature_version=UNSIGNED))
    identity = asks.get_id(IdentityPoolId=pool["IdentityPoolId"])["IdentityId"]
    found = asks.get_credentials_for_identity(IdentityId=identity)["Credentials"]
    assert found["Expiration"].timestamp() > 0
    return auth.AwsCredentialsProvider.new_static(found["AccessKeyId"], found["SecretKey"], found["SessionToken"])


if PROTOCOL.endswith("-websocket"):
    provider = guest() if PROTOCOL.startswith("mqtt5") else auth.AwsCredentialsProvider.new_static("test", "test")
    credentials |= {"region": "us-east-1", "credentials_provider": provider}
else:
    credentials |= {"cert_filepath": f"{FOLDER}/certificate.pem", "pri_key_filepath": f"{FOLDER}/private.key"}
options = mqtt_request_response.ClientOptions(
    max_request_response_subscriptions=4, max_streaming_subscriptions=2, operation_timeout_in_seconds=WAIT)

if PROTOCOL.startswith("mqtt5"):
    connected = queue.Queue()
    build = (mqtt5_client_builder.websockets_with_default_aws_signing if "region" in credentials
             else mqtt5_client_builder.mtls_from_path)
    link = build(
        **credentials,
        on_lifecycle_connection_success=lambda _: connected.put(None),
        on_lifecycle_connection_failure=lambda failure: connected.put(failure.exception))
    link.start()
    failure = connected.get(timeout=WAIT)
    if failure:
        raise failure
else:
    build = (mqtt_connection_builder.websockets_with_default_aws_signing if "region" in credentials
             else mqtt_connection_builder.mtls_from_path)
    link = build(**credentials, clean_session=True, keep_alive_secs=30)
    link.connect().result(WAIT)
jobs = iotjobs.IotJobsClientV2(link, options)


def stream(create, request):
    """A notify stream, once its subscription is there."""
    events, established = queue.Queue(), queue.Queue()
    operation = create(request, awsiot.ServiceStreamOptions(
        incoming_event_listener=events.put,
        subscription_status_listener=established.put))
    operation.open()
    status = established.get(timeout=WAIT)
    assert status.type == mqtt_request_response.SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED, status.type
    return operation, events


changed_stream, changed = stream(jobs.create_job_executions_changed_stream,
                                 iotjobs.JobExecutionsChangedSubscriptionRequest(thing_name=THING))
next_stream, upcoming = stream(jobs.create_next_job_execution_changed_stream,
                               iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=THING))


def create(job):
    iot.create_job(jobId=job, targets=[f"arn:aws:iot:us-east-1:123456789012:thing/{THING}"],
                   document=json.dumps({"operation": "none", "job": job}))


def rejected(code, future):
    try:
        future.result(WAIT)
    except awsiot.V2ServiceException as error:
        assert error.modeled_error.code == code, (error.modeled_error.code, code)
        return error.modeled_error
    raise AssertionError(f"not rejected with {code}")


# Nothing yet
pending = jobs.get_pending_job_executions(iotjobs.GetPendingJobExecutionsRequest(thing_name=THING)).result(WAIT)
assert not pending.in_progress_jobs and not pending.queued_jobs
start = iotjobs.StartNextPendingJobExecutionRequest(thing_name=THING)
assert jobs.start_next_pending_job_execution(start).result(WAIT).execution is None

# A job arrives: both streams say so
create("first")
assert [job.job_id for job in changed.get(timeout=WAIT).jobs["QUEUED"]] == ["first"]
assert upcoming.get(timeout=WAIT).execution.job_document == {"operation": "none", "job": "first"}
create("second")
assert [job.job_id for job in changed.get(timeout=WAIT).jobs["QUEUED"]] == ["first", "second"]

# It is described, started, and reported on
describe = iotjobs.DescribeJobExecutionRequest(thing_name=THING, job_id="$next")
execution = jobs.describe_job_execution(describe).result(WAIT).execution
assert (execution.job_id, execution.status, execution.version_number) == ("first", "QUEUED", 1)
start = iotjobs.StartNextPendingJobExecutionRequest(thing_name=THING, status_details={"phase": "begun"})
execution = jobs.start_next_pending_job_execution(start).result(WAIT).execution
assert (execution.job_id, execution.status, execution.version_number) == ("first", "IN_PROGRESS", 2)


def update(job, status, **more):
    return jobs.update_job_execution(iotjobs.UpdateJobExecutionRequest(
        thing_name=THING, job_id=job, status=status, **more))


mismatch = rejected(iotjobs.RejectedErrorCode.VERSION_MISMATCH, update("first", "SUCCEEDED", expected_version=99))
assert mismatch.execution_state.version_number == 2
accepted = update("first", "IN_PROGRESS", expected_version=2, status_details={"progress": "50%"},
                  include_job_execution_state=True, include_job_document=True, step_timeout_in_minutes=5).result(WAIT)
assert accepted.execution_state.status_details == {"progress": "50%"}
assert accepted.job_document["job"] == "first"
update("first", "SUCCEEDED", expected_version=3).result(WAIT)
assert [job.job_id for job in changed.get(timeout=WAIT).jobs["QUEUED"]] == ["second"]
assert upcoming.get(timeout=WAIT).execution.job_id == "second"

# What cannot be is rejected
rejected(iotjobs.RejectedErrorCode.INVALID_STATE_TRANSITION, update("first", "FAILED"))
rejected(iotjobs.RejectedErrorCode.RESOURCE_NOT_FOUND, update("none", "FAILED"))
describe = iotjobs.DescribeJobExecutionRequest(thing_name=THING, job_id="first")
rejected(iotjobs.RejectedErrorCode.TERMINAL_STATE_REACHED, jobs.describe_job_execution(describe))

# The second is refused, and the queue is empty
update("second", "REJECTED", status_details={"reason": "not today"}).result(WAIT)
assert not changed.get(timeout=WAIT).jobs
assert upcoming.get(timeout=WAIT).execution is None
found = iot.describe_job_execution(jobId="second", thingName=THING)["execution"]
assert found["status"] == "REJECTED" and found["statusDetails"]["detailsMap"] == {"reason": "not today"}

# The SDK's own threads end before the interpreter does
changed_stream = next_stream = jobs = None
if PROTOCOL.startswith("mqtt5"):
    link.stop()
else:
    link.disconnect().result(WAIT)
print("ok")
