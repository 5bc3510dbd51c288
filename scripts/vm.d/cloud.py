"""AWS IoT and S3 on this machine, asked as AWS is asked."""

import hashlib
import json
import socket
import subprocess
from pathlib import Path

import boto3
from botocore.config import Config

# What a guest calls this machine.
HOST = "10.0.2.2"
BUCKET = "firmware"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Cloud:
    def __init__(self, binary, log, host=HOST, api=0, mqtts=0, store=0):
        """Devices reach it as `host`; a port that is 0 is any."""
        self.binary, store = binary, store or free_port()
        command = [binary, "serve", "--log", "info", "--s3", f"127.0.0.1:{store}", "--s3-url", f"http://{host}:{store}"]
        for listener, port in (("--api", api), ("--mqtts", mqtts)):
            command += [listener, f"127.0.0.1:{port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log.open("wb"))
        self.ready = json.loads(self.process.stdout.readline())
        as_test = dict(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
        self.iot = boto3.client("iot", endpoint_url=self.ready["api"], **as_test)
        path_style = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
        self.s3 = boto3.client("s3", endpoint_url=self.ready["s3"], config=path_style, **as_test)
        self.s3.create_bucket(Bucket=BUCKET)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def put(self, image):
        """The image in the object store, and what a document says of it."""
        self.s3.upload_file(str(image), BUCKET, image.name)
        url = f"https://s3.us-east-1.amazonaws.com/{BUCKET}/{image.name}"
        return {
            "url": f"${{aws:iot:s3-presigned-url:{url}}}",
            "checksum": f"sha256:{sha256(image)}",
            "size": image.stat().st_size,
        }

    def thing(self, name, folder):
        """A thing, and all that an agent needs to be it, in the folder."""
        create = [self.binary, "thing", "create", name, "--out", folder, "--api", self.ready["api"]]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
        return Path(folder)

    def order(self, thing, job, document):
        self.iot.create_job(
            jobId=job,
            targets=[f"arn:aws:iot:us-east-1:123456789012:thing/{thing}"],
            document=json.dumps(document),
            presignedUrlConfig={"roleArn": "arn:aws:iam::123456789012:role/jobs", "expiresInSec": 3600},
        )

    def execution(self, thing, job):
        found = self.iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
        return found["status"], found.get("statusDetails", {}).get("detailsMap", {})
