"""The asynchronous interpolant and its local velocity targets (Eq. 4-5)."""

from __future__ import annotations

from torch import Tensor

from lwd.groups import Layout


def interpolate(x0: Tensor, x1: Tensor, times: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Put every group at its own noise level, z_g = (1 - t_g) x0_g + t_g x1_g, with the target u_g = x1_g - x0_g.

    x0 (noise) and x1 (data) (B, C, ...), times (B, G) -> z, u (B, C, ...). Differentiable in times (dz_g/dt_g = u_g).
    """
    u = x1 - x0
    return x0 + layout.expand(times, u) * u, u
