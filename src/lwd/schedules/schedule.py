"""A schedule: one curve per group, all driven by the global time tau (Eq. 8), saved as schedule.json."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.files import read_json, to_json, write_text
from lwd.groups import Layout
from lwd.schedules.curve import Curve
from lwd.schedules.fixed import IdentityCurve, OffsetCurve
from lwd.schedules.registry import curve_class

FORMAT = "lwd.schedule/1"
TIMES = "times"
"""The key of provenance that says how local times were drawn jointly, where a network was trained so."""


class Schedule(nn.Module):
    """One curve for each group: ``schedule(tau)`` gives their local times and rates, in the order of ``curves``.

    ``provenance`` says where it came from (lambda, steps, data fingerprint, version, ...) and travels with the file.
    """

    def __init__(self, curves: Mapping[str, Curve], provenance: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if not curves:
            raise ValueError("a schedule needs at least one group")
        self.names = tuple(curves)
        self.curves = nn.ModuleList(curves.values())
        self.provenance = dict(provenance or {})

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local times t_g(tau) and rates t_g'(tau), (B, G) each, at global times tau (B,) (Eq. 8)."""
        pairs = [curve(tau) for curve in self.curves]
        return torch.stack([t for t, _ in pairs], dim=1), torch.stack([rate for _, rate in pairs], dim=1)

    def __getitem__(self, name: str) -> Curve:
        """The curve of the group ``name``."""
        curve = self.curves[self.names.index(name)]
        assert isinstance(curve, Curve)
        return curve

    @property
    def kinks(self) -> tuple[float, ...]:
        """Sorted global times in (0, 1) at which some group's rate jumps."""
        return tuple(sorted({kink for name in self.names for kink in self[name].kinks}))

    @classmethod
    def synchronous(cls, names: Iterable[str]) -> Schedule:
        """Make the schedule of usual flow matching: every group at t_g = tau."""
        return cls({name: IdentityCurve() for name in names})

    @classmethod
    def offset(cls, names: Iterable[str], leader: str, delta: float = 0.3) -> Schedule:
        """Make SFD's schedule: ``leader`` is ahead of the others by ``delta``, or behind them where that is negative.

        Raises ValueError for an unknown leader.
        """
        names = tuple(names)
        if leader not in names:
            raise ValueError(f"leader {leader!r} is not one of the groups {list(names)}")
        return cls({name: OffsetCurve(abs(delta), leads=(name == leader) == (delta >= 0)) for name in names})

    @classmethod
    def learnable(cls, names: Iterable[str], leader: str, family: str = "polynomial", **settings: Any) -> Schedule:
        """Make a probe's schedule: ``leader`` at t = tau (Eq. 17), a curve of the kind ``family`` for all other groups.

        ``settings`` are the family's, as ``degree`` of the polynomial. Raises ValueError for an unknown leader and
        UserError for a family that is unknown, has nothing to learn or does not take the settings.
        """
        names = tuple(names)
        if leader not in names:
            raise ValueError(f"leader {leader!r} is not one of the groups {list(names)}")
        curve_type = curve_class(family, "family")
        unknown = settings.keys() - set(curve_type.settings)
        if unknown:
            known = ", ".join(curve_type.settings) or "none"
            raise UserError(f"family {family}: no setting {', '.join(sorted(unknown))}; it has {known}")
        curves = {name: IdentityCurve() if name == leader else curve_type(**settings) for name in names}
        if not all(curve.learnable for name, curve in curves.items() if name != leader):
            raise UserError(f"family {family}: a curve with nothing to learn; choose another")
        return cls(curves)

    @property
    def any_other(self) -> bool:
        """Whether the network that it lies beside serves every other schedule as well: trained at joint times."""
        return TIMES in self.provenance

    @property
    def origin(self) -> str | None:
        """Where it came from, in words: what a command noted, or the lambda of its probe; None: not recorded."""
        noted, weight = self.provenance.get("origin"), self.provenance.get("lambda")
        return noted or (None if weight is None else f"learned at lambda {weight:g}")

    def note_origin(self, step: str) -> None:
        """Add ``step``, as `offset:0.3, given to lwd convert`, to where it came from."""
        self.provenance["origin"] = f"{self.origin}; {step}" if self.origin else step

    @property
    def learned(self) -> tuple[str, ...]:
        """The groups whose curve has parameters, frozen or not."""
        return tuple(name for name in self.names if self[name].learnable)

    def parameter_vectors(self) -> dict[str, Tensor]:
        """Copy the parameters (P,) of each learned group's curve, by name; of polynomials they are rho."""
        return {name: self[name].parameter_vector() for name in self.learned}

    def with_parameters(self, vectors: Mapping[str, Tensor]) -> Schedule:
        """Copy the schedule, frozen, with the parameters (P,) that ``vectors`` has for some groups."""
        curves = {
            n: self[n].with_parameters(vectors[n]) if n in vectors else copy.deepcopy(self[n]) for n in self.names
        }
        return Schedule(curves, self.provenance).requires_grad_(False)

    def check(self, layout: Layout, where: str) -> None:
        """Raise UserError unless the schedule's groups are the layout's, in the same order and, if known, sizes."""
        if self.names != layout.names:
            raise UserError(
                f"{where}: schedule has groups {list(self.names)}, the layout has {list(layout.names)}; "
                f"use a schedule that was learned for this layout"
            )
        known = self.provenance.get("layout")
        if known is None:
            return
        try:
            learned_for = Layout(known)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: provenance.layout is not a list of groups ({error})") from error
        if learned_for.sizes != layout.sizes:
            raise UserError(f"{where}: schedule was learned for {learned_for}, the layout is {layout}")

    def to_dict(self) -> dict[str, Any]:
        """The content of schedule.json; raises ValueError for a curve whose class states no kind of its own."""
        for curve in map(self.__getitem__, self.names):
            if "kind" not in vars(type(curve)):
                raise ValueError(f"{type(curve).__name__} cannot be saved: give the class a 'kind' of its own")
        groups = {name: self[name].to_dict() for name in self.names}
        return {"format": FORMAT, "groups": groups, "hash": self.hash(), "provenance": self.provenance}

    def hash(self) -> str:
        """Twelve hex digits that name the curves (not the provenance): models and samples record it."""
        groups = [[name, self[name].identity()] for name in self.names]
        return hashlib.sha256(json.dumps(groups, sort_keys=True).encode()).hexdigest()[:12]

    def save(self, path: str | Path) -> None:
        """Write schedule.json atomically."""
        write_text(Path(path), self.to_json())

    def to_json(self) -> str:
        """The text of schedule.json."""
        return to_json(self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read schedule.json, frozen (rho never moves again); raises UserError for a missing or altered file."""
        return cls.from_dict(read_json(Path(path)), str(path))

    @classmethod
    def from_dict(cls, data: Any, where: str) -> Schedule:
        """Read what `to_dict` gives, frozen; raises UserError, beginning with ``where``, for other data."""
        from lwd.schedules.file import read_file  # pydantic, which only files need

        file = read_file(data, where)
        curves = {name: _curve_from_dict(group, f"{where}: groups.{name}") for name, group in file.groups.items()}
        schedule = cls(curves, data.get("provenance", {})).requires_grad_(False)
        if file.hash not in (None, schedule.hash()):
            raise UserError(
                f"{where}: the curves were altered (their hash is {schedule.hash()}); remove 'hash' if you did"
            )
        return schedule


def _curve_from_dict(data: Any, where: str) -> Curve:
    cls = curve_class(data.get("kind") if isinstance(data, Mapping) else None, where)
    try:
        return cls.from_dict(data)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{where}: malformed {cls.kind} curve ({reason})") from error
