"""The agent of another processor at the local cloud. `scripts/arm-test` makes what this uses."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# The cloud as scripts/vm-test asks it.
sys.path.append(str(HERE.parent / "vm.d"))

from cloud import Cloud
from machine import wait_until

THING = "edge-01"
# How `file` names the processor, who plays it, and where its libraries are.
PROCESSORS = {
    "arm64": ("aarch64", "qemu-aarch64-static", "/usr/aarch64-linux-gnu"),
    "armhf": ("ARM, EABI5", "qemu-arm-static", "/usr/arm-linux-gnueabihf"),
}


def main():
    parser = argparse.ArgumentParser(prog="scripts/arm-test", description=__doc__)
    parser.add_argument("processor", choices=PROCESSORS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--binaries", type=Path, nargs=2, required=True)
    options = parser.parse_args()
    agent, binary = options.binaries
    said = subprocess.run(["file", "--brief", agent], check=True, capture_output=True, text=True).stdout
    name, qemu, libraries = PROCESSORS[options.processor]
    assert name in said, f"{agent}: {said}"
    with Cloud(binary, options.work / "cloud.log", "127.0.0.1") as cloud:
        device = cloud.thing(THING, options.work / "thing")
        (device / "config.json").write_text('{"rate": 1}')
        image = options.work / "firmware-2"
        image.write_bytes(bytes(range(256)) * (4096 * 8))
        firmware = {"operation": "update-firmware", "version": "2", **cloud.put(image)}
        jobs = {
            "firmware": (firmware, ("SUCCEEDED", "installed")),
            "configuration": ({"operation": "update-config", "config": {"rate": 5}}, ("SUCCEEDED", "configured")),
            "wrong-checksum": (firmware | {"version": "3", "checksum": "sha256:" + 64 * "0"}, ("FAILED", "checksum-mismatch")),
        }
        with (options.work / "agent.log").open("wb") as log:
            process = subprocess.Popen([qemu, "-L", libraries, agent, "run", "--config", device / "fleethand.toml"], stderr=log)
        try:
            for job, (document, expected) in jobs.items():
                begun = time.monotonic()
                cloud.order(THING, job, document)

                def ended():
                    assert process.poll() is None, (options.work / "agent.log").read_text()
                    status, details = cloud.execution(THING, job)
                    return status not in ("QUEUED", "IN_PROGRESS") and (status, details.get("reason"))

                found = wait_until(ended, f"{job} ends")
                assert found == expected, f"{job} ended {found}\n{(options.work / 'agent.log').read_text()}"
                print(f"  {time.monotonic() - begun:5.1f} s {job}: {' '.join(found)}", flush=True)
        finally:
            process.terminate()
            process.wait()
        assert (device / "firmware.bin").read_bytes() == image.read_bytes(), "the firmware is another one"


main()
