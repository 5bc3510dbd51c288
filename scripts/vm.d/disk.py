"""Disks of the device: two slots with systems that differ in their version and in what is broken, GRUB, and data."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
MIB = 1 << 20
# Partitions in MiB: the boot environment, slot A, slot B, data.
FIRST, SIZES = 1, (16, 192, 192, 64)
MODULES = "biosdisk part_msdos ext2 loadenv normal linux serial terminal echo test sleep reboot".split()
GRUB = Path("/usr/lib/grub/i386-pc")

# What is wrong with a system: files of it that are another's, or are not there.
REPLACED = {
    "unhealthy": {"/usr/libexec/product-health": b"#!/bin/sh\necho 'the product does not start' >&2\nexit 1\n"},
    "panics": {"/usr/sbin/init": b"#!/bin/sh\necho c >/proc/sysrq-trigger\n"},
    "no-kernel": {"/vmlinuz": None},
    "no-init": {"/usr/sbin/init": None},
}


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


def as_root(*command):
    run(*(() if os.geteuid() == 0 else ("sudo",)), *command)


def file_system(image, mib, folder, *options):
    """An ext file system with what is in the folder, all of it root's."""
    image.unlink(missing_ok=True)
    mapped = () if os.geteuid() == 0 else ("unshare", "--map-root-user")
    run(*mapped, "mke2fs", "-q", *options, "-d", folder, image, f"{mib}M", stdout=subprocess.DEVNULL)


def debian(work):
    """The system that the others are made of: from Debian's archive once, then kept."""
    sources = [HERE / "mkslot", HERE / "finish", *sorted(path for path in (HERE / "slot").rglob("*") if path.is_file())]
    made_of = hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in sources)).hexdigest()
    image, stamp = work / "debian.ext4", work / "debian.sha256"
    if not (image.exists() and stamp.exists() and stamp.read_text() == made_of):
        stamp.unlink(missing_ok=True)
        as_root(HERE / "mkslot", image, SIZES[1])
        as_root("chown", f"{os.getuid()}:{os.getgid()}", image)
        stamp.write_text(made_of)
    return image


def system(work, version, agent, broken=None):
    """The image of a slot. Files are put into it without mounting it."""
    image, parts = work / f"system-{version}.ext4", work / "parts"
    run("cp", "--sparse=always", debian(work), image)
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    files = {"/usr/bin/fleethand": Path(agent).read_bytes(), "/etc/fleethand-image-version": f"{version}\n".encode()}
    files |= REPLACED.get(broken, {})
    orders = []
    for number, (name, content) in enumerate(files.items()):
        orders += [f"cd {Path(name).parent}", f"rm {Path(name).name}"]
        if content is not None:
            part = parts / str(number)
            part.write_bytes(content)
            orders.append(f"write {part} {Path(name).name}")
            orders += [f"sif {name} {field}" for field in ("mode 0100755", "uid 0", "gid 0")]
    (parts / "orders").write_text("\n".join(orders) + "\n")
    run("debugfs", "-w", "-f", parts / "orders", image, capture_output=True)
    # debugfs ends with 0 whatever went wrong.
    run("e2fsck", "-fn", image, capture_output=True)
    for name, content in files.items():
        asked = "stat" if content is None else "cat"
        held = run("debugfs", "-R", f"{asked} {name}", image, capture_output=True).stdout
        assert held == (content or b""), f"{name} of {image} is not what it should be"
    return image


def disk(image, slot_a, data):
    """A disk with the system in slot A, nothing in slot B, and the folder on the data partition."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate((FIRST + sum(SIZES)) * MIB)
    starts = [FIRST + sum(SIZES[:number]) for number in range(len(SIZES))]
    table = [f"start={start}MiB, size={size}MiB, type=83" for start, size in zip(starts, SIZES)]
    run("sfdisk", "--quiet", image, input="\n".join(["label: dos", *table]), text=True)

    scratch = image.with_suffix(".parts")
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "boot" / "grub").mkdir(parents=True)
    shutil.copy(HERE / "grub.cfg", scratch / "boot" / "grub" / "grub.cfg")
    run("grub-editenv", scratch / "boot" / "grub" / "grubenv", "set", "good=A")
    file_system(scratch / "boot.ext2", SIZES[0], scratch / "boot", "-t", "ext2")
    file_system(scratch / "data.ext4", SIZES[3], data, "-t", "ext4")
    for start, part in zip(starts, (scratch / "boot.ext2", slot_a, None, scratch / "data.ext4")):
        if part:
            put(part, image, start * MIB, "conv=notrunc,sparse")
    core = ("grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/grub", "-o", scratch / "core.img")
    run(*core, *MODULES)
    assert (scratch / "core.img").stat().st_size < FIRST * MIB - 512
    put(scratch / "core.img", image, 512)
    put(GRUB / "boot.img", image, 0, "conv=notrunc", "count=440", "iflag=count_bytes")
    shutil.rmtree(scratch)
    return image


def put(part, image, at, *options):
    options = options or ("conv=notrunc",)
    run("dd", f"if={part}", f"of={image}", f"seek={at}", "oflag=seek_bytes", "bs=64k", "status=none", *options)


def overlay(base, image):
    """What a guest has written is known only from its flush on: the power can be cut at the price that a disk asks."""
    image.unlink(missing_ok=True)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", image)
    return image
