"""Run in the place of one of fleethand's processes, with all that its unit allows: what comes of trying. Prints JSON."""

import ctypes
import json
import mmap
import os
import socket
import subprocess
import time
from functools import partial

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, ALL, FINIT_MODULE = 0x10000000, 7, {"x86_64": 313, "aarch64": 273}[os.uname().machine]


def call(function, *arguments):
    if function(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read(path):
    with open(path, "rb") as file:
        file.read()


def change(path):
    os.close(os.open(path, os.O_WRONLY))


def write(folder):
    with open(f"{folder}/probe", "w") as file:
        file.write("probe")
    os.unlink(f"{folder}/probe")


def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.connect(address)


def make_socket(family, kind):
    socket.socket(family, kind).close()


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise OSError(0, (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0])


def set_user_id():
    path = os.environ["STATE_DIRECTORY"] + "/probe"
    try:
        os.close(os.open(path, os.O_CREAT))
        os.chmod(path, 0o4755)
    finally:
        os.unlink(path)


def write_and_run_memory():
    page = mmap.mmap(-1, mmap.PAGESIZE)
    call(libc.mprotect, ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page))), mmap.PAGESIZE, ALL)


def reboot():
    """By an order that there is not: who may reboot is told that, and everybody else is refused before."""
    try:
        call(libc.reboot, 1)
    except OSError as error:
        if error.strerror != "Invalid argument":
            raise


FOLDERS = ("/etc", "/etc/fleethand", "/usr/bin", "/opt/product", "/boot", "/var/lib", "/home", "/root")
OURS = ("/var/lib/fleethand", "/var/lib/fleethand-helper", "/run/fleethand")
TRIES = {f"write to {folder}": partial(write, folder) for folder in FOLDERS + OURS} | {
    "read the configuration": partial(read, "/etc/fleethand/fleethand.toml"),
    "change the configuration": partial(change, "/etc/fleethand/fleethand.toml"),
    "read /etc/shadow": partial(read, "/etc/shadow"),
    "read root's files": partial(read, "/root/.profile"),
    "list the helper's state": partial(os.listdir, "/var/lib/fleethand-helper"),
    "open a disk": partial(change, os.environ["PROBE_DISK"]),
    "read another process's environment": partial(read, "/proc/1/environ"),
    "signal another process": partial(os.kill, 1, 0),
    "connect to the cloud": partial(connect, socket.AF_INET, ("127.0.0.1", 4566)),
    "connect to the helper": partial(connect, socket.AF_UNIX, "/run/fleethand/helper.sock"),
    "make a raw socket": partial(make_socket, socket.AF_INET, socket.SOCK_RAW),
    "make a packet socket": partial(make_socket, socket.AF_PACKET, socket.SOCK_RAW),
    "become root by sudo": partial(run, "sudo", "-n", "true"),
    "make a set-user-id file": set_user_id,
    "make a user namespace": lambda: call(libc.unshare, CLONE_NEWUSER),
    "mount": lambda: call(libc.mount, b"none", b"/mnt", b"tmpfs", 0, None),
    "load a module": lambda: call(libc.syscall, FINIT_MODULE, -1, b"", 0),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "change a kernel setting": partial(change, "/proc/sys/kernel/printk"),
    "write and run memory": write_and_run_memory,
    "order systemd to start a unit": partial(run, "systemctl", "start", "systemd-tmpfiles-clean.service"),
    "reboot": reboot,
}


def outcome(tried):
    try:
        tried()
    except OSError as error:
        return error.strerror or str(error)
    return "done"


print(json.dumps({name: outcome(tried) for name, tried in TRIES.items()}))
