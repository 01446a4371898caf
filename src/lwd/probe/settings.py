"""Settings of how a schedule is learned; the defaults are the paper's ImageNet values (Table 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lwd.config import Config
from lwd.errors import UserError
from lwd.flow import Jacobian, KineticTrains, Reduction
from lwd.schedules import Schedule
from lwd.times.settings import Densities, LocalTimes, densities_of


class LearnSettings(Config):
    """Settings of Algorithm 1, stage I."""

    steps: PositiveInt = 10_000
    """Of the probe."""
    burn_in: NonNegativeInt = 5_000
    """Steps after which the curves of all steps are averaged into the result."""
    lr: PositiveFloat = 1e-4
    """Of its denoiser."""
    rho_lr: PositiveFloat = 1e-2
    """Of the curve's parameters."""
    kinetic_weight: NonNegativeFloat = 0.04
    """lambda of Eq. 38."""
    jacobian: Jacobian = "stop"
    """Of Algorithm 1: the update with t' stopped, or the exact one."""
    reduction: Reduction = "mean_flat"
    """As train.reduction."""
    kinetic_trains: KineticTrains = "both"
    """Whether the kinetic term trains the denoiser too, as in Algorithm 1, or the schedule alone; with both, a large
    lambda collapses as well."""
    local_times: Densities = LocalTimes()
    """The density of each group's local time under the flow loss, for all groups or by name."""
    family: str = "polynomial"
    """The kind of the learned curves: polynomial (the paper's), or another that is registered."""
    degree: int = Field(default=4, ge=1, le=100)
    """M of the polynomial (Eq. 40)."""
    curve: dict[str, Any] = Field(default_factory=dict)
    """Settings of another family, such as {bins: 8}."""
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    """As train.label_dropout."""
    preview_every: NonNegativeInt = 0
    """Steps between two pictures of the curve, previews/step-*.png in the probe's folder, one at the end; 0: none."""

    @model_validator(mode="after")
    def _burn_in_ends(self) -> Self:
        if not 0 <= self.burn_in < self.steps:
            raise ValueError(
                f"burn_in {self.burn_in} must lie in [0, steps = {self.steps}): nothing is averaged otherwise"
            )
        return self

    @model_validator(mode="after")
    def _curve_can_be_made(self) -> Self:
        try:
            Schedule.learnable(("leader", "other"), "leader", self.family, **self.curve_settings)
        except (UserError, TypeError, ValueError) as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def curve_settings(self) -> dict[str, Any]:
        """The keyword arguments of `Schedule.learnable` beside the family."""
        return {"degree": self.degree, **self.curve} if self.family == "polynomial" else self.curve

    def objective(self, names: Sequence[str]) -> dict[str, Any]:
        """What decides the objective of groups ``names`` beside lambda, as `Probe` and `lwd.maps.objective` take it."""
        return {
            "jacobian": self.jacobian,
            "reduction": self.reduction,
            "kinetic_trains": self.kinetic_trains,
            "densities": None if self.at_default("local_times") else densities_of(self.local_times, names),
        }

    def recipe(self) -> dict[str, Any]:
        """The settings that decide the result, as a checkpoint keeps them."""
        ignored = {"preview_every"}
        if self.family == "polynomial" and not self.curve:  # as in checkpoints of before there were others
            ignored |= {"family", "curve"}
        ignored |= self.at_default("kinetic_trains", "local_times")
        return self.model_dump(mode="json", exclude=ignored)
