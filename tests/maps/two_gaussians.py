"""Two correlated Gaussian groups, whose ideal denoiser, losses and information are closed forms."""

import torch

from lwd.groups import Layout
from lwd.maps import LogSNR, Map
from lwd.maps.measure import grid_points


class Gaussian:
    """N(0, S) data in groups of 2 (``s``) and 3 (``f``) entries, of variance 1 and ``variance``.

    ``shared`` scales the covariance of the groups.
    """

    def __init__(self, shared=1.0, weights=(2.0, 1.0), variance=1.0):
        generator = torch.Generator().manual_seed(3)
        root = torch.randn(5, 5, dtype=torch.float64, generator=generator)
        own = root @ root.T / 5 + 0.3 * torch.eye(5, dtype=torch.float64)
        scale = own.diagonal().rsqrt()
        own = own * scale[:, None] * scale
        own[:2, 2:] *= shared
        own[2:, :2] *= shared
        own[2:] *= variance**0.5
        own[:, 2:] *= variance**0.5
        self.covariance = own
        groups = [("s", 2, weights[0]), ("f", 3, weights[1])]
        self.layout = Layout([{"name": n, "channels": c, "weight": w} for n, c, w in groups])

    def parts(self, times):
        """Cov(u, z) and Cov(z) at local times (M, 2): (M, 5, 5) each."""
        t = times.double().repeat_interleave(torch.tensor(self.layout.sizes), dim=1)
        noise = torch.diag_embed((1 - t).square())
        cross = self.covariance * t[:, None, :] - torch.diag_embed(1 - t)
        return cross, t[:, :, None] * self.covariance * t[:, None, :] + noise

    def velocity(self, z, times, *_):
        """E[x1 - x0 | z]: z (B, 5), times (B, 2) -> (B, 5)."""
        cross, whole = self.parts(times)
        return (cross @ torch.linalg.solve(whole, z.double()[..., None]))[..., 0].to(z.dtype)

    def loss(self, times):
        """l_g (M, 2) of the ideal denoiser, and k_g = E|v_g|^2."""
        cross, whole = self.parts(times)
        explained = cross @ torch.linalg.solve(whole, cross.mT)
        total = self.covariance + torch.eye(5, dtype=torch.float64)
        means = [x.diagonal(dim1=-2, dim2=-1) for x in (total - explained, explained)]
        return tuple(torch.stack([x[:, :2].mean(1), x[:, 2:].mean(1)], dim=1) for x in means)

    def draw(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        x1, x0 = torch.randn(2, count, 5, dtype=torch.float64, generator=generator)
        return x1 @ torch.linalg.cholesky(self.covariance).T, x0

    def map(self, grid=None):
        """Its exact map, as of one image."""
        grid = grid or LogSNR()
        shape = (1, 1, grid.points, grid.points, 2)
        loss, speed = self.loss(grid_points(self.layout, "s", grid))
        return Map(self.layout, "s", grid, 1, loss.view(shape), speed.view(shape))

    def information(self, times):
        """I(x1; z) in nats at local times (M, 2)."""
        odds = (times / (1 - times)).repeat_interleave(torch.tensor(self.layout.sizes), dim=1)
        return 0.5 * torch.logdet(torch.eye(5) + odds[:, :, None] * self.covariance * odds[:, None, :])

    def mutual_information(self):
        """I(x_s; x_f) in nats."""
        c = self.covariance
        return float(0.5 * (torch.logdet(c[:2, :2]) + torch.logdet(c[2:, 2:]) - torch.logdet(c)))
