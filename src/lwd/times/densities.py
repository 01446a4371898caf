"""Densities of one local time on [0, 1], each with its quantile function, so that every draw has its own seed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

BETA_BINS = 1000
"""Of the histogram that stands for a Beta density, whose quantile function PyTorch lacks."""


class Density(ABC):
    """A density q on [0, 1] and the quantile function that draws from it."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Tensor:
        """The density q(t) at times of any shape; differentiable in t where it is smooth."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Uniform numbers in (0, 1), of any shape -> times with the density q."""


class Uniform(Density):
    """The paper's q = 1 (Lemma 3.3)."""

    def __call__(self, t: Tensor) -> Tensor:
        """1 everywhere."""
        return torch.ones_like(t)

    def quantile(self, u: Tensor) -> Tensor:
        """The numbers themselves."""
        return u


class LogitNormal(Density):
    """logit(t) ~ N(mean, std^2): SD3's and SFD's density, most at middle times, none at 0 and 1."""

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(f"a logit-normal density needs a finite mean and a positive std, got {mean}, {std}")
        self.mean, self.std = mean, std

    def __call__(self, t: Tensor) -> Tensor:
        """exp(-((logit t - mean) / std)^2 / 2) / (std sqrt(2 pi) t (1 - t)), and its limit 0 at both ends."""
        inside = (t > 0) & (t < 1)
        s = torch.where(inside, t, 0.5)
        log_density = -0.5 * ((torch.logit(s) - self.mean) / self.std).square() - torch.log(s) - torch.log1p(-s)
        return torch.where(inside, torch.exp(log_density) / (self.std * math.sqrt(2 * math.pi)), 0.0)

    def quantile(self, u: Tensor) -> Tensor:
        """The logistic function of the normal quantile."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


class Histogram(Density):
    """Constant on equal bins of [0, 1], with masses as ``weights`` (bins,), not negative, in any unit."""

    def __init__(self, weights: Sequence[float] | Tensor) -> None:
        masses = torch.as_tensor(weights, dtype=torch.float64)
        if masses.ndim != 1 or not len(masses) or not bool((masses >= 0).all()) or not float(masses.sum()) > 0:
            raise ValueError("a histogram needs weights that are not negative and not all 0")
        if not bool(masses.isfinite().all()):
            raise ValueError("a histogram's weights must be finite")
        self.masses = masses / masses.sum()
        self._last = int(self.masses.nonzero()[-1])
        self._edges = torch.cat([torch.zeros(1, dtype=torch.float64), self.masses.cumsum(0)])

    def __call__(self, t: Tensor) -> Tensor:
        """The mass of t's bin times the number of bins; 1 is in the last bin."""
        masses = self.masses.to(t.device)
        return (masses[(t * len(masses)).long().clamp(0, len(masses) - 1)] * len(masses)).to(t.dtype)

    def quantile(self, u: Tensor) -> Tensor:
        """Linear in each bin; never in a bin without mass."""
        edges, masses = self._edges.to(u.device), self.masses.to(u.device)
        wide = u.double().contiguous()
        index = (torch.searchsorted(edges, wide, right=True) - 1).clamp(0, self._last)
        part = (wide - edges[index]) / masses[index].clamp_min(torch.finfo(torch.float64).tiny)
        return ((index + part.clamp(0, 1)) / len(masses)).to(u.dtype)


class Beta(Histogram):
    """Beta density with the given ``mean`` in (0, 1) and ``concentration`` a + b > 0, on `BETA_BINS` equal bins."""

    def __init__(self, mean: float = 0.5, concentration: float = 2.0) -> None:
        if not (0 < mean < 1 and 0 < concentration < math.inf):
            raise ValueError(
                f"a Beta density needs a mean in (0, 1) and a positive concentration, got {mean}, {concentration}"
            )
        self.mean, self.concentration = mean, concentration
        a, b = mean * concentration, (1 - mean) * concentration
        middles = (torch.arange(BETA_BINS, dtype=torch.float64) + 0.5) / BETA_BINS
        log_density = (a - 1) * middles.log() + (b - 1) * torch.log1p(-middles)
        super().__init__(torch.exp(log_density - log_density.max()))
