"""The commands of docs/imagenet.md, read from its bash blocks."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "imagenet.md"
SUBCOMMANDS = ("data check", "evaluate compare")


@dataclass(frozen=True)
class Command:
    """One `lwd` command: the line as on the page, the words after `lwd`, and torchrun's number of processes."""

    line: str
    words: tuple[str, ...]
    processes: int | None

    @property
    def stage(self) -> str:
        """`encode`, `train`, ..., or one of `SUBCOMMANDS`."""
        both = " ".join(self.words[:2])
        return both if both in SUBCOMMANDS else self.words[0]

    @property
    def config(self) -> Path | None:
        """The file after ``--config``, relative to the repository."""
        return Path(self.words[self.words.index("--config") + 1]) if "--config" in self.words else None

    @property
    def overrides(self) -> list[str]:
        """The words of the form key.sub=value."""
        return [word for word in self.words if "=" in word and not word.startswith("-")]

    @property
    def dry(self) -> bool:
        """Whether it only prints its config."""
        return "--dry-run" in self.words


def commands(text: str) -> list[Command]:
    """The commands `lwd ...` and `... -m lwd ...` of a page's bash blocks; a line that ends in a backslash goes on."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    split = [(" ".join(line.split()), shlex.split(line, comments=True)) for line in lines]
    return [_command(line, words) for line, words in split if words[:1] == ["lwd"] or ("-m", "lwd") in pairwise(words)]


def _command(line: str, words: list[str]) -> Command:
    processes = int(words[words.index("--nproc-per-node") + 1]) if "--nproc-per-node" in words else None
    return Command(line, tuple(words[words.index("lwd") + 1 :]), processes)
