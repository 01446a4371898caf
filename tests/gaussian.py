"""Gaussian data with correlated groups, for which the paper's ideal quantities have closed forms.

Latents are flattened in (C, ...) order to N entries. With local times t, A = diag(t), B = diag(1 - t), data
x1 ~ N(mu, Sigma) and noise x0 ~ N(0, I), z = A x1 + B x0 and the target u = x1 - x0 are jointly Gaussian:

    E z = A mu,  Cov z = A Sigma A + B^2 = S,  E u = mu,  Cov u = Sigma + I,  Cov(u, z) = Sigma A - B = G,

so v*(z) = E[u | z] = mu + G S^-1 (z - A mu). Everything is float64 and differentiable in the times (..., G).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.groups import Layout


@dataclass(frozen=True)
class GaussianData:
    """x1 ~ N(mean, cov) over a layout on a grid of any rank, () if the layout is flat; N = channels * positions."""

    layout: Layout
    grid: tuple[int, ...]
    mean: Tensor
    cov: Tensor

    @classmethod
    def random(cls, layout: Layout, grid: tuple[int, ...] = (1, 1), seed: int = 0) -> GaussianData:
        """Random mean, and a covariance with strong correlations within and across groups, eigenvalues at least 0.1."""
        generator = torch.Generator().manual_seed(seed)
        n = layout.channels * math.prod(grid)
        factor = torch.randn(n, n, generator=generator, dtype=torch.float64)
        mean = torch.randn(n, generator=generator, dtype=torch.float64)
        return cls(layout, grid, mean, factor @ factor.T / n + 0.1 * torch.eye(n, dtype=torch.float64))

    @property
    def entries(self) -> int:
        return len(self.mean)

    @property
    def owners(self) -> Tensor:
        """The group index of each of the N entries."""
        positions = math.prod(self.grid)
        return torch.tensor([g for g, size in enumerate(self.layout.sizes) for _ in range(size * positions)])

    def latent(self, flat: Tensor) -> Tensor:
        """(B, N) -> (B, C, ...)."""
        return flat.reshape(len(flat), self.layout.channels, *self.grid)

    def per_entry(self, times: Tensor) -> Tensor:
        """(..., G) -> (..., N): each entry's own value."""
        return times[..., self.owners]

    def group_mean(self, values: Tensor) -> Tensor:
        """(..., N) -> (..., G): the mean over each group's entries."""
        return torch.stack([values[..., self.owners == g].mean(-1) for g in range(len(self.layout.groups))], dim=-1)

    def sample(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Independent noise x0 and data x1, each (count, C, ...)."""
        generator = torch.Generator().manual_seed(seed)
        x0 = torch.randn(count, self.entries, generator=generator, dtype=torch.float64)
        normal = torch.randn(count, self.entries, generator=generator, dtype=torch.float64)
        return self.latent(x0), self.latent(self.mean + normal @ torch.linalg.cholesky(self.cov).T)

    def cubature(self) -> tuple[Tensor, Tensor]:
        """4 N equally weighted pairs (x0, x1) whose mean and covariance are exactly those of noise and data.

        The average over them of any quadratic in (x0, x1) is its exact expectation: no Monte Carlo error.
        """
        n = 2 * self.entries
        points = (n**0.5) * torch.cat([torch.eye(n, dtype=torch.float64), -torch.eye(n, dtype=torch.float64)])
        x1 = self.mean + points[:, self.entries :] @ torch.linalg.cholesky(self.cov).T
        return self.latent(points[:, : self.entries]), self.latent(x1)

    def moments(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., N) and covariance (..., N, N) of z at local times (..., G) (Theorem 3.1, I)."""
        a = self.per_entry(times)
        return a * self.mean, a[..., :, None] * self.cov * a[..., None, :] + torch.diag_embed((1 - a).square())

    def _regression(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cov(u, z), E z and the slope Cov(u, z) Cov(z)^-1."""
        a = self.per_entry(times)
        mean, cov = self.moments(times)
        cross = self.cov * a[..., None, :] - torch.diag_embed(1 - a)
        return cross, mean, torch.linalg.solve(cov, cross.mT).mT

    def ideal_map(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """K (..., N, N) and k (..., N) with v*(z) = K z + k (Eq. 7)."""
        _, mean, slope = self._regression(times)
        return slope, self.mean - (slope @ mean[..., None])[..., 0]

    def ideal_velocity(self, z: Tensor, times: Tensor) -> Tensor:
        """v*(z, times) (B, C, ...) for z (B, C, ...) and times (B, G)."""
        slope, offset = self.ideal_map(times)
        return self.latent((slope @ z.flatten(1)[..., None])[..., 0] + offset)

    def score(self, z: Tensor, times: Tensor) -> Tensor:
        """grad log p(z) = -S^-1 (z - A mu), (B, C, ...)."""
        mean, cov = self.moments(times)
        return self.latent(-torch.linalg.solve(cov, (z.flatten(1) - mean)[..., None])[..., 0])

    def log_density(self, z: Tensor, times: Tensor) -> Tensor:
        """log p(z) (B,), up to the constant -(N/2) log(2 pi)."""
        mean, cov = self.moments(times)
        centred = (z.flatten(1) - mean)[..., None]
        return -0.5 * ((centred.mT @ torch.linalg.solve(cov, centred))[..., 0, 0] + torch.logdet(cov))

    def bayes_risk(self, times: Tensor) -> Tensor:
        """l_g of the ideal velocity (..., G): the group means of diag Cov(u | z)."""
        cross, _, slope = self._regression(times)
        explained = (slope * cross).sum(-1)
        return self.group_mean(self.cov.diagonal() + 1 - explained)

    def ideal_energy(self, times: Tensor) -> Tensor:
        """E|v*_g|^2 (..., G), group means."""
        cross, _, slope = self._regression(times)
        return self.group_mean(self.mean.square() + (slope * cross).sum(-1))

    def linear_losses(self, slope: Tensor, offset: Tensor, times: Tensor) -> Tensor:
        """l_g (..., G) of the linear velocity v(z) = slope z + offset, slope (..., N, N), offset (..., N)."""
        a, eye = self.per_entry(times), torch.eye(self.entries, dtype=self.cov.dtype)
        on_data, on_noise = slope * a[..., None, :] - eye, slope * (1 - a)[..., None, :] + eye
        variance = ((on_data @ self.cov) * on_data).sum(-1) + on_noise.square().sum(-1)
        return self.group_mean(variance + ((on_data @ self.mean[:, None])[..., 0] + offset).square())

    def linear_energy(self, slope: Tensor, offset: Tensor, times: Tensor) -> Tensor:
        """E|v_g|^2 (..., G) of the linear velocity v(z) = slope z + offset."""
        mean, cov = self.moments(times)
        return self.group_mean(((slope @ cov) * slope).sum(-1) + ((slope @ mean[..., None])[..., 0] + offset).square())
