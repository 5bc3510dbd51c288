"""Measures the agent and the start of the local cloud. `scripts/bench` builds what this runs."""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from common import BINARIES, QUICK, ROUNDS, SIZE, THING
from common import agent, certificates, machine, memory, mib, ms, nginx, row, running, served, title, wait_until

JOBS, STARTS = (30, 3) if QUICK else (300, 20)


# The agent and the local cloud as a person would start them.


@contextmanager
def cloud():
    """The local cloud, its addresses, and how long it took from exec to the line that gives them."""
    free = [part for name in ("--api", "--s3", "--mqtts") for part in (name, "127.0.0.1:0")]
    begun = time.monotonic()
    command = (BINARIES / "fleethand-cloud", "serve", "--log", "warn", *free)
    with running(*command, stdout=subprocess.PIPE) as process:
        ready = json.loads(process.stdout.readline())
        yield ready, time.monotonic() - begun


def call(api, method, path, **body):
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(api + path, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def megabytes(binary):
    return f"{binary.stat().st_size / 1e6:.2f} MB"


def size_and_memory(folder):
    title("The agent: what is shipped, and what it holds")
    row("binary, stripped", megabytes(BINARIES / "fleethand"))
    row("binary, stripped, --no-default-features", megabytes(BINARIES / "fleethand-small"), "at most 4.0 MB")
    row("  the same with the feature websocket", megabytes(BINARIES / "fleethand-websocket"))
    device, log = folder / "thing", folder / "thing.log"
    with cloud() as (ready, _), log.open("wb") as stderr:
        create = (BINARIES / "fleethand-cloud", "thing", "create", THING, "--out", device, "--api", ready["api"])
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
        with agent(device / "fleethand.toml", stderr) as process:
            wait_until(lambda: b" connected" in log.read_bytes(), "the agent is connected")
            time.sleep(1 if QUICK else 10)
            row("VmRSS, connected and idle", mib(memory(process.pid, "VmRSS")), "at most 6 MiB")
            # The rest is the program itself and its libraries, of which the kernel takes back what it needs.
            row("  of it RssAnon", mib(memory(process.pid, "RssAnon")))
            target = f"arn:aws:iot:us-east-1:123456789012:thing/{THING}"
            document = json.dumps({"operation": "update-config", "config": {"rate": 5}})
            call(ready["api"], "PUT", "/jobs/first", targets=[target], document=document)

            def status():
                return call(ready["api"], "GET", f"/things/{THING}/jobs/first")["execution"]["status"]

            wait_until(lambda: status() not in ("QUEUED", "IN_PROGRESS"), "the job has ended")
            assert status() == "SUCCEEDED", log.read_text()
            row("VmRSS after a job", mib(memory(process.pid, "VmRSS")))


def starts(folder, pki):
    times = []
    for _ in range(STARTS):
        with served(folder / "started", pki) as (_, _, took):
            times.append(took)
    title(f"From the start of the agent to its CONNECT, {STARTS} times")
    row("median", ms(times), "at most 50 ms")
    row("95th percentile", ms(times, 95))


def latencies(where, folder, pki):
    to_start, to_end = [], []
    with served(folder / "device", pki) as (service, _, _):
        for number in range(JOBS):
            time.sleep(0.02)  # so that the agent is as idle as one is when a notification comes
            notified, started, ended, update = service.run({"operation": "update-config", "config": {"rate": number + 1}})
            assert update["status"] == "SUCCEEDED", update
            to_start.append(started - notified)
            to_end.append(ended - notified)
    title(f"From a job's notification, {JOBS} update-config jobs, state and configuration {where}")
    row("to IN_PROGRESS, median", ms(to_start), "at most 1 ms")
    row("to IN_PROGRESS, 95th percentile", ms(to_start, 95))
    row("to SUCCEEDED, median", ms(to_end), "at most 5 ms")
    row("to SUCCEEDED, 95th percentile", ms(to_end, 95))


def sync_time(folder):
    """A file of a few bytes, written and synced: what the disk asks for each promise."""
    times = []
    for _ in range(50):
        begun = time.monotonic()
        with (folder / "synced").open("wb") as file:
            file.write(b"a few bytes")
            file.flush()
            os.fsync(file.fileno())
        times.append(time.monotonic() - begun)
    return times


def transfers(folder, pki):
    (folder / "served").mkdir()
    digest = hashlib.sha256()
    with (folder / "served" / "firmware").open("wb") as file:
        for _ in range(SIZE):
            piece = os.urandom(1 << 20)
            digest.update(piece)
            file.write(piece)
        os.fsync(file.fileno())
    checksum = digest.hexdigest()
    pipeline = 'set -o pipefail; curl -sSf --cacert "$1" "$2" | tee "$3" | openssl dgst -sha256; sync "$3"'
    ours, theirs, twos = [], [], []

    def job(service, device, number):
        document = {"operation": "update-firmware", "url": url, "version": str(number), "checksum": f"sha256:{checksum}"}
        notified, _, ended, update = service.run(document)
        assert update["status"] == "SUCCEEDED", update
        # There was no firmware before: the job is the transfer, and no hashing of the old file.
        (device / "firmware.bin").unlink()
        return ended - notified

    one, two = folder / "device", folder / "divided"
    with nginx(folder, pki) as files, served(one, pki) as (service, process, _), served(two, pki, divided=True) as (other, *_):
        url, before = f"{files}/firmware", memory(process.pid, "VmRSS")
        for number in range(ROUNDS):
            copy = folder / "copy"
            begun = time.monotonic()
            command = ["bash", "-c", pipeline, "-", pki / "ca.pem", url, copy]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            theirs.append(time.monotonic() - begun)
            assert checksum in said, said
            copy.unlink()

            ours.append(job(service, one, number))
            twos.append(job(other, two, number))
        peak = memory(process.pid, "VmHWM")
    title(f"{SIZE} MiB over TLS: an update-firmware job against curl | tee | openssl dgst and a sync, {ROUNDS} rounds in turn")
    row("curl … | tee FILE | openssl dgst -sha256; sync, median", f"{SIZE / statistics.median(theirs):.0f} MiB/s")
    row("the agent, from notification to SUCCEEDED, median", f"{SIZE / statistics.median(ours):.0f} MiB/s")
    ratios = [their / our for our, their in zip(ours, theirs)]
    row("throughput of the agent / of the pipeline, median", f"{statistics.median(ratios):.2f}", "at least 1.0")
    row("  worst and best round", f"{min(ratios):.2f} … {max(ratios):.2f}")
    row("two processes, from notification to SUCCEEDED, median", f"{SIZE / statistics.median(twos):.0f} MiB/s")
    ratios = [their / our for our, their in zip(twos, theirs)]
    row("throughput of two processes / of the pipeline, median", f"{statistics.median(ratios):.2f}", "at least 1.0")
    row("VmRSS of the agent before", mib(before))
    row("VmHWM of the agent over all rounds", mib(peak), "at most 16 MiB")


def main():
    machine()
    with tempfile.TemporaryDirectory(prefix="fleethand-bench-") as disk:
        disk = Path(disk)
        size_and_memory(disk)
        pki = disk / "pki"
        pki.mkdir()
        certificates(pki)
        starts(disk, pki)
        with tempfile.TemporaryDirectory(prefix="fleethand-bench-", dir="/dev/shm") as shared:
            latencies("in memory", Path(shared), pki)
        latencies("on disk", disk, pki)
        row("  one sync of a small file on this disk, median", ms(sync_time(disk)))
        transfers(disk, pki)
        title("The local cloud")
        taken = []
        for _ in range(STARTS):
            with cloud() as (_, took):
                taken.append(took)
        row(f"exec to its line on stdout, median of {STARTS}", ms(taken), "at most 300 ms")
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}.", flush=True)


main()
