"""The packages on a Debian that is booted. `scripts/deb-test` makes what this uses."""

import argparse
import signal
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
# The cloud as scripts/vm-test asks it.
sys.path.append(str(HERE.parent / "vm.d"))

from cloud import Cloud
from machine import Machine
from story import Story


@contextmanager
def disk(folder):
    """A block device that is nobody's; as it is called inside, it is a disk of the product."""
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    device = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def main():
    parser = argparse.ArgumentParser(prog="scripts/deb-test", description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--cloud", type=Path, required=True)
    parser.add_argument("--packages", type=Path, nargs=2, required=True)
    options = parser.parse_args()
    # Told to stop, everything that was started is stopped, as at any other end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # At the ports that everybody expects: the network is its own.
    ports = {"api": 4566, "store": 4568, "mqtts": 8883}
    with Cloud(options.cloud, options.work / "cloud.log", "127.0.0.1", **ports) as cloud, disk(options.work) as device:
        environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        with Machine(options.tree, options.work / "device", options.network, {device: "/dev/product-disk"}, environment) as machine:
            story = Story(machine, cloud, *options.packages)
            wrong = 0
            for step in story.steps():
                begun = time.monotonic()
                try:
                    said = step() or ""
                except Exception:
                    traceback.print_exc()
                    print(f"  WRONG   {step.__doc__}", flush=True)
                    # What comes later is built on it.
                    wrong = 1
                    break
                print(f"  {time.monotonic() - begun:5.1f} s {step.__doc__} {said}", flush=True)
    sys.exit(wrong)


main()
