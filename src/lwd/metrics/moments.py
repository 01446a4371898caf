"""Mean and covariance of features that come in batches, on several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

Gaussian = tuple[Tensor, Tensor]
"""Mean (D,) and covariance (D, D), float64."""


_ROWS = 2048
"""Rows gathered before the scatter matrix is touched: it is large, and small batches would only stream it."""
_BLOCKS = 8
"""Column blocks of the scatter: of a symmetric matrix only the upper ones are computed, (_BLOCKS + 1) / (2 _BLOCKS)."""


class Moments:
    """Count, mean (D,) and scatter (D, D) = sum (x - mean)(x - mean)^T in float64, merged as in Chan, Golub and LeVeque
    (1979), so that neither the size of batches nor their order nor the number of processes matters beyond rounding.

    One process: ``add`` batches, read ``mean`` and ``covariance()``. Several: ``merge`` each one's, or the `state` that
    it sent, made a `Moments` by ``from_state``.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        if dim < 1:
            raise ValueError(f"features need at least 1 column, got {dim}")
        self.dim = dim
        self._count = 0
        self._mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)  # its upper blocks
        self._pending: list[Tensor] = []

    @property
    def count(self) -> int:
        """Number of rows so far."""
        return self._count + sum(map(len, self._pending))

    @property
    def mean(self) -> Tensor:
        """Mean (D,) float64 of the rows so far."""
        self._flush()
        return self._mean.clone()

    def add(self, features: Tensor) -> Self:
        """Add features (N, D) of any real dtype. Raises ValueError for another width, and values not finite."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must have shape (N, {self.dim}), got {tuple(features.shape)}")
        if not len(features):
            return self
        finite = torch.isfinite(features).all(1)
        if not bool(finite.all()):
            raise ValueError(f"features are not finite in row {int(finite.logical_not().nonzero()[0])} of a batch")
        # A copy: the caller may write its buffer again before it is used.
        self._pending.append(features.detach().to(self._mean.device, torch.float64, copy=True))
        if sum(map(len, self._pending)) >= _ROWS:
            self._flush()
        return self

    def merge(self, other: Moments) -> Self:
        """Add all that another one has seen. Raises ValueError for another width."""
        if other.dim != self.dim:
            raise ValueError(f"moments of different widths: {self.dim} and {other.dim}")
        self._flush()
        other._flush()
        device = self._mean.device
        self._combine(other._count, other._mean.to(device), other._scatter.to(device))
        return self

    def covariance(self) -> Tensor:
        """Covariance (D, D) float64, divisor N - 1. Raises ValueError for fewer than two rows."""
        self._flush()
        if self._count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self._count}")
        return self._symmetric() / (self._count - 1)

    def state(self) -> dict[str, Tensor]:
        """Everything, to save or to send: ``count`` () int64, ``mean`` (D,), ``scatter`` (D, D) symmetric."""
        self._flush()
        count = torch.tensor(self._count, device=self._mean.device)
        return {"count": count, "mean": self._mean.clone(), "scatter": self._symmetric()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Make moments of what `state` gave. Raises ValueError for anything else."""
        dim = len(state["mean"])
        if state["mean"].shape != (dim,) or state["scatter"].shape != (dim, dim) or state["count"].ndim:
            raise ValueError(f"no state of moments: shapes {[tuple(tensor.shape) for tensor in state.values()]}")
        moments = cls(dim, state["mean"].device)
        moments._combine(int(state["count"]), state["mean"].double(), state["scatter"].double())
        return moments

    def _symmetric(self) -> Tensor:
        return self._scatter.triu() + self._scatter.triu(1).T

    def _flush(self) -> None:
        if not self._pending:
            return
        x, self._pending = torch.cat(self._pending), []
        mean = x.mean(0)
        x -= mean
        mean += x.mean(0)  # what rounding left of the mean, which a large common offset makes visible
        self._shift(len(x), mean)
        for start in range(0, self.dim, -(-self.dim // _BLOCKS)):
            stop = start + -(-self.dim // _BLOCKS)
            self._scatter[start:stop, start:].addmm_(x[:, start:stop].T, x[:, start:])

    def _combine(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if count:
            self._shift(count, mean)
            self._scatter += scatter

    def _shift(self, count: int, mean: Tensor) -> None:
        """Count and mean with ``count`` more rows of this mean; the scatter gets what the two means' distance adds."""
        total = self._count + count
        delta = mean - self._mean
        self._scatter.addr_(delta, delta, alpha=self._count * count / total)
        self._mean += delta * (count / total)
        self._count = total
