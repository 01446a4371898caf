"""A schedule named in a config or on a command line: `offset:0.3`, `power:2`, `synchronous`, or a file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lwd.config import Config, parse
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.schedules.fixed import IdentityCurve, PowerOfTime
from lwd.schedules.schedule import Schedule

_NAMED = re.compile(r"(synchronous|learned)|(offset|power):([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)")

_NUMBER = {"offset": "delta", "power": "exponent"}


class ScheduleChoice(Config):
    """Which schedule: one of these, or the short form `synchronous`, `offset:0.3`, `power:2`, or a file's path."""

    kind: Literal["learned", "synchronous", "offset", "power"] = "learned"
    """Which family; the keys below are settings of one each."""
    path: Path | None = None
    """The file of a learned schedule; None: OUTPUT/schedule.json, where `lwd sweep` puts the chosen one."""
    delta: float = Field(default=0.3, ge=-1000, le=1000)
    """Of an offset: how far the leader is ahead of the others; negative: behind them."""
    exponent: float = Field(default=2.0, ge=-100, le=100)
    """Of a power a: the leader has t = tau, the others tau^a; negative: the leader has tau^-a, the others tau."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        named = _NAMED.fullmatch(data)
        if named is None:
            if not data.endswith(".json"):
                raise ValueError(
                    f"{data!r} is no schedule: synchronous, learned, offset:0.3, power:2 (negative: the leader lags), "
                    "or the path of a schedule.json"
                )
            return {"kind": "learned", "path": data}
        word, family, number = named.groups()
        return {"kind": word} if word else {"kind": family, _NUMBER[family]: float(number)}

    @model_validator(mode="after")
    def _power_of_one_or_more(self) -> ScheduleChoice:
        if abs(self.exponent) < 1 or not math.isfinite(self.exponent):
            raise ValueError(f"exponent {self.exponent:g} must be 1 or more, or -1 or less")
        return self

    def __str__(self) -> str:
        """The short form."""
        if self.kind == "learned":
            return str(self.path) if self.path is not None else "learned"
        number = {"offset": f":{self.delta:g}", "power": f":{self.exponent:g}"}.get(self.kind, "")
        return f"{self.kind}{number}"

    @classmethod
    def named(cls, text: str, where: str) -> ScheduleChoice:
        """Parse the short form ``text``; raises UserError, beginning with ``where``, for what is none.

        `learned` without a file is refused too: outside a run there is no folder in which it would lie.
        """
        choice = parse(cls, text, where)
        if choice.kind == "learned" and choice.path is None:
            raise UserError(f"{where}: {text!r} names no file; give the path of its schedule.json")
        return choice

    def fixed(self, names: Sequence[str], leader: str) -> Schedule | None:
        """Make the schedule of groups ``names`` that needs no file; None where the choice is a file."""
        if self.kind == "synchronous":
            return Schedule.synchronous(names)
        if self.kind == "offset":
            return Schedule.offset(names, leader, self.delta)
        if self.kind == "power":
            late = PowerOfTime(abs(self.exponent))
            return Schedule({n: IdentityCurve() if (n == leader) == (self.exponent > 0) else late for n in names})
        return None

    def make(self, layout: Layout, leader: str, learned: str | Path, remedy: str) -> Schedule:
        """The schedule, checked against the layout; ``learned``: the file where none is named.

        Raises UserError, with ``remedy``, where that is not there, and for a file that does not fit.
        """
        if (fixed := self.fixed(layout.names, leader)) is not None:
            return fixed
        path = Path(self.path or learned)
        if self.path is None and not path.is_file():
            raise UserError(f"{path}: no schedule yet; {remedy}")
        schedule = Schedule.load(path)
        schedule.check(layout, str(path))
        return schedule
