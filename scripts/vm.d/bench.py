"""The devices under test: each new from the factory, with the cloud that orders and what must be true afterwards."""

import shutil
import time

from cloud import HOST
from disk import disk, overlay, system
from guest import PATIENCE, Guest

PARTITIONS = {"A": "/dev/vda2", "B": "/dev/vda3"}
# How often a slot on trial may be booted.
TRIES = 3

CONFIG = """
state_directory = "/data/fleethand/state"

[connection]
endpoint = "{host}"
port = {port}
thing_name = "{thing}"
certificate = "certificate.pem"
private_key = "private.key"
root_ca = "root-ca.pem"

[firmware]
target = "slots"
[firmware.slots]
A = "/dev/vda2"
B = "/dev/vda3"

[boot]
kind = "grub"
env = "/boot/env/grub/grubenv"
tries = {tries}

[health]
commands = [["/usr/libexec/product-health"]]
within_seconds = 60
cloud = true

[config]
file = "/data/product.json"

[download]
allow_http = true
"""


def expect(what, found, expected):
    assert found == expected, f"{what} is {found!r}, expected {expected!r}"


class Bench:
    def __init__(self, cloud, work, agent):
        self.cloud, self.work, self.agent, self.documents = cloud, work, agent, {}
        self.factory = system(work, "1", agent)

    def document(self, version, broken=None):
        """The job document that installs this version; its image is made when it is first asked for."""
        if version not in self.documents:
            image = system(self.work, version, self.agent, broken)
            self.documents[version] = {"operation": "update-firmware", "version": version, **self.cloud.put(image)}
            image.unlink()
        return self.documents[version]

    def device(self, thing):
        """As it leaves the factory: version 1 in slot A, nothing in slot B."""
        folder = self.work / thing
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "data").mkdir(parents=True)
        identity = self.cloud.thing(thing, folder / "data" / "fleethand")
        port = self.cloud.ready["mqtts"].rsplit(":", 1)[1]
        (identity / "fleethand.toml").write_text(CONFIG.format(host=HOST, port=port, thing=thing, tries=TRIES))
        base = disk(folder / "factory.img", self.factory, folder / "data")
        return Device(self.cloud, thing, folder, overlay(base, folder / "disk.qcow2"))


class Device(Guest):
    def __init__(self, cloud, thing, folder, image):
        super().__init__(image, folder)
        self.cloud, self.thing = cloud, thing

    def order(self, name, document):
        """A job; its name is made this device's own."""
        job = f"{self.thing}-{name}"
        self.cloud.order(self.thing, job, document)
        return job

    def phase(self, job):
        status, details = self.cloud.execution(self.thing, job)
        return details.get("phase", status)

    def ended(self, job):
        """The status of the execution that has ended, its reason, and its message."""
        give_up = time.monotonic() + PATIENCE
        while True:
            status, details = self.cloud.execution(self.thing, job)
            if status not in ("QUEUED", "IN_PROGRESS"):
                return status, details.get("reason"), details.get("message", "")
            assert time.monotonic() < give_up, f"{job} has not ended within {PATIENCE} s: {status} {details}"
            time.sleep(0.3)

    def runs(self, slot, version):
        """The system in this slot runs, is the one that will be booted, and boots again when a job asks for that."""
        before = self.settled(slot, version)
        job = self.order(f"reboot-{before['boot'][:8]}", {"operation": "reboot"})
        expect("the reboot", self.ended(job)[:2], ("SUCCEEDED", "rebooted"))
        assert self.settled(slot, version)["boot"] != before["boot"], "the boot id is still the same"

    def settled(self, slot, version):
        facts = self.facts()
        expect("the slot that runs", (facts["slot"], facts["root"]), (slot, PARTITIONS[slot]))
        expect("the version that runs", facts["version"], version)
        environment = facts["environment"]
        expect("the slot of the next boot", environment.get("good"), slot)
        assert not environment.get("try"), f"a trial is still open: {environment}"
        return facts
