"""Measuring a network: its loss and speed at points of local times, image by image, with fixed noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lwd.flow import component_losses, interpolate
from lwd.groups import Layout
from lwd.maps.table import LogSNR

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""z (B, C, ...), local times (B, G) and which images they are of (B,) int64 -> local velocities (B, C, ...)."""


@torch.no_grad()
def at_points(
    velocity: Velocity, x1: Tensor, x0: Tensor, times: Tensor, layout: Layout, batch: int
) -> tuple[Tensor, Tensor]:
    """Loss and speed of every image at every point: x1, x0 (n, C, ...), times (M, G) -> (M, n, G) float32 each.

    All points of all images go through the network ``batch`` at a time.
    """
    images, points, device = len(x1), len(times), x1.device
    times = times.to(device, torch.float32)
    loss = torch.empty(points * images, len(layout.names), device=device)
    speed = torch.empty_like(loss)
    for rows in torch.split(torch.arange(points * images, device=device), batch):
        image, at = rows % images, times[rows // images]
        z, u = interpolate(x0[image], x1[image], at, layout)
        v = velocity(z, at, image).to(u.dtype)
        loss[rows] = component_losses(v, u, layout)
        speed[rows] = layout.group_means(v.float().square())
    return loss.view(points, images, -1), speed.view(points, images, -1)


def measure(
    velocity: Velocity, x1: Tensor, x0: Tensor, layout: Layout, leader: str, grid: LogSNR, batch: int
) -> tuple[Tensor, Tensor]:
    """Loss and speed over the grid of every pair: x1, x0 (n, C, ...) -> (P, n, K, K, G) float32 each (`Map`).

    What is measured of an image does not depend on the others, nor, but for float rounding, on ``batch``.
    """
    times = grid_points(layout, leader, grid).to(x1.device, torch.float32, non_blocking=True)
    loss, speed = at_points(velocity, x1, x0, times, layout, batch)
    shape = (len(layout.names) - 1, grid.points, grid.points, len(x1), len(layout.names))
    return loss.view(shape).permute(0, 3, 1, 2, 4), speed.view(shape).permute(0, 3, 1, 2, 4)


def measure_over(
    velocity: Velocity, x1: Tensor, noises: Iterable[Tensor], layout: Layout, leader: str, grid: LogSNR, batch: int
) -> tuple[Tensor, Tensor]:
    """`measure`, the mean over draws of noise (n, C, ...)."""
    draws = [measure(velocity, x1, x0, layout, leader, grid, batch) for x0 in noises]
    loss, speed = (sum(values[1:], start=values[0]) / len(values) for values in zip(*draws, strict=True))
    return loss, speed


def grid_points(layout: Layout, leader: str, grid: LogSNR) -> Tensor:
    """The local times (P K K, G) of every pair's grid: the leader's, one other group's, the rest at the leader's."""
    others = [g for g, name in enumerate(layout.names) if name != leader]
    if len(others) == len(layout.names) or not others:
        raise ValueError(f"leader {leader!r} must be one of at least two groups {list(layout.names)}")
    ahead, behind = torch.meshgrid(grid.times, grid.times, indexing="ij")
    pairs = ahead[None, :, :, None].repeat(len(others), 1, 1, len(layout.names))
    for pair, g in enumerate(others):
        pairs[pair, :, :, g] = behind
    return pairs.flatten(0, 2)


def measure_line(velocity: Velocity, x1: Tensor, x0: Tensor, times: Tensor, layout: Layout, batch: int) -> Tensor:
    """Loss along a line of local times (M, G), image by image: (n, M, G) float32."""
    return at_points(velocity, x1, x0, times, layout, batch)[0].transpose(0, 1)
