"""What the scripts of the benchmark share: rows of a table, processes that end, the agent at a service, a file server."""

import os
import platform
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

from service import Service

BINARIES = Path(sys.argv[1])
QUICK = "--quick" in sys.argv
# How long a device with nothing to do is watched.
MINUTES = int(sys.argv[sys.argv.index("--minutes") + 1]) if "--minutes" in sys.argv else 1 if QUICK else 10
ROUNDS, SIZE = (1, 64) if QUICK else (5, 512)
THING = "bench"
# Told to stop, everything that was started is stopped and removed, as at any other end.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def row(name, value, aim=""):
    print(f"  {name:<58} {value:>16}  {aim}", flush=True)


def title(text):
    print(f"\n{text}", flush=True)


def memory(pid, member):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{member}:"):
            return int(line.split()[1])
    raise KeyError(member)


def mib(kib):
    return f"{kib / 1024:.1f} MiB"


def ms(values, at=50):
    return f"{1000 * statistics.quantiles(values, n=100, method='inclusive')[at - 1]:.2f} ms"


def wait_until(true, what):
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up, f"{what}: not within 30 s"
        time.sleep(0.05)


@contextmanager
def running(*command, **options):
    process = subprocess.Popen([str(part) for part in command], **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def agent(config, log):
    return running(BINARIES / "fleethand", "run", "--config", config, stderr=log)


# The agent at a service of our own, with a stopwatch.


def certificates(folder):
    """An authority, and one certificate of it for whoever needs one: broker, file server, device."""
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split()
    quiet = dict(check=True, stderr=subprocess.DEVNULL, cwd=folder)
    subprocess.run([*made, "-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", "ca.pem"], **quiet)
    leaf = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    leaf += ["-addext", "basicConstraints=critical,CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key"]
    subprocess.run([*made, *leaf, "-keyout", "leaf.key", "-out", "leaf.pem"], **quiet)


FILE = '[firmware]\nfile = "firmware.bin"'


def configured(folder, pki, port, firmware=FILE):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"name": "edge", "rate": 0, "debug": false}\n')
    config = folder / "fleethand.toml"
    config.write_text(f"""
state_directory = "state"
[connection]
endpoint = "localhost"
port = {port}
thing_name = "{THING}"
certificate = "{pki}/leaf.pem"
private_key = "{pki}/leaf.key"
root_ca = "{pki}/ca.pem"
[config]
file = "config.json"
[download]
root_ca = "{pki}/ca.pem"
{firmware}
""")
    return config


@contextmanager
def helper(config, log):
    """The second process. Nothing starts it by its socket, so it stays."""
    user = pwd.getpwuid(os.getuid()).pw_name
    with config.open("a") as file:
        file.write(f'\n[helper]\nsocket = "helper.sock"\nuser = "{user}"\nstate_directory = "helper"\n')
    with running(BINARIES / "fleethand", "helper", "--config", config, stderr=log) as process:
        wait_until(config.with_name("helper.sock").exists, "the helper listens")
        yield process


@contextmanager
def served(folder, pki, divided=False):
    """A service, and the agent connected to it; and how long that took from its start to its CONNECT."""
    service = Service(THING, pki / "ca.pem", pki / "leaf.pem", pki / "leaf.key")
    config = configured(folder, pki, service.port)
    with (folder / "agent.log").open("wb") as log, helper(config, log) if divided else nullcontext():
        begun = time.monotonic()
        with agent(config, log) as process:
            connected = service.accept()
            yield service, process, connected - begun
            service.close()
    shutil.rmtree(folder)


@contextmanager
def nginx(folder, pki):
    """Serves what is in `folder/served`, over TLS; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(f"""
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_processes 1;
events {{}}
http {{
    access_log off; sendfile on; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl; root {folder}/served;
        ssl_certificate {pki}/leaf.pem; ssl_certificate_key {pki}/leaf.key;
    }}
}}
""")
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    with running("nginx", "-c", folder / "nginx.conf", "-e", folder / "nginx.log", *user):
        wait_until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), "nginx listens")
        yield f"https://localhost:{port}"


def machine():
    processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), platform.machine())
    print(f"{processor}, {os.cpu_count()} cores, Linux {platform.release()}; load {os.getloadavg()[0]:.1f}")
