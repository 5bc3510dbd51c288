"""One device, from its package to its purge. Each step is a method; they come in the order of `steps`."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from instructions import Instructions
from machine import wait_until
from sandbox import assert_confined

THING = "edge-01"
HOME = "/root/maker"
# What a reader puts in the place of the words in capitals. The local cloud answers where AWS would.
WORDS = {
    "PREFIX-ats.iot.REGION.amazonaws.com": "localhost",
    "eu-west-1": "us-east-1",
    "REGION": "us-east-1",
    "ACCOUNT": "123456789012",
    "BUCKET": "firmware",
    "ROLE_THAT_MAY_READ_BUCKET": "jobs",
    # Whoever edits changes nothing.
    "sudoedit": "EDITOR=true sudoedit",
}
# What the product's firmware is here: a program that goes on until it is stopped, and much that it does not read.
FIRMWARE = b"#!/bin/sh\n# version %s\nexec sleep infinity\n"
PRODUCT = """[Unit]
Description=The product
[Service]
ExecStart=/opt/product/firmware.bin
[Install]
WantedBy=multi-user.target
"""
# systemd-nspawn mounts the boot id of its machine over the kernel's, and the helper's own /proc has the kernel's. On a device
# they are the same.
BOOT_ID = """[Unit]
Description=The id of this boot, where the helper sees it
DefaultDependencies=no
Before=fleethand-helper.socket
[Service]
Type=oneshot
ExecStart=cp /proc/sys/kernel/random/boot_id /run/boot-id
RemainAfterExit=yes
[Install]
WantedBy=multi-user.target
RequiredBy=fleethand-helper.socket
"""
TARGETS = """
[firmware]
file = "/opt/product/firmware.bin"
command = ["systemctl", "restart", "product.service"]
[[config]]
file = "/etc/product/config.json"
"""
AWS = """#!/bin/sh
case "$1" in s3*) port=4568 ;; *) port=4566 ;; esac
exec /usr/bin/aws --endpoint-url "http://127.0.0.1:$port" "$@"
"""
OWNERS = {
    "/etc/fleethand/fleethand.toml": "-rw-r----- root:fleethand",
    "/etc/fleethand/identity": "drwx------ fleethand:fleethand",
    "/etc/fleethand/keys.d": "drwxr-xr-x root:root",
    "/run/fleethand": "drwxr-xr-x fleethand:fleethand",
}
# systemd says that much of what each process could do at worst.
EXPOSURE = {"fleethand.service": 1.5, "fleethand-helper.service": 4.0}
# Made by whoever installs any system user.
BACKUPS = {f"etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")}


class Story:
    def __init__(self, machine, cloud, old, new):
        self.machine, self.cloud, self.old, self.new = machine, cloud, old, new
        self.install, self.readme = Instructions("docs/install.md"), Instructions("README.md")
        self.words = dict(WORDS)

    def steps(self):
        yield self.make_the_thing
        yield self.install_the_package
        yield self.upgrade_what_is_not_set_up
        yield self.set_it_up
        yield self.look_at_it
        yield self.run_a_job_as_the_readme_does
        yield self.reboot
        yield self.let_the_helper_rest
        yield self.try_what_they_may_do
        yield self.upgrade_in_a_download
        yield self.keep_the_key_as_a_credential
        yield self.remove
        yield self.install_again
        yield self.purge
        yield self.try_it_at_home

    # What the steps are made of.

    def follow(self, blocks):
        """Types what the documents say, in the folder where a maker has their files."""
        for block in blocks:
            for word, meant in self.words.items():
                block = block.replace(word, meant)
            said = self.machine.run(f"cd {HOME}\n{block}")
        return said

    def uncomment(self, key, value):
        """Sets a key that stands in the configuration with its default."""
        config = Path(f"{self.machine.tree}/etc/fleethand/fleethand.toml")
        text, found = re.subn(f"^#{key} = .*$", f"{key} = {value}", config.read_text(), flags=re.M)
        assert found == 1, f"{key} is there {found} times"
        config.write_text(text)

    def put_packages(self, folder):
        self.machine.run(f"rm -f {HOME}/*.deb")
        for package in folder.glob("*.deb"):
            shutil.copy(package, f"{self.machine.tree}{HOME}")

    def version(self):
        return self.machine.run("dpkg-query -W -f '${Version}' fleethand")

    def is_active(self, unit="fleethand.service"):
        return self.machine.run(f"systemctl is-active {unit}", check=False) == "active"

    def ended(self, job):
        """How the execution ended, once it has."""

        def terminal():
            status, details = self.cloud.execution(THING, job)
            return status not in ("QUEUED", "IN_PROGRESS") and (status, details.get("reason"), details.get("message"))

        return wait_until(terminal, f"{job} ends")

    def order_firmware(self, version, size):
        image = self.machine.tree / "tmp" / f"firmware-{version}"
        image.write_bytes(FIRMWARE % version.encode() + bytes(size))
        self.order(f"firmware-{version}".replace(".", "-"), {"operation": "update-firmware", "version": version, **self.cloud.put(image)})

    def order(self, job, document):
        self.cloud.order(THING, job, document)

    def expect(self, job, expected):
        found = self.ended(job)
        assert found[:2] == expected, f"{job} ended {found}, expected {expected}\n{self.log()}"

    def log(self):
        return self.machine.run("journalctl --no-pager -n 80 -u 'fleethand*' -u product", check=False)

    # The steps.

    def make_the_thing(self):
        """A thing is made as README.md says, with the AWS CLI"""
        machine = self.machine
        machine.run(f"mkdir -p {HOME}")
        shutil.copytree("packaging", f"{machine.tree}{HOME}/packaging")
        # Whoever is asked says yes.
        machine.put("/etc/apt/apt.conf.d/yes", 'APT::Get::Assume-Yes "true";\n')
        # "Put your region and account into it."
        machine.run(f"sed -i 's/REGION/us-east-1/; s/ACCOUNT/123456789012/' {HOME}/packaging/iot-policy.json")
        # The CLI asks the local cloud, whatever the service.
        machine.put("/usr/local/bin/aws", AWS, 0o755)
        made = self.cloud.thing("root-ca", machine.tree / "tmp" / "root-ca")
        shutil.copy(made / "root-ca.pem", f"{machine.tree}{HOME}/AmazonRootCA1.pem")
        block = self.readme.under("A job from AWS", 0)[0]
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        for line in lines:
            said = self.follow([line])
            if arn := re.search(r'"certificateArn": "([^"]+)"', said):
                self.words["CERTIFICATE_ARN"] = arn[1]
        assert "endpointAddress" in said, said

    def install_the_package(self):
        """apt install: nothing runs, and nothing is enabled"""
        self.before = self.machine.files()
        self.put_packages(self.old)
        self.follow(self.install.under("Install", 0))
        self.machine.run(f"cd {HOME}; apt-get -q -y install ./fleethandctl_*.deb ./fleethand-cloud_*.deb")
        enabled = self.machine.run("systemctl is-enabled fleethand.service fleethand-helper.socket", check=False)
        assert (enabled, self.is_active()) == ("disabled\ndisabled", False), enabled
        for path, owner in OWNERS.items():
            found = self.machine.run(f"stat -c '%A %U:%G' {path}")
            assert found == owner, f"{path} is {found}, expected {owner}"
        for name in ("fleethand", "fleethandctl", "fleethand-cloud", "fleethand-run"):
            assert "NAME" in self.machine.run(f"man -P cat {name}"), f"{name} has no man page"
        return self.version()

    def upgrade_what_is_not_set_up(self):
        """apt install again, before it is set up: still nothing runs"""
        self.machine.run(f"cd {HOME}; apt-get -q -y install --reinstall ./fleethand_*.deb")
        assert not self.is_active() and not self.is_active("fleethand-helper.socket")

    def set_it_up(self):
        """fleethand setup: connected, enabled, with targets"""
        machine = self.machine
        machine.put("/etc/systemd/system/product.service", PRODUCT)
        machine.put("/opt/product/firmware.bin", FIRMWARE.decode() % "1", 0o755)
        machine.put("/etc/product/config.json", "{}")
        machine.put("/etc/systemd/system/boot-id.service", BOOT_ID)
        machine.run("systemctl enable --now -q product.service boot-id.service")
        said = self.follow(self.install.under("Install", 1))
        enabled = machine.run("systemctl is-enabled fleethand.service fleethand-helper.socket")
        assert (enabled, self.is_active()) == ("enabled\nenabled", True), f"{enabled}\n{said}\n{self.log()}"
        with open(f"{machine.tree}/etc/fleethand/fleethand.toml", "a") as config:
            config.write(TARGETS)
        self.uncomment("boot_id_file", '"/run/boot-id"')
        self.uncomment("units", '["product.service", "boot-complete.target"]')
        self.follow(self.install.under("Install", 2))
        assert self.is_active(), self.log()
        # README.md has the same in short: nothing that works is lost by it.
        self.follow(self.readme.under("A job from AWS", 1))

    def look_at_it(self):
        """What docs/install.md says to look at"""
        self.follow(self.install.under("Look"))
        status = self.machine.run("systemctl show -p StatusText --value fleethand")
        return f"({status})"

    def run_a_job_as_the_readme_does(self):
        """A firmware job as README.md orders it"""
        machine = self.machine
        image = machine.tree / "tmp" / "firmware-2.0.bin"
        image.write_bytes(FIRMWARE % b"2.0")
        stored = self.cloud.put(image)
        self.words["PUT THE OUTPUT OF sha256sum HERE"] = stored["checksum"].removeprefix("sha256:")
        # dry-run objects to the placeholder, which is what README.md says of it.
        self.words["fleethand dry-run job.json"] = "fleethand dry-run job.json || true"
        self.follow(self.readme.under("A job from AWS", 2))
        self.expect("firmware-2-0", ("SUCCEEDED", "installed"))
        assert "version 2.0" in machine.run("head -c 60 /opt/product/firmware.bin")
        assert self.is_active("product.service")

    def reboot(self):
        """A reboot by systemctl, ordered by a job"""
        before = self.machine.boot_id()
        self.order("reboot", {"operation": "reboot"})
        self.machine.wait_for_boot(before)
        self.expect("reboot", ("SUCCEEDED", "rebooted"))

    def let_the_helper_rest(self):
        """The helper ends itself when there is nothing to do"""
        wait_until(lambda: not self.is_active("fleethand-helper.service"), "the helper ends")
        assert self.is_active("fleethand-helper.socket") and self.is_active()

    def try_what_they_may_do(self):
        """systemd-analyze security, and what each process may do, tried from inside"""
        scores = {}
        for unit, most in EXPOSURE.items():
            said = self.machine.run(f"systemd-analyze security --no-pager {unit} | tail -1")
            scores[unit] = float(re.search(r": (\d+\.\d+)", said)[1])
            assert scores[unit] <= most, said
            assert f"| {scores[unit]} |" in Path("docs/install.md").read_text() or f" {scores[unit]} " in said
        assert_confined(self.machine, Path(__file__).with_name("probe.py"), "/dev/product-disk")
        return ", ".join(f"{unit} {score}" for unit, score in scores.items())

    def upgrade_in_a_download(self):
        """apt install of the new version in the middle of a download: the job goes on to one end"""
        machine = self.machine
        self.uncomment("max_rate_bytes_per_second", 2_000_000)
        self.uncomment("progress_interval_seconds", 1)
        machine.run("systemctl restart fleethand")
        self.order_firmware("3.0", 24_000_000)

        def downloading():
            status, details = self.cloud.execution(THING, "firmware-3-0")
            assert status in ("QUEUED", "IN_PROGRESS"), (status, details)
            return details.get("phase") == "downloading" and details.get("progress", "0%") not in ("0%", "0")

        wait_until(downloading, "the download goes")
        process = machine.run("systemctl show -p MainPID --value fleethand")
        self.put_packages(self.new)
        self.follow(self.install.under("Upgrade"))
        status, details = self.cloud.execution(THING, "firmware-3-0")
        assert status == "IN_PROGRESS", f"{status}: it was not upgraded in the middle"
        assert machine.run("systemctl show -p MainPID --value fleethand") != process
        self.expect("firmware-3-0", ("SUCCEEDED", "installed"))
        assert "version 3.0" in machine.run("head -c 60 /opt/product/firmware.bin")
        return self.version()

    def keep_the_key_as_a_credential(self):
        """The private key as a credential of systemd's"""
        self.follow(self.install.under("The private key as a credential"))
        self.order("with-credential", {"operation": "update-config", "config": {"rate": 5}})
        self.expect("with-credential", ("SUCCEEDED", "configured"))

    def remove(self):
        """apt remove: it ends, the state stays"""
        kept = "/etc/fleethand/fleethand.toml /etc/fleethand/identity/certificate.pem /var/lib/fleethand /var/lib/fleethand-helper"
        state = self.machine.run(f"find {kept} -type f | sort | xargs sha256sum")
        self.follow(self.install.under("Remove", 0))
        left = self.machine.run("pgrep -x fleethand; ls /run/fleethand 2>/dev/null", check=False)
        assert not left, left
        assert self.machine.run(f"find {kept} -type f | sort | xargs sha256sum") == state

    def install_again(self):
        """apt install after that: it is who it was, and a job runs"""
        self.machine.run(f"cd {HOME}; apt-get -q -y install ./fleethand_*.deb")
        wait_until(self.is_active, "it is started")
        self.order("again", {"operation": "update-config", "config": {"rate": 6}})
        self.expect("again", ("SUCCEEDED", "configured"))

    def purge(self):
        """apt purge: everything is gone, and nothing else is"""
        self.machine.run("rm -r /etc/systemd/system/fleethand.service.d /etc/fleethand-key")
        self.follow(self.install.under("Remove", 1))
        self.machine.run("apt-get -q -y purge fleethandctl fleethand-cloud")
        self.machine.run("systemctl disable --now -q product boot-id; rm /etc/systemd/system/{product,boot-id}.service")
        self.machine.run("rm -r /opt/product /etc/product")
        now = {path for path in self.machine.files() if not path.startswith(f"{HOME}/".lstrip("/"))}
        left, lost = now - self.before - BACKUPS, self.before - now
        left = {path for path in left if not path.startswith("root/maker")}
        assert not left and not {path for path in lost if not path.startswith("root/maker")}, f"left {left}, lost {lost}"

    def try_it_at_home(self):
        """README.md and docs/install.md on a workstation, in a fresh clone"""
        demo, check = self.readme.under("Try it")
        assert check in Path(".ci/run").read_text(), "CI does not run what README.md says that it does"
        with tempfile.TemporaryDirectory(prefix="fleethand-clone-") as folder:
            subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
            environment = os.environ | {"CARGO_TARGET_DIR": str(Path("target").absolute())}
            done = subprocess.run(["bash", "-euc", demo], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{demo}\n{done.stdout}{done.stderr}"
        # That is what scripts/deb-test begins with.
        assert self.install.under("Build the packages") == ["scripts/build-deb"]
        self.readme.assert_all_followed()
        self.install.assert_all_followed()
