"""Flow-matching losses over groups (Eq. 22-24, 33-39) and the auxiliary terms of the denoiser objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.groups import Layout

Reduction = Literal["mean_flat", "group_mean"]
Jacobian = Literal["stop", "exact"]


@dataclass(frozen=True)
class Terms:
    """The schedule objective and its parts, all scalars.

    ``by_group[g]`` is E[omega_g l_g], before w_g and the reduction's factor.
    """

    total: Tensor
    flow: Tensor
    kinetic: Tensor
    by_group: dict[str, Tensor]


def component_losses(v: Tensor, u: Tensor, layout: Layout) -> Tensor:
    """l_g = |v_g - u_g|^2 / d_g for each sample (Eq. 22-23): v, u (B, C, H, W) -> (B, G), in float32."""
    return layout.group_means((v.float() - u.float()).square())


def group_factors(layout: Layout, reduction: Reduction) -> list[float]:
    """What multiplies E[omega_g l_g] in the flow loss: w_g (``group_mean``), or w_g d_g / d (``mean_flat``).

    ``mean_flat`` is the mean of the weighted squared error over all entries (Appendix B). Since the kinetic term keeps
    its group means (Eq. 37), it scales the flow terms against lambda: with the paper's 32 + 16 channels and weights
    1, 2 both factors are 2/3, so lambda = 0.04 under ``mean_flat`` equals lambda = 0.06 under ``group_mean`` with
    weights 1, 1.
    """
    if reduction == "group_mean":
        return layout.weights
    return [g.weight * g.channels / layout.channels for g in layout.groups]


def flow_loss(
    v: Tensor, u: Tensor, omega: Tensor, layout: Layout, reduction: Reduction = "mean_flat"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 24: v, u (B, C, H, W) and time weights omega (B, G) -> the loss, and E[omega_g l_g] by group.

    omega = t_g' is the corrected loss (Eq. 33-35, Lemma 3.3); omega = 1 is SFD's.
    """
    by_group = (omega * component_losses(v, u, layout)).mean(dim=0)
    factors = group_factors(layout, reduction)
    total = torch.stack([factor * by_group[g] for g, factor in enumerate(factors)]).sum()
    return total, dict(zip(layout.names, by_group.unbind(), strict=True))


def kinetic_energy(v: Tensor, rates: Tensor, layout: Layout) -> Tensor:
    """E[sum_g t_g'^2 |v_g|_g^2] (Eq. 37), gradients flowing into the rates: v (B, C, H, W), rates (B, G) -> scalar."""
    return (rates.square() * layout.group_means(v.float().square())).sum(dim=1).mean()


def schedule_objective(
    v: Tensor,
    u: Tensor,
    rates: Tensor,
    layout: Layout,
    kinetic_weight: float = 0.04,
    jacobian: Jacobian = "stop",
    reduction: Reduction = "mean_flat",
) -> Terms:
    """L_rho = L_flow + lambda R_kin (Eq. 38): predicted and target local velocities (B, C, H, W), rates (B, G).

    ``jacobian="stop"`` holds t' constant in the flow loss (Eq. 33, the paper's), which makes the update of rho a
    semi-gradient; ``"exact"`` lets gradients through it, which makes it the gradient of Eq. 36.
    """
    omega = rates.detach() if jacobian == "stop" else rates
    flow, by_group = flow_loss(v, u, omega, layout, reduction)
    kinetic = kinetic_energy(v, rates, layout)
    return Terms(flow + kinetic_weight * kinetic, flow, kinetic, by_group)


COSINE_NORM_FLOOR = 0.1
"""Below this norm of v the direction term is linear in v. PyTorch's default, 1e-8, makes the first gradient of a
network whose output starts at zero 1e8 times too large, which Adam's second moment does not soon forget."""


def cosine_direction_loss(v: Tensor, u: Tensor) -> Tensor:
    """LightningDiT's direction term: mean of 1 - cos(v, u) over positions, along the composite channels."""
    return (1 - F.cosine_similarity(v.float(), u.float(), dim=1, eps=COSINE_NORM_FLOOR)).mean()


def repa_loss(projected: Tensor, features: Tensor) -> Tensor:
    """REPA: mean over tokens of 1 - cos(projected hidden state, clean encoder feature).

    projected (B, L, D) in row-major token order, features (B, D, h, w) with h w = L.
    """
    target = features.flatten(2).transpose(1, 2)
    if target.shape != projected.shape:
        raise ValueError(
            f"REPA features give {tuple(target.shape)} (batch, tokens, channels), the model projects to "
            f"{tuple(projected.shape)}; model.feature_dim and the feature grid must match the shards"
        )
    return (1 - F.cosine_similarity(projected.float(), target.float(), dim=-1)).mean()
