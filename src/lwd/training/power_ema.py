"""Power-function averages of weights, from which averages of any width can be made after training.

EDM2 (Karras et al. 2024, arXiv 2312.02696), Section 3 and Appendix C. Not ``ema-pytorch``: it writes pickles, reads a
device counter in every update, and is a step off the paper's beta_t.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor, nn

from lwd.files import discard, remove
from lwd.runtime.checkpoint import Content, find_checkpoints, load_module
from lwd.training.ema import EMA

M = TypeVar("M", bound=nn.Module)

SNAPSHOTS = "posthoc"
"""The folder of a run's snapshots, beside its checkpoints."""

WIDEST = 12**-0.5
"""sigma_rel of the plain mean (gamma = 0)."""

SigmaRel = Annotated[float, Field(gt=0, lt=WIDEST)]
"""An average's width: the standard deviation of when its weights are from, as a share of the time trained."""

SnapshotType = Literal["float32", "float16"]
"""How a snapshot's weights are stored. Not bfloat16: no smaller than float16, and eight times coarser."""


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the profile of width ``sigma_rel`` (Eq. 126, Algorithm 2): p(tau) ~ tau^gamma up to now."""
    t = sigma_rel**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


def sigma_rel_of(gamma: float) -> float:
    """The width of the profile with exponent ``gamma`` (Eq. 123)."""
    return float((gamma + 1) ** 0.5 * (gamma + 2) ** -1 * (gamma + 3) ** -0.5)


def power_decay(gamma: float, step: int) -> float:
    """beta_t = (1 - 1/t)^(gamma + 1) at step t = 1, 2, ... (Eq. 127); 0 at the first."""
    return float((1 - 1 / step) ** (gamma + 1))


def overlaps(t_a: ArrayLike, gamma_a: ArrayLike, t_b: ArrayLike, gamma_b: ArrayLike) -> NDArray[np.float64]:
    """Inner products of the profiles (t_a, gamma_a), down, with (t_b, gamma_b), across (Eq. 151): (A, B) float64."""
    ta, ga = (np.asarray(x, np.float64)[:, None] for x in (t_a, gamma_a))
    tb, gb = (np.asarray(x, np.float64)[None, :] for x in (t_b, gamma_b))
    share = (ta / tb) ** np.where(ta < tb, gb, -ga)
    return np.asarray((ga + 1) * (gb + 1) * share / ((ga + gb + 1) * np.maximum(ta, tb)))


def coefficients(times: Sequence[int], widths: Sequence[float], time: int, width: float) -> NDArray[np.float64]:
    """Coefficients of averages of ``widths`` at ``times`` that make the one of ``width`` at ``time``; they sum to 1.

    The least-squares fit of the profiles (Algorithm 3), which are exact for weights that are constant between steps.
    """
    gammas = [gamma_of(w) for w in widths]
    among, wanted = overlaps(times, gammas, times, gammas), overlaps(times, gammas, [time], [gamma_of(width)])
    found = np.asarray(np.linalg.lstsq(among, wanted[:, 0])[0], np.float64)
    return np.asarray(found / found.sum())


def misfit(parts: NDArray[np.float64], times: Sequence[int], widths: Sequence[float], time: int, width: float) -> float:
    """The L2 distance of a mixture's profile, with `coefficients` ``parts``, from the wanted one, relative to it."""
    gammas, wanted = [gamma_of(w) for w in widths], ([time], [gamma_of(width)])
    size = float(overlaps(*wanted, *wanted)[0, 0])
    across = float(parts @ overlaps(times, gammas, *wanted)[:, 0])
    square = float(parts @ overlaps(times, gammas, times, gammas) @ parts) - 2 * across + size
    return float((max(square, 0.0) / size) ** 0.5)


class PosthocEMA(Generic[M]):
    """One power-function average of a model's weights for each of ``widths`` (sigma_rel)."""

    def __init__(self, model: M, widths: Sequence[float]) -> None:
        self.averages: dict[float, EMA[M]] = {width: EMA(model, 0.0) for width in widths}
        self._gammas = {width: gamma_of(width) for width in widths}

    def update(self, step: int) -> None:
        """Move the averages, after ``step`` = 1, 2, ... steps of the optimiser."""
        for width, average in self.averages.items():
            average.update(power_decay(self._gammas[width], step))

    def files(self, folder: str) -> dict[str, Content]:
        """The contents of a checkpoint, which `load` reads to the last bit."""
        return {f"{folder}/{file_of(width)}": average.model.state_dict() for width, average in self.averages.items()}

    def snapshot(self, stored: SnapshotType) -> dict[str, Content]:
        """The snapshot that `lwd ema` reads: what trains in type ``stored``, the rest, the same in all, as it is."""
        if stored == "float32":
            return self.files(".")
        return {
            f"./{file_of(width)}": _Halved(average.model.state_dict(), average.moving_names)
            for width, average in self.averages.items()
        }

    def load(self, folder: Path) -> None:
        """Put back what `files` gave."""
        for width, average in self.averages.items():
            load_module(average.model, folder / file_of(width))


class _Halved(Mapping[str, Tensor]):
    """Tensors, of which those of ``names`` are in float16; one at a time, so that the device needs no room for all."""

    def __init__(self, tensors: Mapping[str, Tensor], names: Collection[str]) -> None:
        self._tensors, self._names = tensors, names

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        return tensor.to(torch.float16) if name in self._names else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def file_of(width: float) -> str:
    """The file of the average of width ``width``."""
    return f"sigma-{width!r}.safetensors"


def find_averages(snapshot: Path) -> dict[float, Path]:
    """The files of a snapshot's averages by width, narrowest first."""
    names = ((re.fullmatch(r"sigma-([\d.e-]+)\.safetensors", file.name), file) for file in snapshot.iterdir())
    return dict(sorted((float(match[1]), file) for match, file in names if match))


def drop_snapshots(folder: Path, first: int) -> None:
    """Remove snapshots of steps that will be done again, and what a run that was killed left of one."""
    for leftover in (*folder.glob(".step-*.tmp"), *folder.glob(".step-*.old")):
        remove(leftover)
    for step, path in find_checkpoints(folder).items():
        if step > first:
            discard(path)
