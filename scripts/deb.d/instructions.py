"""What a document tells its reader to type: its blocks marked `sh`, under their headings."""

import re
from pathlib import Path


class Instructions:
    def __init__(self, file):
        self.file, self.blocks, self.followed = file, [], set()
        heading, block = "", None
        for line in Path(file).read_text().splitlines():
            if block is not None:
                if line.strip() == "```":
                    self.blocks.append((heading, "\n".join(row.removeprefix(indent) for row in block)))
                    block = None
                else:
                    block.append(line)
            elif opened := re.fullmatch(r"( *)```sh", line):
                block, indent = [], opened[1]
            elif line.startswith("#"):
                heading = line.lstrip("# ")

    def under(self, heading, number=None):
        """The blocks under a heading, or one of them."""
        found = [index for index, (above, _) in enumerate(self.blocks) if above == heading]
        chosen = found if number is None else [found[number]]
        assert chosen, f"{self.file} tells nothing under {heading!r}"
        self.followed |= set(chosen)
        return [self.blocks[index][1] for index in chosen]

    def assert_all_followed(self):
        left = [block for index, block in enumerate(self.blocks) if index not in self.followed]
        assert not left, f"{self.file} has instructions that nothing follows: {left}"
