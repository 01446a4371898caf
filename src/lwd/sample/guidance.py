"""Guidance as a wrapper around velocities (method, Section 4), group by group:

    v = v_main + (w_auto - 1) (v_main - v_weak) + (w_cfg - 1) (v_main - v_null)

with v_weak a worse network's prediction (AutoGuidance) and v_null the same network's for the null class
(classifier-free guidance); either alone is the usual v_ref + w (v_main - v_ref). Where w is 1, v is v_main bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.groups import Layout
from lwd.sample import condition as conditions


@dataclass(frozen=True)
class Interval:
    """Where guidance is on: while the local time of ``group`` lies in [low, high], both edges included."""

    group: str
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Ramp:
    """A scale that goes from ``first`` to ``last`` with a group's local time ``over``, or with global time (None).

    Linear, or half a cosine: slow at both ends.
    """

    first: float
    last: float
    shape: Literal["linear", "cosine"] = "linear"
    over: str | None = None

    def at(self, clock: Tensor) -> Tensor:
        """The scale at times clock (B,) in [0, 1]."""
        part = clock if self.shape == "linear" else (1 - torch.cos(torch.pi * clock)) / 2
        return self.first + (self.last - self.first) * part


OneScale = float | Ramp
Scale = OneScale | Mapping[str, OneScale]
"""One w for all groups, or one by name."""


@dataclass(frozen=True)
class Strength:
    """The weight w of every sample and group, from a scale and an interval."""

    scale: Scale
    interval: Interval | None
    layout: Layout

    def __post_init__(self) -> None:
        names = self.layout.names
        if isinstance(self.scale, Mapping) and set(self.scale) != set(names):
            raise UserError(f"guidance: scale must name each of the groups {list(names)}, got {sorted(self.scale)}")
        clocks = [s.over for s in self.by_group() if isinstance(s, Ramp) and s.over is not None]
        for group in [*clocks, *([self.interval.group] if self.interval else [])]:
            if group not in names:
                raise UserError(f"guidance: there is no group {group!r}; groups are {list(names)}")

    def by_group(self) -> list[OneScale]:
        """The scale of each group, in layout order."""
        if isinstance(self.scale, Mapping):
            return [self.scale[name] for name in self.layout.names]
        return [self.scale] * len(self.layout.names)

    @property
    def is_one(self) -> bool:
        """Whether w is 1 at all times, so that guidance changes nothing."""
        return all((s.first, s.last) == (1, 1) if isinstance(s, Ramp) else s == 1 for s in self.by_group())

    def at(self, times: Tensor, tau: Tensor | None) -> Tensor:
        """The weight w (B, G) at times (B, G) and tau (B,), which ramps over it need; 1 outside the interval."""
        columns = []
        for scale in self.by_group():
            if not isinstance(scale, Ramp):
                columns.append(torch.full_like(times[:, 0], scale))
            elif scale.over is not None:
                columns.append(scale.at(times[:, self.layout.names.index(scale.over)]))
            elif tau is None:
                raise ValueError("a scale that is a ramp over global time needs tau")
            else:
                columns.append(scale.at(tau).to(times.dtype))
        w = torch.stack(columns, dim=1)
        if self.interval is None:
            return w
        t = times[:, self.layout.names.index(self.interval.group), None]
        return torch.where((t >= self.interval.low) & (t <= self.interval.high), w, 1.0)


Model = Callable[[Tensor, Tensor, Any], Tensor]
"""z (B, C, ...), times (B, G), B conditions (`lwd.sample.condition`) -> local velocities (B, C, ...)."""
Null = Callable[[Any], Any]
"""The conditions of as many samples that stand for none."""


@dataclass(frozen=True)
class AutoGuidance:
    """Guidance away from a worse network, ``weak``, of any size (Karras et al. 2024); ``scale`` 1 turns it off.

    On CUDA the two networks run on a stream each, unless ``streams`` is False.
    """

    weak: Model
    scale: Scale
    interval: Interval | None = None
    streams: bool = True

    def wrap(self, model: Model, layout: Layout) -> Model:
        """Make the guided network. Raises UserError where ``weak`` does not fit ``model``."""
        return _guided(model, layout, auto=self)


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """Guidance away from the null condition, in one batched call (Ho & Salimans 2021); ``scale`` 1 turns it off.

    ``null``: the label of no class, or a function from conditions to as many null ones; None: the model's own, its
    ``null_label`` or what its ``drop(condition, dropped)`` leaves.
    """

    scale: Scale
    null: int | Null | None = None
    interval: Interval | None = None

    def wrap(self, model: Model, layout: Layout) -> Model:
        """Make the guided network. Raises UserError where the model has another null label."""
        return _guided(model, layout, free=self)


@dataclass(frozen=True)
class CombinedGuidance:
    """Both guidances at once, each adding (w - 1) (v_main - v_reference); the null class is the main network's."""

    auto: AutoGuidance
    free: ClassifierFreeGuidance

    def wrap(self, model: Model, layout: Layout) -> Model:
        """Make the guided network. Raises UserError as the two do."""
        return _guided(model, layout, self.auto, self.free)


Guidance = AutoGuidance | ClassifierFreeGuidance | CombinedGuidance


@dataclass(frozen=True)
class Guided:
    """A network with guidance, called like one; ``tau`` (B,) is needed by ramps over global time alone.

    On a CPU a reference is asked only for the samples whose w is not 1 just now. Elsewhere that is not known without
    making the host wait, and it is asked for all.
    """

    main: Model
    layout: Layout
    auto: tuple[AutoGuidance, Strength] | None
    null: tuple[Null, Strength] | None

    def __call__(self, z: Tensor, times: Tensor, condition: Any, tau: Tensor | None = None) -> Tensor:
        """Guided local velocities, with shapes as a network's."""
        parts: list[tuple[Tensor, Tensor | None, Tensor]] = []  # w (B, G), its rows or None for all, reference v
        side = None
        if self.auto is not None:
            guidance, strength = self.auto
            w, rows = _ask_for(strength, times, tau)
            if z.is_cuda and guidance.streams:
                side = _side_stream(z.device)
                side.wait_stream(torch.cuda.current_stream(z.device))
            if rows is None or len(rows):
                with nullcontext() if side is None else torch.cuda.stream(side):
                    parts.append((w, rows, guidance.weak(*_take(rows, z, times, condition))))
        if self.null is None:
            v = self.main(z, times, condition)
        else:
            nothing, strength = self.null
            w, rows = _ask_for(strength, times, tau)
            some_z, some_times, some = _take(rows, z, times, condition)
            asked = conditions.join(condition, nothing(some))
            both = self.main(torch.cat([z, some_z]), torch.cat([times, some_times]), asked)
            v, null = both[: len(z)], both[len(z) :]
            parts.append((w, rows, null))
        if side is not None:
            torch.cuda.current_stream(z.device).wait_stream(side)
            parts[0][2].record_stream(torch.cuda.current_stream(z.device))
        return self._add(v, parts)

    def _add(self, main: Tensor, parts: list[tuple[Tensor, Tensor | None, Tensor]]) -> Tensor:
        v = main
        for w, rows, reference in parts:
            whole = reference if rows is None else main.index_copy(0, rows, reference)
            v = v + self.layout.expand(w - 1, main) * (main - whole)
        return v


def _guided(
    model: Model,
    layout: Layout,
    auto: AutoGuidance | None = None,
    free: ClassifierFreeGuidance | None = None,
) -> Model:
    """The guided network; ``model`` itself where nothing guides."""
    weak = null = None
    if auto is not None:
        _check_weak(model, auto.weak, layout)
        weak = (auto, Strength(auto.scale, auto.interval, layout))
    if free is not None:
        null = (_null(model, free.null), Strength(free.scale, free.interval, layout))
    weak = None if weak is None or weak[1].is_one else weak
    null = None if null is None or null[1].is_one else null
    return model if weak is None and null is None else Guided(model, layout, weak, null)


def _check_weak(model: Model, weak: Model, layout: Layout) -> None:
    """Raise UserError where ``weak`` is a network of other inputs than ``model``."""
    theirs = getattr(weak, "layout", None)
    if isinstance(theirs, Layout) and (theirs.names, theirs.sizes) != (layout.names, layout.sizes):
        raise UserError(
            f"guidance: the weak model's layout is {theirs}, the main one's {layout}; take another weak model"
        )
    for what in ("num_classes", "null_label", "input_size"):
        main_s, weak_s = (getattr(each, what, None) for each in (model, weak))
        if None not in (main_s, weak_s) and main_s != weak_s:
            raise UserError(
                f"guidance: the weak model's {what} is {weak_s}, the main one's {main_s}; take another weak model"
            )


def _null(model: Model, given: int | Null | None) -> Null:
    """What makes null conditions: the model's own, or what was given for a model that does not say."""
    own: Any = getattr(model, "null_label", None)
    drop: Any = getattr(model, "drop", None)
    if isinstance(given, int) and own not in (None, given):
        raise UserError(f"guidance: null {given} is not the model's null_label, which is {own}; leave it out")
    label = own if given is None else given
    if isinstance(label, int):
        return lambda labels: torch.full_like(labels, label)
    if given is not None and callable(given):
        return given
    if callable(drop) and not isinstance(drop, nn.Module):  # many a network calls its nn.Dropout that
        return lambda condition: drop(condition, _all(condition))
    raise UserError("guidance: the model has no null_label or drop; classifier-free guidance needs null=...")


def _all(condition: Any) -> Tensor:
    """True for every sample of a condition (B,)."""
    first = conditions.first(condition)
    if first is None:
        raise UserError("guidance: a condition without tensors cannot be dropped; leave classifier-free guidance out")
    return torch.ones(len(first), dtype=torch.bool, device=first.device)


def _ask_for(strength: Strength, times: Tensor, tau: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """w (B, G), and the samples to ask a reference for: on a CPU those with some w other than 1; None: all."""
    w = strength.at(times, tau)
    if w.device.type != "cpu":
        return w, None
    rows = (w != 1).any(1).nonzero()[:, 0]
    return w, None if len(rows) == len(w) else rows


def _take(rows: Tensor | None, *inputs: Any) -> tuple[Any, ...]:
    return inputs if rows is None else tuple(conditions.take(x, rows) for x in inputs)


@lru_cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
