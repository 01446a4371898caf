"""What a curve is: one group's local time t(tau) with its derivative (Eq. 8)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lwd.schedules.inverse import by_bisection, with_gradients
from lwd.schedules.registry import register

_AREA_POINTS = 10_001


class Curve(nn.Module):
    """A non-decreasing map of global time tau in [0, 1] onto local time t in [0, 1], t(0) = 0 and t(1) = 1.

    A subclass that states a ``kind`` can be written to schedule.json and read back. All that makes it are its
    parameters, which a probe learns, and its ``settings``; it needs `forward`, and may do better than the rest below.
    """

    kind: ClassVar[str]
    """Names the class in schedule.json; no two classes have the same."""

    settings: ClassVar[tuple[str, ...]] = ()
    """The arguments of the constructor, each kept as plain data in the attribute of the same name."""

    kinks: tuple[float, ...] = ()
    """Global times in (0, 1) at which the derivative jumps; an integrator splits its interval there."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers the class under its ``kind``; raises ValueError where another class has it."""
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls):
            register(cls)

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local time t and rate dt/dtau at global times tau of any shape; both have tau's shape and dtype."""
        raise NotImplementedError

    def inverse(self, t: Tensor) -> Tensor:
        """Global time at which the curve reaches local time t, of any shape; where it waits at 0, the last one.

        By bisection, differentiable in t and the parameters by the implicit function theorem.
        """
        target = wide(t)
        return with_gradients(self, by_bisection(self, target), target).to(t.dtype)

    @property
    def learnable(self) -> bool:
        """Whether the curve has parameters, frozen or not."""
        return next(self.parameters(), None) is not None

    def start(self) -> Self:
        """A curve of the same settings as a probe begins with it."""
        return type(self)(**{name: getattr(self, name) for name in self.settings})

    def parameter_vector(self) -> Tensor:
        """Copy all parameters into one vector (P,), without a graph: what is logged and averaged."""
        return torch.cat([p.detach().flatten() for p in self.parameters()] or [torch.empty(0)])

    def with_parameters(self, vector: Tensor) -> Self:
        """Copy the curve with the parameters in ``vector`` (P,), on its device; raises ValueError for another P."""
        sizes = [p.numel() for p in self.parameters()]
        if vector.shape != (sum(sizes),):
            raise ValueError(f"a {self.kind} curve has {sum(sizes)} parameters, got a tensor {tuple(vector.shape)}")
        curve = copy.deepcopy(self).to(vector.device)
        with torch.no_grad():
            for parameter, numbers in zip(curve.parameters(), torch.split(vector, sizes), strict=True):
                parameter.copy_(numbers.view_as(parameter))
        return curve

    def area(self) -> float:
        """The integral of t over [0, 1], 1/2 for the identity; by the trapezoid rule."""
        parameter = next(self.parameters(), torch.empty(0))
        tau = torch.linspace(0, 1, _AREA_POINTS, dtype=wide(parameter).dtype, device=parameter.device)
        with torch.no_grad():
            return float(torch.trapezoid(self(tau)[0], tau))

    def mixture(self) -> Tensor | None:
        """Shares (P,), summing to one, of the curves that this one mixes, `extremal` last; None for no mixture."""
        return None

    def extremal(self) -> Curve | None:
        """The curve to which this one collapses under too weak a kinetic term; None: see `collapse.extremal`."""
        return None

    def formula(self) -> str:
        """Describe the curve in one line, for people."""
        numbers = ", ".join(f"{x:.3f}" for x in self.parameter_vector().tolist()) if self.learnable else ""
        settings = [f"{name} {getattr(self, name)}" for name in self.settings]
        return ", ".join([self.kind, *settings, *([f"parameters ({numbers})"] if numbers else [])])

    def identity(self) -> dict[str, Any]:
        """Settings and parameters as plain data, and nothing computed from them: what `Schedule.hash` depends on."""
        settings = {name: getattr(self, name) for name in self.settings}
        return {"kind": self.kind, **settings, **{name: p.tolist() for name, p in self.named_parameters()}}

    def to_dict(self) -> dict[str, Any]:
        """Describe the curve as plain data for schedule.json: `identity`, and what else people want to see."""
        return self.identity()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the curve that `identity` describes; raises KeyError, TypeError, ValueError or RuntimeError for other
        data.
        """
        curve = cls(**{name: data[name] for name in cls.settings})
        with torch.no_grad():
            for name, parameter in curve.named_parameters():
                parameter.copy_(_tensor(name, data[name], parameter))
        return curve


def _tensor(name: str, numbers: Any, like: Tensor) -> Tensor:
    """``numbers`` as the file has them, in the dtype of ``like`` and of its shape."""
    values = torch.tensor(numbers, dtype=torch.float64).to(like.dtype)
    if values.shape != like.shape:
        raise ValueError(f"{name} must have shape {list(like.shape)}, got {list(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"{name} must be finite")
    return values


def wide(x: Tensor) -> Tensor:
    """Convert ``x`` to float64, or to float32 on a device that has none (MPS).

    Curves compute in float64, a few scalars a sample, so that after rounding to float32 t(0) = 0, t(1) = 1,
    t <= tau and monotonicity hold exactly and not just to an ulp.
    """
    return x.float() if x.device.type == "mps" else x.double()


def narrow_pair(t: Tensor, rate: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Round a curve's value and derivative to the dtype of ``like``."""
    return t.to(like.dtype), rate.to(like.dtype)
