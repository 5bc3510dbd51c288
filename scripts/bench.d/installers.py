"""RAUC and SWUpdate as Debian has them, with slot A running and the image for slot B; and what their processes hold."""

import os
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from common import memory, running, wait_until

SIGNED = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=maker".split()


def absent(*programs):
    return next((f"{program} is not installed" for program in programs if not shutil.which(program)), None)


def maker(folder):
    """A key that signs, and its certificate."""
    purpose = ["-addext", "extendedKeyUsage=emailProtection", "-keyout", "maker.key", "-out", "maker.pem"]
    subprocess.run([*SIGNED, *purpose], cwd=folder, check=True, stderr=subprocess.DEVNULL)


def family(pid):
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


@contextmanager
def watched(pid):
    """The peak of each process of this family, in KiB, asked for all the time."""
    peaks, over = {}, threading.Event()

    def watch():
        while not over.wait(0.005):
            with suppress(OSError):
                for each in family(pid):
                    with suppress(OSError, KeyError):
                        peaks[each] = memory(each, "VmHWM")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


class Rauc:
    """Its service on a bus of its own. The bundle is "plain", the format that asks nothing of the kernel."""

    def __init__(self, folder, slots, image):
        self.folder, self.slots, self.image = folder / "rauc", slots, image
        self.missing = absent("rauc", "dbus-daemon", "mksquashfs")
        self.stack = ExitStack()
        self.name = "RAUC"

    def __enter__(self):
        if not self.missing:
            self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.folder.mkdir()
            maker(self.folder)
            self.bundle()
            self.start()
            version = subprocess.run(["rauc", "--version"], check=True, capture_output=True, text=True).stdout
            self.name = f"RAUC {version.split()[-1]}"
        return self

    def __exit__(self, *_):
        self.stack.close()

    def bundle(self):
        content = self.folder / "content"
        content.mkdir()
        (content / "rootfs.img").hardlink_to(self.image.plain)
        (content / "manifest.raucm").write_text(
            "[update]\ncompatible=bench\nversion=2\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=rootfs.img\n"
        )
        keys = "--cert=maker.pem --key=maker.key --keyring=maker.pem".split()
        self.quietly("rauc", *keys, "bundle", "content", "bundle.raucb")

    def start(self):
        folder = self.folder
        (folder / "mnt").mkdir()
        (folder / "bootloader").write_text(
            '#!/bin/sh\ncase $1 in get-primary) echo A ;; get-state) echo good ;; *) ;; esac\n'
        )
        (folder / "bootloader").chmod(0o755)
        slots = "".join(
            f"[slot.rootfs.{number}]\ndevice={self.slots[name].device}\ntype=raw\nbootname={name}\n"
            for number, name in enumerate("AB")
        )
        (folder / "system.conf").write_text(
            f"[system]\ncompatible=bench\nbootloader=custom\nstatusfile={folder}/status\nmountprefix={folder}/mnt\n"
            f"bundle-formats=plain\n[keyring]\npath={folder}/maker.pem\n"
            f"[handlers]\nbootloader-custom-backend={folder}/bootloader\n{slots}"
        )
        (folder / "bus.conf").write_text(
            f"<busconfig><type>system</type><listen>unix:path={folder}/bus</listen><policy context='default'>"
            "<allow user='*'/><allow own='*'/><allow send_destination='*'/><allow receive_sender='*'/>"
            "</policy></busconfig>"
        )
        log = self.stack.enter_context((folder / "log").open("wb"))
        bus = ("dbus-daemon", "--nofork", "--nopidfile", "--config-file", folder / "bus.conf")
        self.stack.enter_context(running(*bus, stderr=log))
        wait_until((folder / "bus").exists, "the bus listens")
        self.environment = dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={folder}/bus")
        self.rauc = ("rauc", "--conf", folder / "system.conf")
        service = (*self.rauc, "service", "--override-boot-slot", "A")
        self.service = self.stack.enter_context(running(*service, stdout=log, stderr=log, env=self.environment))
        wait_until(lambda: not self.run("status").returncode, "RAUC answers")

    def run(self, *words):
        return subprocess.run([*self.rauc, *words], capture_output=True, env=self.environment)

    def install(self):
        """The peak of the service and its largest child, in KiB."""
        with watched(self.service.pid) as peaks:
            done = self.run("install", self.folder / "bundle.raucb")
        assert not done.returncode, done.stderr.decode()
        return max(peaks.values())

    def quietly(self, *command):
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class SWUpdate:
    """One installation for each start of the program. The image goes straight from the archive into the slot."""

    def __init__(self, folder, slots, image, packed):
        self.folder, self.slot = folder / "swupdate", slots["B"]
        self.image, self.packed = image, packed
        self.missing = absent("swupdate", "cpio")
        self.name = "SWUpdate, image packed with zstd" if packed else "SWUpdate"

    def __enter__(self):
        if not self.missing:
            self.folder.mkdir()
            maker(self.folder)
            self.bundle()
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def bundle(self):
        path = self.image.packed if self.packed else self.image.plain
        (self.folder / "rootfs").hardlink_to(path)
        packed = ' compressed = "zstd";' if self.packed else ""
        (self.folder / "sw-description").write_text(
            'software = { version = "2"; hardware-compatibility: [ "1.0" ]; images: ( { filename = "rootfs"; type = "raw";'
            f' device = "{self.slot.device}"; sha256 = "{self.image.digests[path]}";{packed}'
            " installed-directly = true; } ); };\n"
        )
        sign = "openssl cms -sign -in sw-description -out sw-description.sig -signer maker.pem -inkey maker.key"
        subprocess.run(f"{sign} -outform DER -nosmimecap -binary".split(), cwd=self.folder, check=True)
        pack = "printf '%s\\n' sw-description sw-description.sig rootfs | cpio --quiet -o -H crc >bundle.swu"
        subprocess.run(pack, shell=True, cwd=self.folder, check=True)

    def install(self):
        """The peak of its largest process, in KiB."""
        command = ["swupdate", "-H", "bench:1.0", "-B", "none", "-k", "maker.pem", "-i", "bundle.swu"]
        # Its sockets have no business in anybody's /tmp.
        environment = dict(os.environ, TMPDIR=str(self.folder))
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
            with watched(process.pid) as peaks:
                status = process.wait()
        assert status == 0, (self.folder / "log").read_text()
        return max(peaks.values())
