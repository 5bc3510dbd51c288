"""AWS's device SDK as the device: its shadow client against the local cloud.

Usage: shadow.py PROTOCOL API_URL PORT FOLDER, as device.py.
"""

import json
import os
import queue
import sys

import awsiot
import boto3
from awscrt import mqtt5, mqtt_request_response
from awsiot import iotshadow, mqtt5_client_builder, mqtt_connection_builder

PROTOCOL, API, PORT, FOLDER = sys.argv[1:]
THING = "edge-01"
NAME = PROTOCOL
WAIT = 10

operator = boto3.client("iot-data", endpoint_url=API, region_name="us-east-1",
                        aws_access_key_id="test", aws_secret_access_key="test")
credentials = {
    "endpoint": "localhost",
    "port": int(PORT),
    "cert_filepath": f"{FOLDER}/certificate.pem",
    "pri_key_filepath": f"{FOLDER}/private.key",
    "ca_filepath": f"{FOLDER}/root-ca.pem",
    "client_id": THING,
}
options = mqtt_request_response.ClientOptions(
    max_request_response_subscriptions=8, max_streaming_subscriptions=4, operation_timeout_in_seconds=WAIT)

if PROTOCOL == "mqtt5":
    connected = queue.Queue()
    link = mqtt5_client_builder.mtls_from_path(
        **credentials,
        on_lifecycle_connection_success=lambda _: connected.put(None),
        on_lifecycle_connection_failure=lambda failure: connected.put(failure.exception))
    link.start()
    failure = connected.get(timeout=WAIT)
    if failure:
        raise failure
else:
    link = mqtt_connection_builder.mtls_from_path(**credentials, clean_session=True, keep_alive_secs=30)
    link.connect().result(WAIT)
shadows = iotshadow.IotShadowClientV2(link, options)


def stream(create, request):
    events, established = queue.Queue(), queue.Queue()
    operation = create(request, awsiot.ServiceStreamOptions(
        incoming_event_listener=events.put, subscription_status_listener=established.put))
    operation.open()
    status = established.get(timeout=WAIT)
    assert status.type == mqtt_request_response.SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED, status.type
    return operation, events


def rejected(code, message, future):
    try:
        future.result(WAIT)
    except awsiot.V2ServiceException as error:
        found = (error.modeled_error.code, error.modeled_error.message)
        assert found == (code, message), found
        return
    raise AssertionError(f"not rejected with {code}")


named = {"thing_name": THING, "shadow_name": NAME}
delta_stream, deltas = stream(shadows.create_named_shadow_delta_updated_stream,
                              iotshadow.NamedShadowDeltaUpdatedSubscriptionRequest(**named))
documents_stream, documents = stream(shadows.create_named_shadow_updated_stream,
                                     iotshadow.NamedShadowUpdatedSubscriptionRequest(**named))
get = iotshadow.GetNamedShadowRequest(**named)
rejected(404, f"No shadow exists with name: '{NAME}'", shadows.get_named_shadow(get))

# An operator wishes; the device hears, does, and says so
operator.update_thing_shadow(thingName=THING, shadowName=NAME, payload=json.dumps({"state": {"desired": {"led": "on"}}}))
delta = deltas.get(timeout=WAIT)
assert (delta.state, delta.version) == ({"led": "on"}, 1)
snapshot = documents.get(timeout=WAIT)
assert snapshot.previous is None and snapshot.current.state.desired == {"led": "on"}


def update(state, version=None):
    return shadows.update_named_shadow(iotshadow.UpdateNamedShadowRequest(state=state, version=version, **named))


rejected(409, "Version conflict", update(iotshadow.ShadowState(reported={"led": "on"}), version=9))
accepted = update(iotshadow.ShadowState(reported={"led": "on"})).result(WAIT)
assert (accepted.version, accepted.state.reported) == (2, {"led": "on"})
assert documents.get(timeout=WAIT).previous.version == 1
shadow = shadows.get_named_shadow(get).result(WAIT)
assert shadow.state.delta is None and shadow.state.reported == {"led": "on"} and shadow.version == 2
assert deltas.empty()
rejected(400, "Invalid version", update(iotshadow.ShadowState(), version=-1))

# The classic one is another
classic = shadows.update_shadow(iotshadow.UpdateShadowRequest(
    thing_name=THING, state=iotshadow.ShadowState(reported={"protocol": PROTOCOL}))).result(WAIT)
assert classic.state.reported == {"protocol": PROTOCOL}
assert shadows.get_shadow(iotshadow.GetShadowRequest(thing_name=THING)).result(WAIT).state.reported == {"protocol": PROTOCOL}

gone = shadows.delete_named_shadow(iotshadow.DeleteNamedShadowRequest(**named)).result(WAIT)
assert gone.version == 2
rejected(404, f"No shadow exists with name: '{NAME}'", shadows.get_named_shadow(get))

if PROTOCOL == "mqtt5":
    link.stop()
else:
    link.disconnect().result(WAIT)
print("ok", flush=True)
# The SDK's own threads may still be at work when the interpreter frees what they use.
os._exit(0)
