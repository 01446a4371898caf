"""Slots: S samples, each at its own place on its own path, all advanced by one call of the velocity.

A slot is at some stage of some step of some segment of the plan. Every tick asks all slots where they need V next
(`ask`), and lets them all use the answer (`advance`): the next stage, the next step, a step rejected, the next segment,
the end. All of it is vectors and masks on the device; nothing here makes the host wait.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lwd.ode.control import STRETCH, error_ratio, first_step, step_factor, trial_step
from lwd.ode.plan import Plan

RUNNING, DONE, NOT_FINITE, STUCK = range(4)

MAX_STEPS = 1000
"""Attempted steps of dopri5 for one sample and segment; trained networks take tens."""

Observer = Callable[["Slots", Tensor, Tensor], None]
"""Called before slots move on: the slots, which of them (S,) end a step now, and their new states (S, D)."""


class Slots:
    """State of S slots, each integrating a sample: vectors (S,) but for ``z`` (S, D) and the slopes (k + 1, S, D).

    ``index`` is the sample's number, ``nfe`` its velocity evaluations, ``status`` one of RUNNING, DONE, NOT_FINITE,
    STUCK; a slot that is not running stays as it is.
    """

    def __init__(self, plan: Plan, z: Tensor, index: Tensor, observe: Observer | None = None) -> None:
        size, device = len(z), z.device
        self.plan, self.observe = plan, observe
        self.z, self.index = z, index
        self.slopes = z.new_zeros(plan.stages.shape[1] + 1, *z.shape)  # the last row: the trial step's slope
        self.rows = torch.arange(size, device=device)
        self.stage, self.segment, self.nfe, self.attempts = (
            torch.zeros(size, dtype=torch.int64, device=device) for _ in range(4)
        )
        self.status = torch.zeros(size, dtype=torch.int8, device=device)
        self.rejected = torch.zeros(size, dtype=torch.bool, device=device)
        self.tau = plan.starts[self.segment]
        self.h = (plan.ends - plan.starts)[self.segment]

    def __len__(self) -> int:
        return len(self.z)

    def enter(self, where: Tensor, z: Tensor, index: Tensor) -> None:
        """Start samples z (n, D), of numbers index (n,), in the slots ``where`` (n,)."""
        plan = self.plan
        self.z[where], self.index[where] = z, index
        self.slopes.index_fill_(1, where, 0.0)  # a failed sample's are not finite, and 0 times that is not 0
        for vector in (self.stage, self.segment, self.nfe, self.attempts, self.status, self.rejected):
            vector.index_fill_(0, where, 0)
        self.tau[where], self.h[where] = plan.starts[:1], (plan.ends - plan.starts)[:1]

    def keep(self, where: Tensor) -> None:
        """Drop all slots but ``where`` (n,)."""
        self.rows = self.rows[: len(where)]
        self.slopes = self.slopes[:, where]
        for name in ("z", "index", "stage", "segment", "nfe", "attempts", "status", "rejected", "tau", "h"):
            setattr(self, name, getattr(self, name)[where])

    def ask(self) -> tuple[Tensor, Tensor]:
        """States (S, D) and global times (S,) float64 at which the slots need V next."""
        plan = self.plan
        z = self._combine(self.z, plan.stages[self.stage])
        tau = self.tau + plan.nodes[self.stage] * self.h
        return z, torch.clamp(tau, plan.lows[self.segment], plan.highs[self.segment])

    def advance(self, asked: Tensor, slope: Tensor) -> None:
        """Move every slot on, with V (S, D) at the states ``asked`` (S, D)."""
        plan, adaptive = self.plan, self.plan.error is not None
        running = self.status == RUNNING
        self.slopes[self.stage, self.rows] = slope.to(self.z.dtype)
        self.nfe = self.nfe + running
        ended = running & (self.stage == plan.last_stage)
        # An adaptive method's last stage is at the new state.
        z_new = asked if adaptive else self._combine(self.z, plan.dense[self.segment].sum(-1))
        accepted, h = self._control(ended, z_new) if adaptive else (ended, self.h)
        if self.observe is not None:
            self.observe(self, accepted, z_new)
        broken = running & ~torch.isfinite(slope).all(1) | accepted & ~torch.isfinite(z_new).all(1)
        reached = accepted & (self.h >= plan.ends[self.segment] - self.tau)
        self.tau = torch.where(reached, plan.ends[self.segment], torch.where(accepted, self.tau + self.h, self.tau))
        self.z = torch.where(accepted[:, None], z_new, self.z)
        self.segment = self.segment + reached
        done = reached & (self.segment == len(plan.ends))
        self.segment = self.segment.clamp(max=len(plan.ends) - 1)
        stuck = self._next_stage(ended, accepted, reached)
        longest = plan.ends[self.segment] - self.tau
        self.h = torch.where(running, torch.where(STRETCH * h < longest, h, longest) if adaptive else longest, self.h)
        for which, status in ((stuck, STUCK), (done, DONE), (broken, NOT_FINITE)):
            self.status.masked_fill_(which, status)

    def between(self, theta: Tensor) -> Tensor:
        """Interpolate in the step that ends, a part theta (S,) in [0, 1] into it: its dense output (S, D)."""
        dense = self.plan.dense[self.segment]
        powers = theta[:, None] ** torch.arange(1, dense.shape[-1] + 1, device=theta.device)
        return self._combine(self.z, (dense * powers[:, None, :]).sum(-1))

    def _combine(self, z: Tensor, coefficients: Tensor) -> Tensor:
        """z + h sum_j coefficients_j K_j, (S, k) -> (S, D); term by term, so that no sum depends on the batch."""
        by_slot = (self.h[:, None] * coefficients).to(z.dtype)
        for j in range(by_slot.shape[1]):
            z = torch.addcmul(z, by_slot[:, j : j + 1], self.slopes[j])
        return z

    def _control(self, ended: Tensor, z_new: Tensor) -> tuple[Tensor, Tensor]:
        """An adaptive method: which steps are accepted (S,), and the step size (S,) that everyone goes on with."""
        plan, probe = self.plan, self.plan.last_stage + 1
        assert plan.error is not None
        tolerance, remaining = (plan.atol, plan.rtol), plan.ends[self.segment] - self.tau
        error = self._combine(torch.zeros_like(self.z), plan.error.expand(len(self), -1))
        ratio = error_ratio(error, self.z, z_new, *tolerance)
        accepted = ended & (ratio <= 1)
        h = torch.where(ended, self.h * step_factor(ratio, self.rejected), self.h)
        h = torch.where(self.stage == 0, trial_step(self.z, self.slopes[0], *tolerance, remaining), h)
        start = first_step(self.z, self.slopes[0], self.slopes[-1], self.h, *tolerance)
        h = torch.where(self.stage == probe, start, h)
        self.rejected = torch.where(ended, ~accepted, self.rejected)
        return accepted, h

    def _next_stage(self, ended: Tensor, accepted: Tensor, reached: Tensor) -> Tensor:
        """Set every running slot's stage, and carry slopes over; returns which slots (S,) get nowhere any more."""
        plan, probe, running = self.plan, self.plan.last_stage + 1, self.status == RUNNING
        following = torch.where(ended, 0, self.stage + 1)
        if plan.error is not None:  # 0, the trial step, then 1 ... n - 1 for every step of the segment
            following = torch.where(ended & ~reached, 1, following)
            following = torch.where(self.stage == 0, probe, torch.where(self.stage == probe, 1, following))
            self.slopes[0] = torch.where(accepted[:, None], self.slopes[probe - 1], self.slopes[0])
            self.attempts = torch.where(reached, 0, self.attempts + ended)
        elif plan.multistep:
            self.slopes[1] = torch.where(accepted[:, None], self.slopes[0], self.slopes[1])
        self.stage = torch.where(running, following, self.stage)
        return running & (self.attempts >= MAX_STEPS)
