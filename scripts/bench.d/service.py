"""AWS IoT Jobs for one thing, as small as a stopwatch: a broker for one client over mutual TLS.

What is between the agent and the clock is one socket of the loopback: no second process, and no second client.
It says what AWS says to an agent that does everything right, and fails loudly at anything else.
"""

import json
import socket
import ssl
import time

CONNECT, CONNACK, PUBLISH, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 8, 9, 12, 13, 14


class Service:
    def __init__(self, thing, ca, certificate, key):
        self.prefix = f"$aws/things/{thing}/jobs/"
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)
        self.tls.load_verify_locations(ca)
        self.tls.verify_mode = ssl.CERT_REQUIRED
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(30)
        self.port = self.listener.getsockname()[1]
        self.jobs = 0
        self.execution = None

    def accept(self):
        """Serves a client up to its question what is next, which is: nothing. Returns when its CONNECT was there."""
        connected = self.connect()
        topic, question, _ = self.hear()
        assert topic == "$next/get", topic
        self.say("$next/get/accepted", clientToken=question["clientToken"])
        return connected

    def connect(self):
        """Serves a client up to its subscriptions. One that works on a job may report before it asks."""
        plain, _ = self.listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.tls.wrap_socket(plain, server_side=True)
        self.stream.settimeout(120)
        self.buffer = b""
        kind, _, connected = self.read()
        assert kind == CONNECT
        self.send(CONNACK << 4, b"\0\0")
        kind, body, _ = self.read()
        assert kind == SUBSCRIBE
        filters, at = 0, 2
        while at < len(body):
            at += 2 + int.from_bytes(body[at : at + 2], "big") + 1
            filters += 1
        self.send(SUBACK << 4, body[:2] + bytes(filters))
        return connected

    def run(self, document):
        """One job from its notification to its end: when it was notified, IN_PROGRESS and over, and its last update."""
        return self.notify(document), *self.follow()

    def notify(self, document):
        """Queues a job; when it was notified."""
        self.jobs += 1
        now = int(time.time())
        self.execution = dict(jobId=f"job-{self.jobs}", status="QUEUED", queuedAt=now, lastUpdatedAt=now)
        self.execution.update(versionNumber=1, executionNumber=1, jobDocument=document)
        return self.say("notify-next", execution=self.execution)

    def follow(self):
        """The job to its end: when it was IN_PROGRESS and over, and its last update. A ConnectionError if the agent goes."""
        job, started = self.execution, None
        while True:
            topic, update, at = self.hear()
            if topic in ("$next/get", f"{job['jobId']}/get"):
                self.say(f"{topic}/accepted", clientToken=update["clientToken"], execution=job)
                continue
            assert topic == f"{job['jobId']}/update", topic
            assert int(update.get("expectedVersion", job["versionNumber"])) == job["versionNumber"], update
            job.update(status=update["status"], versionNumber=job["versionNumber"] + 1)
            job.update(statusDetails=update.get("statusDetails", job.get("statusDetails", {})))
            answer = dict(clientToken=update["clientToken"])
            if update.get("includeJobExecutionState"):
                answer["executionState"] = {name: job[name] for name in ("status", "statusDetails", "versionNumber")}
            self.say(f"{topic}/accepted", **answer)
            if update["status"] != "IN_PROGRESS":
                self.execution = None
                self.say("notify-next")
                return started, at, update
            started = started or at

    def close(self):
        self.stream.close()

    def say(self, topic, **body):
        topic = (self.prefix + topic).encode()
        payload = json.dumps(dict(body, timestamp=int(time.time()))).encode()
        return self.send(PUBLISH << 4, len(topic).to_bytes(2, "big") + topic + payload)

    def hear(self):
        """The next message; when its last byte was there."""
        while True:
            kind, body, at = self.read()
            if kind == PUBLISH:
                end = 2 + int.from_bytes(body[:2], "big")
                return body[2:end].decode().removeprefix(self.prefix), json.loads(body[end:]), at
            if kind == DISCONNECT:
                raise ConnectionError("the agent has said good-bye")
            assert kind == PINGREQ, kind
            self.send(PINGRESP << 4, b"")

    def send(self, first, body):
        length, rest = b"", len(body)
        while True:
            length += bytes([rest % 128 | (128 if rest > 127 else 0)])
            rest //= 128
            if not rest:
                break
        at = time.monotonic()
        self.stream.sendall(bytes([first]) + length + body)
        return at

    def read(self):
        """The next packet: its type, its body, and when its last byte was there."""
        at = None
        while True:
            packet = self.packet()
            if packet:
                return *packet, at or time.monotonic()
            received = self.stream.recv(65536)
            at = time.monotonic()
            if not received:
                raise ConnectionError("the agent closed the connection")
            self.buffer += received

    def packet(self):
        length = shift = 0
        for at, byte in enumerate(self.buffer[1:5], 1):
            length += (byte & 127) << shift
            shift += 7
            if byte < 128:
                first, end = self.buffer[0], at + 1 + length
                if len(self.buffer) < end:
                    return None
                body, self.buffer = self.buffer[at + 1 : end], self.buffer[end:]
                return first >> 4, body
        return None
