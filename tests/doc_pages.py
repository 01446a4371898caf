"""The commands in the bash blocks of README.md and the docs, each with the program that it comes to."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
_DOCS = ROOT / "docs"
PAGES = {"README": ROOT / "README.md"} | {
    file.relative_to(_DOCS).with_suffix("").as_posix(): file for file in sorted(_DOCS.rglob("*.md"))
}
_IMAGES = ("lwd", "lwd:cuda")
"""Of docs/clusters.md, whose entry point is `lwd`."""


@dataclass(frozen=True)
class Line:
    """One line of a bash block of ``page``, which ends where no backslash does; ``words`` as bash splits it."""

    page: str
    number: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.number}: {shlex.join(self.words)}"

    @property
    def program(self) -> list[str]:
        """The program and its arguments, behind variables, srun, `docker run` and `bash -c`; empty of what is none."""
        return _unwrapped(list(self.words))

    @property
    def lwd(self) -> list[str] | None:
        """The arguments of `lwd`, also of one that a launcher starts; None of another program."""
        words = self.program
        if words[:1] == ["lwd"]:
            return words[1:]
        return words[words.index("lwd") + 1 :] if ("-m", "lwd") in pairwise(words) else None


def lines(page: str) -> Iterator[Line]:
    """All lines with words of a page's bash blocks, of those in lists, too."""
    text = PAGES[page].read_text(encoding="utf-8")
    for block in re.finditer(r"^( *)```bash\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        first = text.count("\n", 0, block.start(2)) + 1
        joined = re.sub(r"\\\n( *)", lambda match: "\0", block[2])
        for line in joined.splitlines():
            words = shlex.split(line.replace("\0", " "), comments=True)
            if words:
                yield Line(page, first, tuple(words))
            first += 1 + line.count("\0")


def _unwrapped(words: list[str]) -> list[str]:
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if words[:1] in (["srun"], ["exec"]):
        return _unwrapped(words[1:])
    if words[:2] == ["bash", "-c"]:
        return _unwrapped(shlex.split(words[2]))
    if words[:2] == ["docker", "run"]:
        image = next(number for number, word in enumerate(words) if word in _IMAGES)
        entry = words[words.index("--entrypoint") + 1] if "--entrypoint" in words[:image] else "lwd"
        return [entry, *words[image + 1 :]]
    return words
