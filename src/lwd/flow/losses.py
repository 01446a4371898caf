"""Flow-matching losses over groups (Eq. 22-24, 33-39) and the auxiliary terms of the denoiser objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.flow.interpolant import interpolate
from lwd.groups import Layout

Reduction = Literal["mean_flat", "group_mean"]
Jacobian = Literal["stop", "exact"]
KineticTrains = Literal["both", "schedule"]


@dataclass(frozen=True)
class Terms:
    """The schedule objective and its parts, all scalars.

    ``by_group[g]`` is E[omega_g l_g], before w_g and the reduction's factor; ``losses`` are the l_g (B, G).
    """

    total: Tensor
    flow: Tensor
    kinetic: Tensor
    by_group: dict[str, Tensor]
    losses: Tensor


def component_losses(v: Tensor, u: Tensor, layout: Layout) -> Tensor:
    """Mean squared error of each sample and group, l_g = |v_g - u_g|^2 / d_g (Eq. 22-23), in float32.

    v, u (B, C, ...) -> (B, G).
    """
    return layout.group_means((v.float() - u.float()).square())


def group_factors(layout: Layout, reduction: Reduction) -> list[float]:
    """The factor of each group's E[omega_g l_g] in the flow loss: w_g (``group_mean``), or w_g d_g / d (``mean_flat``).

    ``mean_flat`` is the mean of the weighted squared error over all entries (Appendix B). Since the kinetic term keeps
    its group means (Eq. 37), it scales the flow terms against lambda: with the paper's 32 + 16 channels and weights
    1, 2 both factors are 2/3, so lambda = 0.04 under ``mean_flat`` equals lambda = 0.06 under ``group_mean`` with
    weights 1, 1.

    d counts entries. On one grid d_g / d is the group's share of the channels. In a flat layout a group with more
    positions counts for more: beside an image of 4 x 32 x 32, a token of 768 has 0.16 of the entries, and a weight of
    16/3 makes them equal.
    """
    if reduction == "group_mean":
        return layout.weights
    return [g.weight * g.size / layout.channels for g in layout.groups]


def flow_loss(
    v: Tensor, u: Tensor, omega: Tensor, layout: Layout, reduction: Reduction = "mean_flat"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted flow loss of Eq. 24, and its part E[omega_g l_g] by group: v, u (B, C, ...), time weights omega (B, G).

    omega = t_g' is the corrected loss (Eq. 33-35, Lemma 3.3); omega = 1 is SFD's.
    """
    return weighted_loss(component_losses(v, u, layout), omega, layout, reduction)


def weighted_loss(
    losses: Tensor, omega: Tensor, layout: Layout, reduction: Reduction = "mean_flat"
) -> tuple[Tensor, dict[str, Tensor]]:
    """`flow_loss` of component losses (B, G) that are known."""
    by_group = (omega * losses).mean(dim=0)
    factors = group_factors(layout, reduction)
    total = torch.stack([factor * by_group[g] for g, factor in enumerate(factors)]).sum()
    return total, dict(zip(layout.names, by_group.unbind(), strict=True))


def loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x1: Tensor,
    schedule: Callable[[Tensor], tuple[Tensor, Tensor]],
    layout: Layout,
    reduction: Reduction = "mean_flat",
    corrected: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The loss of training under a schedule (Eq. 35), on one batch, for a loop of your own: x1 (B, C, ...) -> scalar.

    ``velocity`` maps z (B, C, ...) and local times (B, G) to local velocities (B, C, ...), ``schedule`` maps tau (B,)
    to times and rates (B, G), or it is one of `lwd.times`: local times of any density along a schedule, or of all
    groups jointly. Draws tau ~ U(0, 1), then the noise, from ``generator`` (on x1's device; None: PyTorch's own). The
    schedule is held: it gets no gradient. ``corrected=False`` leaves t_g' out (omega = 1). Raises ValueError
    where the schedule names other groups than the layout, or the velocity is not of z's shape.
    """
    names = tuple(getattr(schedule, "names", layout.names))
    if names != layout.names:
        raise ValueError(f"the schedule has groups {list(names)}, the layout has {list(layout.names)}")
    dtype = torch.promote_types(x1.dtype, torch.float32)
    numbers = getattr(schedule, "numbers", 1)
    of_each = (len(x1),) if numbers == 1 else (len(x1), numbers)
    tau = torch.rand(of_each, generator=generator, dtype=dtype, device=x1.device)
    x0 = torch.randn(x1.shape, generator=generator, dtype=x1.dtype, device=x1.device)
    with torch.no_grad():
        times, rates = schedule(tau)
    z, u = interpolate(x0, x1, times, layout)
    v = velocity(z, times)
    if v.shape != z.shape:
        raise ValueError(f"the velocity is {tuple(v.shape)}, the latents are {tuple(z.shape)}; they must agree")
    return flow_loss(v, u, rates if corrected else torch.ones_like(rates), layout, reduction)[0]


def kinetic_energy(v: Tensor, rates: Tensor, layout: Layout) -> Tensor:
    """Kinetic regulariser E[sum_g t_g'^2 |v_g|_g^2] (Eq. 37): v (B, C, ...), rates (B, G) -> scalar.

    Gradients flow into the rates too.
    """
    return (rates.square() * layout.group_means(v.float().square())).sum(dim=1).mean()


def schedule_objective(
    v: Tensor,
    u: Tensor,
    rates: Tensor,
    layout: Layout,
    kinetic_weight: float = 0.04,
    jacobian: Jacobian = "stop",
    reduction: Reduction = "mean_flat",
    kinetic_trains: KineticTrains = "both",
    omega: Tensor | None = None,
) -> Terms:
    """L_rho = L_flow + lambda R_kin (Eq. 38): predicted and target local velocities (B, C, ...), rates (B, G).

    ``jacobian="stop"`` holds t' constant in the flow loss (Eq. 33, the paper's), which makes the update of rho a
    semi-gradient; ``"exact"`` lets gradients through it, which makes it the gradient of Eq. 36.

    ``kinetic_trains="both"`` is Algorithm 1 to the letter: the kinetic term trains the denoiser, too, and shrinks its
    v_g where t_g' is large, so that a large lambda collapses as a small one does. ``"schedule"`` holds v there: only
    t' feels the term. ``omega`` (B, G): the weights of the flow loss, None for t'.
    """
    omega = rates if omega is None else omega
    losses = component_losses(v, u, layout)
    flow, by_group = weighted_loss(losses, omega.detach() if jacobian == "stop" else omega, layout, reduction)
    kinetic = kinetic_energy(v.detach() if kinetic_trains == "schedule" else v, rates, layout)
    return Terms(flow + kinetic_weight * kinetic, flow, kinetic, by_group, losses)


COSINE_NORM_FLOOR = 0.1
"""Below this norm of v the direction term is linear in v. PyTorch's default, 1e-8, makes the first gradient of a
network whose output starts at zero 1e8 times too large, which Adam's second moment does not soon forget."""


def cosine_direction_loss(v: Tensor, u: Tensor, layout: Layout, floor: float = COSINE_NORM_FLOOR) -> Tensor:
    """LightningDiT's direction term: mean of 1 - cos(v, u) over positions, along the composite channels.

    v, u (B, C, ...) -> scalar. Norms below ``floor`` count as ``floor``: at v = 0 the gradient is as 1 / ``floor``. A
    flat layout has no composite channels: each group's term is taken along its own
    channels and averaged over its own positions, and counts by its share of the entries, d_g / d. On groups of one
    shape this is the composite cosine wherever v and u are as large per channel in one group as in another.
    """
    if layout.flat:
        parts = zip(layout.split(v).values(), layout.split(u).values(), layout.sizes, strict=True)
        return torch.stack([size / layout.channels * _direction(a, b, floor) for a, b, size in parts]).sum()
    return _direction(v, u, floor)


def _direction(v: Tensor, u: Tensor, floor: float) -> Tensor:
    return (1 - F.cosine_similarity(v.float(), u.float(), dim=1, eps=floor)).mean()


def repa_loss(projected: Tensor, features: Tensor) -> Tensor:
    """REPA: mean over tokens of 1 - cos(projected hidden state, clean encoder feature).

    projected (B, L, D) in row-major token order, features (B, D, ...) with L positions (one where no axis trails).
    """
    target = features[..., None].flatten(2).transpose(1, 2)
    if target.shape != projected.shape:
        raise ValueError(
            f"REPA features give {tuple(target.shape)} (batch, tokens, channels), the model projects to "
            f"{tuple(projected.shape)}; see lwd.flow.on_grid for features on another grid"
        )
    return (1 - F.cosine_similarity(projected.float(), target.float(), dim=-1)).mean()


TIME_BINS = 5
"""Equal bins of [0, 1]: [0, .2), [.2, .4), ..., [.8, 1]."""


@torch.no_grad()
def losses_by_time(losses: Tensor, times: Tensor, bins: int = TIME_BINS) -> tuple[Tensor, Tensor]:
    """Sum and count losses by local time: l_g (B, G) at t_g (B, G) in [0, 1] -> sums and counts (G, bins).

    The last bin holds 1, too. Compares and sums, rather than scatters, so that a GPU adds in the same order each time.
    """
    edges = torch.linspace(0, 1, bins + 1, device=times.device)[1:-1]
    member = torch.bucketize(times, edges, right=True)[..., None] == torch.arange(bins, device=times.device)
    return torch.where(member, losses[..., None], 0).sum(dim=0), member.sum(dim=0, dtype=torch.float32)
