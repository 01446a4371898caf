"""Velocities: local to global time (Eq. 13, 28-29), and to and from the score (Eq. 14-16)."""

from __future__ import annotations

from torch import Tensor

from lwd.groups import Layout


def global_velocity(v: Tensor, rates: Tensor, layout: Layout) -> Tensor:
    """Velocity in global time, dz_g/dtau = t_g'(tau) v_g (Eq. 13): local v (B, C, ...), rates (B, G) -> (B, C, ...)."""
    return layout.expand(rates, v) * v


def velocity_to_score(v: Tensor, z: Tensor, times: Tensor, layout: Layout) -> Tensor:
    """Turn a velocity into a score: (t_g v_g - z_g) / (1 - t_g) (Eq. 14-15).

    Times (B, G) in [0, 1), all else (B, C, ...).
    """
    t = layout.expand(times, v)
    return (t * v - z) / (1 - t)


def score_to_velocity(score: Tensor, z: Tensor, times: Tensor, layout: Layout) -> Tensor:
    """Turn a score into a velocity: z_g / t_g + (1 - t_g) / t_g score_g (Eq. 14-15).

    Times (B, G) in (0, 1], all else (B, C, ...).
    """
    t = layout.expand(times, score)
    return (z + (1 - t) * score) / t
