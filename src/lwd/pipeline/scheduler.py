"""The asynchronous schedule as a component of diffusers pipelines, with the scale of the latents it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lwd.errors import UserError
from lwd.groups import Layout
from lwd.schedules import Schedule


class LwdScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """``schedule``: the content of schedule.json; ``groups``: its groups in order, since diffusers sorts a file's keys.

    Global time runs from 0, noise, to 1, data. ``latents_mean`` and ``latents_std``: per channel of all groups, by
    which latents were standardised in training. Unlike diffusers' schedulers it takes no steps: `lwd.sample` does.
    Raises UserError for an altered schedule, and for statistics that are not of one size, finite and positive.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        schedule: dict[str, Any],
        groups: Sequence[str],
        latents_mean: Sequence[float],
        latents_std: Sequence[float],
    ) -> None:
        curves = schedule.get("groups")
        if not isinstance(curves, Mapping) or sorted(curves) != sorted(groups):
            raise UserError(f"scheduler: schedule has no curve for each of the groups {list(groups)} alone")
        ordered = {**schedule, "groups": {name: curves[name] for name in groups}}
        self.schedule = Schedule.from_dict(ordered, "scheduler: schedule")
        self.mean, self.std = (torch.tensor(x, dtype=torch.float32) for x in (latents_mean, latents_std))
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise UserError("scheduler: latents_mean and latents_std must be two lists of numbers of one length")
        if not bool(torch.isfinite(self.mean).all() and torch.isfinite(self.std).all() and (self.std > 0).all()):
            raise UserError("scheduler: latents_mean must be finite, latents_std finite and positive")

    @classmethod
    def from_schedule(cls, schedule: Schedule, mean: Tensor, std: Tensor) -> LwdScheduler:
        """From a schedule and statistics of C numbers each, of any shape (as `LatentShards` holds them)."""
        content, names = schedule.to_dict(), list(schedule.names)
        scheduler: LwdScheduler = cls(content, names, mean.flatten().tolist(), std.flatten().tolist())
        return scheduler

    def check(self, layout: Layout) -> None:
        """Raise UserError unless schedule and statistics are of this layout."""
        self.schedule.check(layout, "scheduler")
        if len(self.mean) != layout.channels:
            raise UserError(
                f"scheduler: statistics of {len(self.mean)} channels, the layout {layout} has {layout.channels}"
            )

    def destandardise(self, x: Tensor) -> Tensor:
        """Standardised latents (B, C, H, W) -> the encoders' own scale."""
        mean, std = (each.to(x.device)[None, :, None, None] for each in (self.mean, self.std))
        return torch.addcmul(mean, x, std)
