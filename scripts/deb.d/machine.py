"""A Debian tree that is booted with systemd as its first process, and boots again when it is told to."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

# For whatever must come to pass.
PATIENCE = 180
# What systemd-nspawn exits with when the system inside has rebooted.
REBOOTED = 133
# What a system writes by itself, whatever is installed.
OF_THE_SYSTEM = ("dev", "proc", "run", "sys", "tmp", "var/tmp", "var/log", "var/cache", "var/lib/apt", "var/lib/systemd")


def wait_until(true, what):
    give_up = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < give_up, f"{what}: not within {PATIENCE} s"
        time.sleep(0.1)
    return found


class Machine:
    def __init__(self, tree, folder, network, binds, environment):
        """Unpacks the tree; what is bound is there inside, and the environment is that of every command."""
        self.tree, self.name, self.network, self.process, self.off = folder, folder.name, network, None, False
        self.binds = binds
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.environment |= {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"} | environment
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run(["tar", "-C", folder, "-xf", tree], check=True)
        (folder / "etc/hostname").write_text(f"{self.name}\n")
        (folder / "etc/hosts").write_text(f"127.0.0.1 localhost {self.name}\n")

    def __enter__(self):
        self.keeper = threading.Thread(target=self.keep_running, daemon=True)
        self.keeper.start()
        self.wait_for_boot()
        return self

    def __exit__(self, *_):
        self.off = True
        if first := self.first_process():
            os.kill(first, signal.SIGRTMIN + 4)  # to systemd: power off
        self.keeper.join(timeout=60)
        if self.keeper.is_alive():
            self.process.kill()
            self.keeper.join()

    def keep_running(self):
        command = ["systemd-nspawn", "-D", self.tree, "-M", self.name, "--boot", "--register=no", "--keep-unit"]
        command += ["--link-journal=no", "--console=pipe", f"--network-namespace-path=/run/netns/{self.network}"]
        command += [f"--bind={outside}:{inside}" for outside, inside in self.binds.items()]
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0"}
        with self.tree.with_suffix(".console").open("wb") as console:
            ended = REBOOTED
            while ended == REBOOTED and not self.off:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment
                )
                ended = self.process.wait()

    def first_process(self):
        try:
            nspawn = self.process.pid
            children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
            return int(children[0])
        except (AttributeError, FileNotFoundError, IndexError, ProcessLookupError):
            return None

    def try_run(self, *command, **options):
        """What a command did, or nothing where there is no system to run it."""
        if not (first := self.first_process()):
            return None
        enter = ["nsenter", "-t", str(first), "-a", "--wdns=/root", *command]
        return subprocess.run(enter, capture_output=True, text=True, env=self.environment, **options)

    def run(self, script, check=True):
        """What a script of bash says, in root's home."""
        done = self.try_run("bash", "-euo", "pipefail", "-c", script)
        assert done, f"there is no system to run {script!r}"
        assert not check or done.returncode == 0, f"{script}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def put(self, path, text, mode=0o644):
        """A file inside, also where the machine has mounted something of its own."""
        done = self.try_run("install", "-D", f"--mode={mode:o}", "/dev/stdin", path, input=text)
        assert done and done.returncode == 0, f"{path}: {done and done.stderr}"

    def boot_id(self):
        done = self.try_run("cat", "/proc/sys/kernel/random/boot_id")
        return done.stdout.strip() if done and done.returncode == 0 else None

    def wait_for_boot(self, before=None):
        """Until it has booted, and that is not the boot of before."""
        def booted():
            assert self.keeper.is_alive(), self.tree.with_suffix(".console").read_text()
            return self.boot_id() not in (None, before)

        wait_until(booted, "the machine boots")

        def up():
            done = self.try_run("systemctl", "is-system-running", "--wait")
            return done and done.stdout.strip() in ("running", "degraded")

        wait_until(up, "systemd has started everything")

    def files(self):
        """Every path but what the system itself writes all the time, in a tree that runs."""
        found = set()
        for folder, folders, files in os.walk(self.tree):
            at = Path(folder).relative_to(self.tree)
            folders[:] = [name for name in folders if str(at / name) not in OF_THE_SYSTEM]
            found |= {str(at / name) for name in folders + files}
        return found
