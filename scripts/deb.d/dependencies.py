"""The crates that are in a package's binary, their licences, and the notices that came with them.

`dependencies.py PACKAGE TRIPLE [--features LIST]`
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

NOTICE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, capture_output=True, text=True).stdout


def main():
    package, triple, *features = sys.argv[1:]
    chosen = ["--locked", "--target", triple, *features]
    tree = cargo("tree", "-p", package, "-e", "normal,no-proc-macro", "--prefix", "none", "-f", "{p}", *chosen)
    linked = {tuple(line.split()[:2]) for line in tree.splitlines()}
    known = json.loads(cargo("metadata", "--locked", "--format-version", "1"))["packages"]
    crates = sorted(
        (crate for crate in known if (crate["name"], f"v{crate['version']}") in linked and crate["source"]),
        key=lambda crate: (crate["name"], crate["version"]),
    )
    texts = {}
    print(f"{package} was built from these crates. The numbers are of the notices below, as they came with the crate.\n")
    for crate in crates:
        folder = Path(crate["manifest_path"]).parent
        numbers = []
        for file in sorted(path for path in folder.iterdir() if path.is_file() and NOTICE.match(path.name)):
            text = file.read_text(errors="replace").strip()
            digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
            numbers.append(texts.setdefault(digest, (len(texts) + 1, text))[0])
        named = "".join(f" [{number}]" for number in numbers)
        print(f"{crate['name']} {crate['version']}: {crate['license']}{named}")
        print(f"    {crate['repository'] or 'https://crates.io/crates/' + crate['name']}")
    for number, text in texts.values():
        print(f"\n{'=' * 30} [{number}]\n\n{text}")


main()
