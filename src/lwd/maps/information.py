"""What a map says of the data: noise errors, the coupling of two groups, their mutual information."""

from __future__ import annotations

import torch
from torch import Tensor

from lwd.maps.table import Map


def noise_errors(map: Map, pair: int = 0) -> Tensor:
    """N_g = E|n_g - n_hat_g|^2 = t_g^2 d_g l_g of each image (N, K, K, 2), sums over entries: leader, follower.

    n_hat_g = z_g - t_g v_g is the estimated noise.
    """
    lead, follow = map.index(map.leader), map.index(map.followers[pair])
    times = map.grid.times
    ahead, behind = torch.meshgrid(times, times, indexing="ij")
    sizes = map.layout.entries(map.positions)
    loss = map.loss[pair].double()
    errors = [ahead.square() * sizes[lead] * loss[..., lead], behind.square() * sizes[follow] * loss[..., follow]]
    return torch.stack(errors, dim=-1)


def coupling(map: Map, pair: int = 0) -> tuple[Tensor, Tensor]:
    """X = -dN_f/dlambda_s and its mirror -dN_s/dlambda_f, means over images: (K - 2, K - 2) inside the grid each.

    For the ideal denoiser both are e^(lambda_s + lambda_f) E||Cov(x_s, x_f | z)||_F^2, which is not negative; their
    difference is a map of the network's own error. Central differences.
    """
    leader, follower = noise_errors(map, pair).mean(0).unbind(-1)
    step = 2 * float(map.grid.values[1] - map.grid.values[0])
    by_leader = -(follower[2:, 1:-1] - follower[:-2, 1:-1]) / step
    by_follower = -(leader[1:-1, 2:] - leader[1:-1, :-2]) / step
    return by_leader, by_follower


def mutual_information(map: Map, pair: int = 0) -> dict[str, tuple[float, float]]:
    """I(x_s; x_f) in nats, given the condition, with its standard error over images; by two routes.

    ``follower``: 1/2 integral [N_f(s noise) - N_f(s clean)] dlambda_f along two edges of the map, ``leader`` the same
    with the roles changed. For the ideal denoiser both are equal; a network's errors add to either.
    """
    leader, follower = noise_errors(map, pair).unbind(-1)
    routes = {"follower": follower[:, 0] - follower[:, -1], "leader": leader[:, :, 0] - leader[:, :, -1]}
    found = {}
    for name, difference in routes.items():
        each = 0.5 * torch.trapezoid(difference, map.grid.values, dim=1)
        error = float(each.std() / len(each) ** 0.5) if len(each) > 1 else float("nan")
        found[name] = float(each.mean()), error
    return found
