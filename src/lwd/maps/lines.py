"""Integrals of a network's errors along a schedule's line through the local times.

With N_g = E|n_g - n_hat_g|^2 = t_g^2 d_g l_g (sums over a group's entries), lambda_g its log-SNR:

- `nats`: J = 1/2 integral of sum_g N_g dlambda_g. Up to a constant it is the negative held-out ELBO along the line
  (MuLAN, multivariate learned noise). For the ideal denoiser the integrand is the differential of the mutual
  information I(x1; z) (I-MMSE; Guo, Shamai and Verdu 2005), so J is the same along every line; a trained network's J
  differs between lines by its excess error, in nats.
- `line_loss`: L = integral of sum_g d_g l_g dt_g: Eq. 36 without the kinetic term, with group sums.

Both in log-SNR between the ends of a box: in t the first diverges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.maps.table import log_snr
from lwd.schedules import Schedule

_FINE = 20_001
"""Points of tau among which the nodes of a line are placed."""


@dataclass(frozen=True)
class Line:
    """The local times (M, G) of a schedule's nodes, float64, inside the box of log-SNR."""

    times: Tensor
    largest: float


@torch.no_grad()
def line(schedule: Schedule, largest: float = 8.0, nodes: int = 65) -> Line:
    """Place ``nodes`` along a schedule, at equal distances in log-SNR (summed over groups), which is held in the box
    [-``largest``, ``largest``]: a group that waits does so on the box's edge.
    """
    dense = torch.linspace(-30, 30, _FINE, dtype=torch.float64)
    tau = torch.cat([torch.zeros(1), torch.sigmoid(dense), torch.linspace(0, 1, _FINE), torch.ones(1)]).double()
    tau = torch.cat([tau, *(schedule[name].inverse(torch.sigmoid(dense / 2)) for name in schedule.names)]).sort().values
    held = log_snr(schedule(tau)[0]).clamp(-largest, largest)
    length = torch.cat([torch.zeros(1), held.diff(dim=0).abs().sum(1).cumsum(0)])
    wanted = torch.linspace(0, float(length[-1]), nodes, dtype=torch.float64)
    after = torch.searchsorted(length, wanted).clamp(1, len(length) - 1)
    span = (length[after] - length[after - 1]).clamp_min(torch.finfo(torch.float64).tiny)
    part = ((wanted - length[after - 1]) / span).clamp(0, 1)[:, None]
    return Line(torch.sigmoid(((1 - part) * held[after - 1] + part * held[after]) / 2), largest)


def nats(line: Line, loss: Tensor, entries: Sequence[int]) -> Tensor:
    """J (...,) of losses l_g (..., M, G) at the line's nodes, by the trapezoid rule in log-SNR.

    ``entries``: d_g, as of `Layout.entries`.
    """
    sizes = torch.tensor(entries, dtype=torch.float64, device=loss.device)
    times = line.times.to(loss.device)
    errors = times.square() * sizes * loss.double()
    steps = log_snr(times).diff(dim=0)
    return 0.5 * ((errors[..., 1:, :] + errors[..., :-1, :]) / 2 * steps).sum((-2, -1))


def line_loss(line: Line, loss: Tensor, entries: Sequence[int]) -> Tensor:
    """L (...,) of losses l_g (..., M, G) at the line's nodes, by the trapezoid rule in t; beyond the box's ends the
    nearest loss counts.
    """
    sizes = torch.tensor(entries, dtype=torch.float64, device=loss.device)
    times, values = line.times.to(loss.device), loss.double() * sizes
    inside = ((values[..., 1:, :] + values[..., :-1, :]) / 2 * times.diff(dim=0)).sum((-2, -1))
    return inside + (values[..., 0, :] * times[0] + values[..., -1, :] * (1 - times[-1])).sum(-1)
