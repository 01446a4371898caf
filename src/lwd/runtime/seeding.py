"""Counter-based random numbers: every draw is a pure function of (seed, stream, step, index).

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) in plain torch integer arithmetic, so
that one call draws for a whole batch and neither batch size, worker, process nor restart changes a single number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


class Stream(IntEnum):
    """What a number is used for; streams never overlap."""

    NOISE = 0
    TIME = 1
    LABEL_DROPOUT = 2
    FLIP = 3
    ORDER = 4
    INITIALISE = 5
    SAMPLE_NOISE = 6
    ENCODER = 7
    HELDOUT = 9
    EVALUATE = 10
    NETWORK = 11
    MAP = 12


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four counter words and two key words (int64 tensors in [0, 2^32), broadcastable) -> four words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The products wrap around as int64, which leaves their low 64 bits right.
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((b >> 32) & _MASK) ^ c1 ^ k0,
            b & _MASK,
            ((a >> 32) & _MASK) ^ c3 ^ k1,
            a & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform(
    stream: Stream, seed: int | Tensor, step: int | Tensor, index: Tensor, shape: tuple[int, ...] = ()
) -> Tensor:
    """Uniform numbers in the open interval (0, 1), float32, of shape (B, *shape).

    ``index`` (B,) int64 in [0, 2^32) names the samples, ``step`` in [0, 2^32) the step and ``seed`` the run (each
    one, or (B,) int64). The first numbers of a sample do not depend on how many are asked for.
    """
    count = math.prod(shape)
    device = index.device
    block = torch.arange((count + 3) // 4, device=device)[None, :]
    # torch.full, not torch.tensor: a fill is a kernel, a copy of a number to the device makes the host wait.
    seeds = seed.to(device, torch.int64) if isinstance(seed, Tensor) else torch.full((1,), seed, device=device)
    seeds = seeds.reshape(-1, 1)
    steps = step.reshape(-1, 1) if isinstance(step, Tensor) else torch.full((1, 1), step, device=device)
    counter = (
        block,
        index.reshape(-1, 1) & _MASK,
        steps & _MASK,
        torch.full((1, 1), int(stream), device=device),
    )
    words = philox(counter, (seeds & _MASK, (seeds >> 32) & _MASK))
    bits = torch.stack(words, dim=-1).flatten(1)[:, :count]
    numbers: Tensor = ((bits >> 9).float() + 0.5) * 2.0**-23
    return numbers.reshape((len(index), *shape))


def normal(stream: Stream, seed: int | Tensor, step: int | Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float32, of shape (B, *shape), by the inverse CDF of `uniform` (so |z| < 5.4)."""
    numbers: Tensor = torch.special.ndtri(uniform(stream, seed, step, index, shape))
    return numbers


def integer(stream: Stream, seed: int, step: int = 0) -> int:
    """One integer in [0, 2^63), of 46 random bits: a seed for a library's own generator."""
    index = torch.zeros(1, dtype=torch.int64)
    high, low = (uniform(stream, seed, step, index, (2,)) * 2**23).long()[0].tolist()
    return int((high << 32) | low)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, size: int) -> Tensor:
    """The order (size,) in which epoch ``epoch`` visits a data set of ``size`` images. Cached: do not write to it."""
    generator = torch.Generator().manual_seed(integer(Stream.ORDER, seed, epoch))
    return torch.randperm(size, generator=generator)


@lru_cache(maxsize=2)
def window_order(seed: int, epoch: int, lengths: tuple[int, ...], window: int) -> Tensor:
    """The same of shards of ``lengths`` images end to end, in which images are mixed among ``window`` shards at a time.

    The windows are those of `shard_windows`, each a random order of its images. Cached: do not write to it.
    """
    generator = torch.Generator().manual_seed(integer(Stream.ORDER, seed, epoch))
    shards = torch.split(torch.arange(sum(lengths)), list(lengths))
    pieces = []
    for numbers in torch.split(torch.randperm(len(lengths), generator=generator), window):
        images = torch.cat([shards[number] for number in numbers.tolist()])
        pieces.append(images[torch.randperm(len(images), generator=generator)])
    return torch.cat(pieces)


def shard_windows(seed: int, epoch: int, shards: int, window: int) -> list[list[int]]:
    """Which of so many ``shards`` make the windows of `window_order`, in the order in which an epoch visits them."""
    generator = torch.Generator().manual_seed(integer(Stream.ORDER, seed, epoch))
    return [some.tolist() for some in torch.split(torch.randperm(shards, generator=generator), window)]


def batch_indices(seed: int, step: int, batch: int, size: int) -> Tensor:
    """Which images (batch,) make the global batch of ``step``: batches cut from one epoch order after the other."""
    return cut_batch(lambda epoch: epoch_order(seed, epoch, size), step, batch, size)


def cut_batch(order: Callable[[int], Tensor], step: int, batch: int, size: int) -> Tensor:
    """The same where ``order`` gives an epoch's images (size,)."""
    start, stop = step * batch, (step + 1) * batch
    pieces = [
        order(epoch)[max(start - epoch * size, 0) : stop - epoch * size]
        for epoch in range(start // size, (stop - 1) // size + 1)
    ]
    return torch.cat(pieces)


@contextmanager
def seeded(stream: Stream, seed: int) -> Iterator[None]:
    """Run a block (a network's initialisation) on torch's global generator, seeded, and put the generator back."""
    with torch.random.fork_rng():
        torch.manual_seed(integer(stream, seed))
        yield


def seed_network(seed: int, step: int, rank: int) -> None:
    """Make what a network draws by itself in ``step`` (dropout) a function of the step and the process.

    It draws from torch's global generator, which a resumed run would find in another state.
    """
    torch.manual_seed((integer(Stream.NETWORK, seed, step) + rank) % 2**63)
