"""Measures both processes of a device that has nothing to do. `scripts/bench` builds what this runs."""

import json
import os
import pwd
import select
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from common import BINARIES, MINUTES, THING, agent, memory, mib, row, running, title, wait_until


class Relay:
    """Stands between the agent and the cloud, and counts what passes: bytes of TLS, both ways."""

    def __init__(self, port):
        self.port, self.count, self.pieces = port, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            near = self.listener.accept()[0]
            far = socket.create_connection(("127.0.0.1", self.port))
            while True:
                ready = select.select([near, far], [], [])[0]
                if not all(self.passed(one, far if one is near else near) for one in ready):
                    break
            near.close()
            far.close()

    def passed(self, one, other):
        piece = one.recv(1 << 16)
        other.sendall(piece)
        self.count, self.pieces = self.count + len(piece), self.pieces + 1
        return bool(piece)


class Activation:
    """Starts the helper by its socket when somebody connects, as systemd does, and lets it end itself."""

    SCRIPT = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" helper --config "$1" 3<&"$2"'

    def __init__(self, path, config, log):
        self.config, self.log, self.process, self.over = config, log, None, False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.keeper = threading.Thread(target=self.serve)
        self.keeper.start()

    def serve(self):
        while not self.over:
            if not select.select([self.listener], [], [], 0.1)[0]:
                continue
            passed = self.listener.fileno()
            command = ["sh", "-c", self.SCRIPT, BINARIES / "fleethand", self.config, str(passed)]
            self.process = subprocess.Popen(command, pass_fds=[passed], stderr=self.log)
            while self.process.poll() is None:
                if self.over:
                    self.process.terminate()
                time.sleep(0.05)
            self.process = None

    def memory(self):
        if process := self.process:
            return memory(process.pid, "VmRSS")
        return 0

    def stop(self):
        self.over = True
        self.keeper.join()


@contextmanager
def cloud():
    free = [part for name in ("--api", "--s3", "--mqtts") for part in (name, "127.0.0.1:0")]
    with running(BINARIES / "fleethand-cloud", "serve", "--log", "warn", *free, stdout=subprocess.PIPE) as process:
        yield json.loads(process.stdout.readline())


def wakeups(pid):
    """How often its threads were put to sleep, and so how often they woke up."""
    statuses = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(int(line.split()[1]) for text in statuses for line in text.read_text().splitlines() if line.startswith("voluntary"))


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    with tempfile.TemporaryDirectory(prefix="fleethand-bench-") as folder, cloud() as ready:
        device, log = Path(folder) / "thing", Path(folder) / "log"
        relay = Relay(int(ready["mqtts"].rpartition(":")[2]))
        create = (BINARIES / "fleethand-cloud", "thing", "create", THING, "--out", device, "--api", ready["api"])
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
        config = device / "fleethand.toml"
        text = config.read_text().replace(f"port = {relay.port}", f"port = {relay.listener.getsockname()[1]}")
        user = pwd.getpwuid(os.getuid()).pw_name
        text += f'\n[helper]\nsocket = "helper.sock"\nuser = "{user}"\nstate_directory = "helper"\n'
        config.write_text(text)
        with log.open("wb") as stderr:
            helper = Activation(device / "helper.sock", config, stderr)
            try:
                with agent(config, stderr) as process:
                    wait_until(lambda: b" connected" in log.read_bytes(), "the agent is connected")
                    time.sleep(2)
                    both = memory(process.pid, "VmRSS") + helper.memory()
                    begun = time.monotonic()
                    wait_until(lambda: not helper.process, "the helper ends itself")
                    stayed = time.monotonic() - begun
                    before = wakeups(process.pid), processor_seconds(process.pid), relay.count, relay.pieces
                    time.sleep(60 * MINUTES)
                    after = wakeups(process.pid), processor_seconds(process.pid), relay.count, relay.pieces
                    woken, worked, passed, pieces = (new - old for old, new in zip(before, after))
                    alone = memory(process.pid, "VmRSS")
            finally:
                helper.stop()
    title(f"Nothing to do, for {MINUTES} minutes")
    row("VmRSS of both, where the helper has ended itself", mib(alone), "at most 8 MB")
    row(f"VmRSS of both, in the {stayed:.0f} s before that", mib(both))
    row("wakeups of the agent, a second", f"{woken / 60 / MINUTES:.2f}", "at most 1")
    row("processor time of the agent", f"{1000 * worked:.0f} ms")
    row("TLS, both ways", f"{passed} bytes")
    row("  in so many pieces", str(pieces), "a ping and its answer a minute")


main()
