"""The memory of one process that trains, part by part, and what to change where there is too little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from lwd.groups import Layout
from lwd.models import ModelConfig
from lwd.planning.activations import Kept, kept
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.placement import blocks_of

FLOAT32 = 4
"""Bytes of a number; weights, gradients, moments and averages are float32 whatever ``compute.precision`` says."""
MOMENTS = 2
"""Of AdamW."""
WORKING = 8
"""How many times its largest kept tensor a step needs beside, for what it is just computing; a round guess, which fits
steps measured on a CPU (docs/plan.md)."""
GATHERED_BLOCKS = 2
"""Blocks that FSDP2 has whole at a time: the one that is computed, and the next, which is being fetched."""
CONTEXT_BYTES = 2**30
"""Assumed for the CUDA context, its libraries' workspaces and what the allocator cannot use."""


@dataclass(frozen=True)
class Trained:
    """What trains, and how: a network on latents of ``layout`` and ``shape``, its ``batch`` over all processes.

    ``averages``: how many copies of the weights are averaged; ``frozen``: what is done to the network before (freezing
    parameters, adding adapters).
    """

    model: ModelConfig
    layout: Layout
    shape: tuple[int, ...]
    batch: int
    averages: int = 1
    feature_dim: int | None = None
    frozen: Callable[[nn.Module], None] = lambda network: None


@dataclass(frozen=True)
class Count:
    """Numbers in a network: ``parameters`` of which ``trained`` learn, the largest ``block``'s, those ``outside`` of
    all ``blocks``; and whether it can compute its activations again."""

    parameters: int
    trained: int
    block: int
    outside: int
    blocks: int
    can_checkpoint: bool


@dataclass(frozen=True)
class Memory:
    """Bytes on each process's device, by part.

    ``casts``: what the backward pass keeps whatever the batch, copies of the weights in bf16 above all; ``buckets``:
    DDP's gradients once more, or what FSDP2 has gathered; ``micro_batch``: images at once.
    """

    weights: int
    averages: int
    moments: int
    gradients: int
    buckets: int
    activations: int
    casts: int
    working: int
    context: int
    micro_batch: int

    @property
    def parts(self) -> dict[str, int]:
        """All but the images."""
        return {name: value for name, value in vars(self).items() if name != "micro_batch"}

    @property
    def total(self) -> int:
        """Of all parts, as if all were there at once: gradients arrive as activations go, so this is a little high."""
        return sum(self.parts.values())


class Estimate:
    """The memory of training one network, whatever ``compute`` is; what is measured is measured once.

    Raises UserError for a network that cannot be built, and whatever else building it on the meta device raises.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        with torch.device("meta"):
            network = trained.model.build(trained.layout, trained.shape, trained.feature_dim)
            trained.frozen(network)
        self.count = _count(network)
        self._kept: dict[tuple[bool, bool], Kept | None] = {}

    def memory(self, compute: ComputeConfig, processes: int = 1, gpu: bool = True) -> Memory | None:
        """The memory of each of ``processes`` under ``compute``; None where activations cannot be measured.

        With ``compute.shard`` and several processes weights, gradients, moments and averages are divided (FSDP2), else
        every process has all of them, and DDP's buckets hold the gradients a second time. ``gpu``: with a CUDA context.
        """
        sizes, bf16 = self.count, compute.precision == "bf16"
        again = compute.activation_checkpointing and sizes.can_checkpoint
        found, whole = self._measure(bf16, again), self._measure(bf16, False)
        if found is None or whole is None:
            return None
        share = max(1, self.trained.batch // processes)
        images = min(share, compute.micro_batch or share)
        activations = found.per_image * images
        if again:  # while a block is computed again it has all that it would have kept, each block in turn
            activations += (whole.per_image - found.per_image) * images // max(1, sizes.blocks)
        divided = processes if compute.shard else 1
        gathered = sizes.outside + GATHERED_BLOCKS * sizes.block if compute.shard else sizes.trained
        return Memory(
            weights=FLOAT32 * sizes.parameters // divided,
            averages=FLOAT32 * self.trained.averages * sizes.parameters // divided,
            moments=FLOAT32 * MOMENTS * sizes.trained // divided,
            gradients=FLOAT32 * sizes.trained // divided,
            buckets=FLOAT32 * gathered if processes > 1 else 0,
            activations=activations,
            casts=found.fixed,
            working=WORKING * whole.largest * images,
            context=CONTEXT_BYTES if gpu else 0,
            micro_batch=images,
        )

    def proposals(self, compute: ComputeConfig, processes: int, most: float) -> Iterator[tuple[ComputeConfig, Memory]]:
        """What to set of ``micro_batch``, ``activation_checkpointing`` and ``shard`` so that ``most`` bytes are enough.

        Of each way the largest micro-batch, ways that cost less time first; nothing where none helps.
        """
        share = max(1, self.trained.batch // processes)
        sizes = [n for n in range(share, 0, -1) if share % n == 0 and n <= (compute.micro_batch or share)]
        for shard in sorted({compute.shard, processes > 1}):
            for again in sorted({compute.activation_checkpointing, self.count.can_checkpoint}):
                for images in sizes:
                    changes = {"micro_batch": None if images == share else images}
                    changes |= {"activation_checkpointing": again, "shard": shard}
                    tried = compute.model_copy(update=changes)
                    found = self.memory(tried, processes)
                    if found is not None and found.total <= most:
                        yield tried, found
                        break

    def _measure(self, bf16: bool, checkpointed: bool) -> Kept | None:
        key, t = (bf16, checkpointed), self.trained
        if key not in self._kept:
            self._kept[key] = kept(t.model, t.layout, t.shape, t.feature_dim, bf16, checkpointed, t.frozen)
        return self._kept[key]


def _count(network: nn.Module) -> Count:
    blocks = [sum(p.numel() for p in block.parameters()) for block in blocks_of(network)]
    parameters = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    can = hasattr(network, "checkpoint_blocks")
    return Count(parameters, trained, max(blocks, default=parameters), parameters - sum(blocks), len(blocks), can)
