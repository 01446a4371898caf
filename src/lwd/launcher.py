"""What torchrun and its like say in the environment about this process's place among others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from lwd.errors import UserError

_ALL = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")


def check_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError where a launcher's variables are incomplete, left over from another one, or no numbers.

    An address alone, or one process of one, say nothing.
    """
    given = {name: environment[name] for name in _ALL if name in environment}
    for name in _NUMBERS:
        if name in given and not re.fullmatch("[0-9]{1,9}", given[name]):
            raise UserError(f"{name}={given[name]!r} in the environment: must be a number; {_REMEDY}")
    rank, world = int(given.get("RANK", "0")), int(given.get("WORLD_SIZE", "1"))
    if world < 1 or ("WORLD_SIZE" in given and rank >= world):
        raise UserError(f"RANK={rank} and WORLD_SIZE={world} in the environment: there is no such process; {_REMEDY}")
    needed = _ALL if world > 1 or "LOCAL_RANK" in given else ("RANK", "WORLD_SIZE") if rank else ()
    if missing := [name for name in needed if not given.get(name)]:
        present = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UserError(f"{present} in the environment, but no {', '.join(missing)}: {_REMEDY}")


_REMEDY = f"start with torchrun, which sets all of them, or without: unset {' '.join(_ALL)}"
