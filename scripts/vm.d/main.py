"""Updates of a whole system on a whole device. `scripts/vm-test` builds what this runs."""

import argparse
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from bench import TRIES, Bench, expect
from cloud import Cloud


def row(name, begun, result):
    print(f"  {name:<16} {time.monotonic() - begun:6.0f} s  {result}", flush=True)


def undisturbed(bench, name):
    """An update and its commit, and the way back to the slot it came from."""
    with bench.device(name) as device:
        device.settled("A", "1")
        for version, slot in (("2", "B"), ("3", "A")):
            begun = time.monotonic()
            job = device.order(version, bench.document(version))
            expect("the execution", device.ended(job)[:2], ("SUCCEEDED", "installed"))
            row(name, begun, f"SUCCEEDED installed, {version} in {slot}, boots {device.boots()}")
            device.runs(slot, version)
        expect("the boots", device.boots(), "ABBAA")


def broken(how, reason, trial):
    """An update to a system with a fault: the one that was there comes back, and that is what is reported."""

    def scenario(bench, name):
        document = bench.document(how, how)
        with bench.device(name) as device:
            device.settled("A", "1")
            begun = time.monotonic()
            job = device.order("update", document)
            status, said, message = device.ended(job)
            boots = device.boots()
            row(name, begun, f"{status} {said} ({message}), 1 in A, boots {boots}")
            expect("the execution", (status, said), ("FAILED", reason))
            expect("the boots", boots, f"A{trial}A")
            device.runs("A", "1")

    return scenario


def cuts(seed, count):
    """Updates to and fro. In each, at a moment that nobody chose, the power goes."""

    def scenario(bench, name):
        chance = random.Random(seed)
        with bench.device(name) as device:
            device.settled("A", "1")
            slot, version = "A", "1"
            begun = time.monotonic()
            job = device.order("undisturbed", bench.document("2"))
            expect("the execution", device.ended(job)[:2], ("SUCCEEDED", "installed"))
            takes, slot, version = time.monotonic() - begun, "B", "2"
            row(name, begun, f"SUCCEEDED installed, undisturbed, seed {seed}")
            for number in range(count):
                following = {"A": ("B", "2"), "B": ("A", "3")}[slot]
                document = bench.document(following[1])
                before, at = device.boots(), chance.uniform(0, takes)
                begun = time.monotonic()
                job = device.order(f"cut-{number}", document)
                # The moment is the test: nothing is waited for.
                time.sleep(at)
                phase = device.phase(job)
                device.power_cut()
                device.power_on()
                status, reason, message = device.ended(job)
                if status == "SUCCEEDED":
                    slot, version = following
                device.settled(slot, version)
                boots = device.boots().removeprefix(before)
                said = f"{status} {reason} {message}".strip()
                row(name, begun, f"{said}, {version} in {slot}, cut after {at:.0f} s, last heard: {phase}, boots {boots}")
            device.runs(slot, version)

    return scenario


def scenarios(options):
    return {
        "update": undisturbed,
        "unhealthy": broken("unhealthy", "health-check-failed", "B"),
        "panics": broken("panics", "bootloader-rolled-back", "B" * TRIES),
        "no-kernel": broken("no-kernel", "bootloader-rolled-back", "B" * TRIES),
        "no-init": broken("no-init", "bootloader-rolled-back", "B" * TRIES),
        "power-cuts": cuts(options.seed, options.cuts),
    }


def main():
    parser = argparse.ArgumentParser(prog="scripts/vm-test", description=__doc__)
    parser.add_argument("scenarios", nargs="*", help="which; all of them unless named")
    parser.add_argument("--cuts", type=int, default=10, help="how often power-cuts cuts the power")
    parser.add_argument("--seed", type=int, default=random.randrange(10000), help="of the moments of power-cuts")
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--binaries", type=Path, nargs=2, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    known = scenarios(options)
    chosen = options.scenarios or list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")

    # Told to stop, everything that was started is stopped, as at any other end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    agent, cloud = options.binaries
    os.chdir(options.work)
    wrong = []
    with Cloud(cloud, options.work / "cloud.log") as cloud:
        bench = Bench(cloud, options.work, agent)
        print(f"QEMU without KVM on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
        for name in chosen:
            begun = time.monotonic()
            try:
                known[name](bench, name)
                for image in ("factory.img", "disk.qcow2"):
                    (options.work / name / image).unlink()
            except Exception as error:
                wrong.append(name)
                traceback.print_exc()
                row(name, begun, f"WRONG: {error}; {options.work / name / 'console.log'}")
    print(f"{len(chosen) - len(wrong)} scenarios right, {len(wrong)} wrong", flush=True)
    sys.exit(1 if wrong else 0)


main()
