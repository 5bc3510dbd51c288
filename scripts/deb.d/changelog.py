"""CHANGELOG.md on stdin becomes a Debian changelog: `changelog.py VERSION`, which is the newest section's."""

import os
import re
import sys
import textwrap
import time

DATE = "%a, %d %b %Y %H:%M:%S +0000"


def maintainer():
    with open("packaging/debian/control") as control:
        return next(line.split(": ", 1)[1].strip() for line in control if line.startswith("Maintainer: "))


def entries(section):
    """What a section says, a line each: `### Added` is kept as a word before what was added."""
    kind, item = "", ""
    for line in [*section.splitlines(), "- "]:
        if line.startswith(("- ", "### ")) and item:
            yield f"{kind}{item}"
            item = ""
        if line.startswith("### "):
            kind = f"{line[4:].strip()}: "
        elif line.startswith("- "):
            item = line[2:].strip()
        elif item and line.strip():
            item += f" {line.strip()}"


def main():
    newest = sys.argv[1]
    sections = re.split(r"^## ", sys.stdin.read(), flags=re.MULTILINE)[1:]
    for number, section in enumerate(sections):
        head, body = section.split("\n", 1)
        named = re.match(r"\[?(\d[^\] ]*)\]? - (\d{4}-\d\d-\d\d)", head)
        if number == 0:
            version, when = newest, time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))
        else:
            assert named, f"CHANGELOG.md: {head!r} is no heading of a release, expected `## [1.2.3] - 2026-01-31`"
            version, when = named[1], time.strptime(named[2], "%Y-%m-%d")
        print(f"fleethand ({version}) unstable; urgency=medium\n")
        for entry in entries(body):
            wrapped = textwrap.wrap(entry, 76, break_long_words=False, break_on_hyphens=False)
            print("  * " + "\n    ".join(wrapped))
        print(f"\n -- {maintainer()}  {time.strftime(DATE, when)}\n")


main()
