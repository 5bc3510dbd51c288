"""Measures the installation of a whole system's image into a slot: the agent against the obvious pipeline, RAUC and
SWUpdate, all in turn and into the same block device. `scripts/bench` builds what this runs."""

import hashlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from common import ROUNDS, SIZE, THING, agent, certificates, configured, machine, mib, nginx, row, title
from installers import Rauc, SWUpdate
from service import Service

# A system is not as long as its slot.
SLOT = SIZE + 16
TOOLS = ("losetup", "grub-editenv", "zstd", "curl")


def missing():
    if os.geteuid() != 0:
        return "loop devices take root"
    return next((f"{tool} is not installed" for tool in TOOLS if not shutil.which(tool)), None)


class Slot:
    """A block device: a loop device over a file whose blocks are all allocated, without the page cache of that file in
    between."""

    def __init__(self, file, size):
        self.file = file
        with file.open("wb") as zeros:
            for _ in range(size):
                zeros.write(bytes(1 << 20))
            os.fsync(zeros.fileno())

    def __enter__(self):
        attach = ["losetup", "--find", "--show", "--direct-io=on", self.file]
        self.device = Path(subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip())
        return self

    def __exit__(self, *_):
        subprocess.run(["losetup", "--detach", self.device], check=True)

    def written(self):
        """Bytes that the kernel has written to the device, whoever asked for it."""
        return 512 * int(Path(f"/sys/block/{self.device.name}/stat").read_text().split()[6])

    def spoil(self):
        """Without the last image, on the device and in memory."""
        with self.device.open("r+b") as device:
            device.write(bytes(1 << 20))
            os.fsync(device.fileno())
        subprocess.run(["blockdev", "--flushbufs", self.device], check=True)

    def sync(self):
        with self.device.open("r+b") as device:
            os.fsync(device.fileno())

    def digest(self, length):
        digest = hashlib.sha256()
        with self.device.open("rb") as device:
            while length > 0:
                piece = device.read(min(length, 1 << 20))
                digest.update(piece)
                length -= len(piece)
        return digest.hexdigest()


class Image:
    """A system's image, and how long it is packed: what this machine has in /usr, which is what systems are made of.
    Packed so that unpacking takes the memory that `zstd -19` asks for, a window of 8 MiB."""

    def __init__(self, folder):
        self.folder, self.plain, self.packed = folder, folder / "image", folder / "image.zst"
        self.length = SIZE << 20
        with self.plain.open("wb") as image:
            for piece in system(self.length):
                image.write(piece)
            os.fsync(image.fileno())
        subprocess.run(["zstd", "-q", "-T0", "-9", "--zstd=wlog=23", self.plain, "-o", self.packed], check=True)
        self.digests = {}
        for path in (self.plain, self.packed):
            with path.open("rb") as file:
                self.digests[path] = hashlib.file_digest(file, "sha256").hexdigest()


def system(length):
    while length > 0:
        before = length
        for path in sorted(Path("/usr").rglob("*")):
            if path.is_file() and not path.is_symlink() and length > 0:
                piece = path.read_bytes()[: min(length, 16 << 20)]
                length -= len(piece)
                yield piece
        assert length < before, "there is nothing in /usr"


# The agent on a device of two slots.

REBOOT = """#!/bin/sh
# GRUB and the kernel: what is on trial runs now, in another boot. What the agent has needed is noted before it goes.
set -e
cd "$(dirname "$0")"
cp "/proc/$PPID/status" needed
eval "$(grub-editenv grubenv list)"
echo "root=/dev/simulated slot=$try" >cmdline
echo "boot-of-$try" >boot-id
kill -TERM $PPID
"""


def as_from_the_factory(folder, slots):
    """Slot A runs, and nothing was ever done. What the configuration says of that."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for command in (["create"], ["set", "good=A"]):
        subprocess.run(["grub-editenv", folder / "grubenv", *command], check=True)
    (folder / "cmdline").write_text("root=/dev/simulated slot=A\n")
    (folder / "boot-id").write_text("boot-of-A\n")
    (folder / "reboot").write_text(REBOOT)
    (folder / "reboot").chmod(0o755)
    return f"""
[firmware]
target = "slots"
[firmware.slots]
A = "{slots["A"].device}"
B = "{slots["B"].device}"
[boot]
kind = "grub"
env = "grubenv"
cmdline_file = "cmdline"
[reboot]
command = ["{folder}/reboot"]
boot_id_file = "boot-id"
"""


def update(folder, pki, slots, url, image, path):
    """One job from its notification to the end of the process that has ordered the reboot, and its peak of memory. Then
    the trial, of which only the end counts."""
    firmware = as_from_the_factory(folder, slots)
    service = Service(THING, pki / "ca.pem", pki / "leaf.pem", pki / "leaf.key")
    config = configured(folder, pki, service.port, firmware)
    document = dict(operation="update-firmware", url=f"{url}/{path.name}", version="2")
    document.update(checksum=f"sha256:{image.digests[path]}", size=path.stat().st_size)
    if path == image.packed:
        document["compression"] = "zstd"
    with (folder / "agent.log").open("wb") as log:
        with agent(config, log):
            service.accept()
            notified = service.notify(document)
            try:
                raise AssertionError(f"no reboot: {service.follow()}")
            except ConnectionError:
                took = time.monotonic() - notified
            service.close()
        needed = next(line for line in (folder / "needed").read_text().splitlines() if line.startswith("VmHWM:"))
        with agent(config, log):
            service.connect()
            *_, last = service.follow()
            assert last["status"] == "SUCCEEDED", last
            service.close()
    return took, int(needed.split()[1])


def pipeline(pki, slot, url, image, path):
    """How long it takes, without the sum; and the sum by coreutils, and by OpenSSL."""
    unpack = "zstd -dc |" if path == image.packed else ""
    script = f'set -o pipefail; curl -sSf --cacert "$1" "$2" | {unpack} '
    script += 'dd of="$3" bs=1M iflag=fullblock conv=fsync status=none'
    times = [timed(["bash", "-c", script, "-", pki / "ca.pem", f"{url}/{path.name}", slot.device])]
    for program in ("sha256sum", "openssl dgst -sha256"):
        script = f'head -c "$1" "$2" | {program}'
        times.append(timed(["bash", "-c", script, "-", str(image.length), slot.device], image.digests[image.plain]))
    return times


def timed(command, says=""):
    begun = time.monotonic()
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert says in said, said
    return time.monotonic() - begun


class Measured:
    """What rounds of one way to install have taken."""

    def __init__(self, slot, image):
        self.slot, self.image = slot, image
        self.took, self.peaks, self.written = [], [], []

    @contextmanager
    def round(self):
        self.slot.spoil()
        before = self.slot.written()
        yield
        self.written.append((self.slot.written() - before) / self.image.length)
        assert self.slot.digest(self.image.length) == self.image.digests[self.image.plain]

    def rate(self):
        return f"{SIZE / statistics.median(self.took):.0f} MiB/s"

    def bytes_and_memory(self):
        row("  bytes written to the slot for each of the image", f"{statistics.median(self.written):.3f}")
        row("  VmHWM", mib(max(self.peaks)))


def against_the_pipeline(name, path, folder, pki, slots, url, image):
    ours, theirs = Measured(slots["B"], image), Measured(slots["B"], image)
    with_openssl = []
    for _ in range(ROUNDS):
        with theirs.round():
            writing, sha256sum, openssl = pipeline(pki, slots["B"], url, image, path)
        theirs.took.append(writing + sha256sum)
        with_openssl.append(writing + openssl)
        with ours.round():
            took, peak = update(folder / "device", pki, slots, url, image, path)
        ours.took.append(took)
        ours.peaks.append(peak)
    title(f"{SIZE} MiB over TLS into a slot, {name}, {ROUNDS} rounds in turn")
    unpack = "zstd -dc | " if path == image.packed else ""
    row(f"curl … | {unpack}dd conv=fsync; sha256sum, median", theirs.rate())
    row("the agent, from notification to its reboot, median", ours.rate())
    ratios = [their / our for our, their in zip(ours.took, theirs.took)]
    row("throughput of the agent / of the pipeline, median", f"{statistics.median(ratios):.2f}")
    row("  worst and best round", f"{min(ratios):.2f} … {max(ratios):.2f}")
    ratios = [their / our for our, their in zip(ours.took, with_openssl)]
    row("  the same, with openssl dgst for sha256sum", f"{statistics.median(ratios):.2f}")
    ours.bytes_and_memory()


def installers(folder, slots, image):
    """On their own: from a file that is on the device already, and in the page cache."""
    title(f"The same image by the installers of others, from a file: nothing is fetched, {ROUNDS} rounds")
    for make in (Rauc, lambda *device: SWUpdate(*device, packed=False), lambda *device: SWUpdate(*device, packed=True)):
        with make(folder, slots, image) as installer:
            if installer.missing:
                row(installer.name, "not measured", installer.missing)
                continue
            measured = Measured(slots["B"], image)
            for _ in range(ROUNDS):
                with measured.round():
                    begun = time.monotonic()
                    measured.peaks.append(installer.install())
                    slots["B"].sync()
                    measured.took.append(time.monotonic() - begun)
            row(f"{installer.name}, median", measured.rate())
            measured.bytes_and_memory()


def main():
    machine()
    if why := missing():
        return title(f"Slots: NOT MEASURED, {why}")
    with tempfile.TemporaryDirectory(prefix="fleethand-bench-") as folder:
        folder = Path(folder)
        pki, served = folder / "pki", folder / "served"
        for each in (pki, served):
            each.mkdir()
        certificates(pki)
        image = Image(served)
        print(f"An image of {SIZE} MiB, {image.packed.stat().st_size / (1 << 20):.0f} MiB packed with zstd.", flush=True)
        with Slot(folder / "slotA", 1) as a, Slot(folder / "slotB", SLOT) as b:
            slots = dict(A=a, B=b)
            with nginx(folder, pki) as url:
                against_the_pipeline("raw", image.plain, folder, pki, slots, url, image)
                against_the_pipeline("zstd", image.packed, folder, pki, slots, url, image)
            installers(folder, slots, image)
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}.", flush=True)


main()
