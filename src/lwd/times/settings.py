"""The settings of how local times are drawn, and what they describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from lwd.config import Config
from lwd.schedules import Schedule
from lwd.times.along import AlongSchedule, Draw
from lwd.times.densities import Beta, Density, Histogram, LogitNormal, Uniform
from lwd.times.joint import Band, Independent, Joint, MeanBeta, Mixture


class LocalTimes(Config):
    """The density of a group's local time in training."""

    density: Literal["uniform", "logit_normal", "beta", "histogram"] = "uniform"
    """Which family; the keys below are settings of one each."""
    mean: float | None = None
    """Of the logit (0 by default) or of a beta (0.5)."""
    std: PositiveFloat | None = None
    """Of the logit (1 by default)."""
    concentration: PositiveFloat | None = None
    """Of a beta, a + b (2 by default, with mean 0.5 the uniform density)."""
    weights: tuple[float, ...] | None = None
    """Of a histogram: the masses of equal bins of [0, 1], in any unit."""

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        self.make()
        return self

    def make(self) -> Density:
        """The density. Raises ValueError for a setting that is another density's, or out of range."""
        kinds: dict[str, tuple[Callable[..., Density], tuple[str, ...]]] = {
            "uniform": (Uniform, ()),
            "logit_normal": (LogitNormal, ("mean", "std")),
            "beta": (Beta, ("mean", "concentration")),
            "histogram": (Histogram, ("weights",)),
        }
        kind, takes = kinds[self.density]
        given = {k: v for k, v in self.model_dump(exclude={"density"}).items() if v is not None}
        if foreign := sorted(given.keys() - set(takes)):
            has = ", ".join(takes) or "no settings"
            raise ValueError(f"{foreign[0]} is not a setting of the density {self.density}, which has {has}")
        if self.density == "histogram" and self.weights is None:
            raise ValueError("a histogram needs weights, the masses of equal bins of [0, 1]")
        return kind(**given)


class JointTimes(Config):
    """Local times that belong to no schedule; `lwd.times.joint`."""

    kind: Literal["independent", "mean_beta", "band", "mixture"] = "independent"
    """Each time on its own, around a common mean, within a band of the common one, or half on a schedule."""
    mean: float = Field(default=0.5, gt=0, lt=1)
    """Of mean_beta."""
    concentration: PositiveFloat = 2.0
    """Of mean_beta: the Beta density of the mean of the local times."""
    width: float = Field(default=0.3, ge=0, le=1)
    """Of a band: how far each group's time is at most from the common one, which has the first group's density."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Of a mixture: how many samples are on ``train.schedule``; the others' times are independent."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"kind": data} if isinstance(data, str) else data


Densities = LocalTimes | dict[str, LocalTimes]
"""One for all groups, or by name; a group without one has the uniform density."""


def densities_of(settings: Densities, names: Sequence[str]) -> list[Density]:
    """One for each group. Raises ValueError for a group that is not there."""
    if isinstance(settings, LocalTimes):
        return [settings.make() for _ in names]
    if unknown := sorted(settings.keys() - set(names)):
        raise ValueError(f"local_times names {unknown[0]!r}; the groups are {', '.join(names)}")
    return [settings.get(name, LocalTimes()).make() for name in names]


def joint_times(joint: JointTimes, densities: Sequence[Density], schedule: Schedule, draw: Draw) -> Joint:
    """What the settings describe."""
    if joint.kind == "mean_beta":
        return MeanBeta(len(densities), joint.mean, joint.concentration)
    if joint.kind == "band":
        return Band(densities[0], len(densities), joint.width)
    independent = Independent(densities)
    if joint.kind == "mixture":
        return Mixture(AlongSchedule(schedule, densities, draw), independent, joint.share)
    return independent
