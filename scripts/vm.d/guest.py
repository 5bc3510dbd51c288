"""The device: a machine under QEMU that can be switched on, asked, and cut off from its power."""

import json
import os
import socket
import subprocess
import time

# Much longer than anything takes on an idle machine: it only ends what would never end.
PATIENCE = 1800


class Guest:
    def __init__(self, disk, folder, memory=384):
        self.folder, self.console, self.process = folder, folder / "console.log", None
        # The path of a Unix socket may not be long.
        self.port = os.path.relpath(folder / "facts")
        self.command = [
            *"qemu-system-x86_64 -accel tcg,thread=multi -cpu qemu64 -smp 2 -nodefaults -no-user-config".split(),
            *"-display none -device i6300esb -action watchdog=reset".split(),
            *["-m", str(memory), "-drive", f"file={disk},if=virtio,format=qcow2,cache=writeback"],
            *"-netdev user,id=net -device virtio-net-pci,netdev=net,romfile=".split(),
            *"-object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng".split(),
            *["-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"],
            *["-chardev", f"socket,id=facts,path={self.port},server=on,wait=off", "-serial", "chardev:facts"],
        ]
        self.questions = 0

    def __enter__(self):
        self.power_on()
        return self

    def __exit__(self, *_):
        self.power_cut()

    def power_on(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)

    def power_cut(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def boots(self):
        """The slots that GRUB chose, in order."""
        said = self.console.read_text(errors="replace") if self.console.exists() else ""
        return "".join(line.split("GRUB slot=")[1][0] for line in said.splitlines() if "GRUB slot=" in line)

    def facts(self):
        """What the running system says of itself. Until one runs, nobody answers."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            assert self.process.poll() is None, "QEMU has ended"
            try:
                return self.ask()
            except (OSError, ValueError):
                time.sleep(0.5)
        raise TimeoutError(f"no system answered within {PATIENCE} s")

    def ask(self):
        self.questions += 1
        with socket.socket(socket.AF_UNIX) as port:
            port.settimeout(5)
            port.connect(self.port)
            port.sendall(f"{self.questions}\n".encode())
            for line in port.makefile():
                # A terminal that is not raw yet echoes, an earlier question may be answered late, and half of a line is no
                # JSON.
                answer = json.loads(line)
                if isinstance(answer, dict) and answer["question"] == str(self.questions):
                    environment = dict(pair.split("=", 1) for pair in answer["environment"].split())
                    return {**answer, "environment": environment}
        raise ConnectionError("the port was closed")
