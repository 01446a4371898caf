"""A network on this process's device, compiled, checkpointed and divided as configured.

What a network is asked for beyond being a module is optional: ``blocks``, which are compiled and divided one by one,
``compile_blocks``, which compiles them another way, and ``checkpoint_blocks``, which makes it recompute activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from lwd.errors import UserError
from lwd.runtime.processes import Processes
from lwd.runtime.sharding import shard

M = TypeVar("M", bound=nn.Module)


def place(network: M, processes: Processes) -> M:
    """The network on the process's device, compiled and checkpointed as ``compute`` says.

    Raises UserError where activations are to be recomputed and the network has no ``checkpoint_blocks``.
    """
    compute = processes.compute
    if hasattr(network, "checkpoint_blocks"):
        network.checkpoint_blocks = compute.activation_checkpointing  # type: ignore[assignment]
    elif compute.activation_checkpointing:
        raise UserError("compute.activation_checkpointing: this network has no checkpoint_blocks; set it to false")
    if processes.device.type == "cuda" if compute.compile == "auto" else compute.compile:
        compile_blocks: Callable[[], None] | None = getattr(network, "compile_blocks", None)
        if compile_blocks is not None:
            compile_blocks()
        else:
            for part in blocks_of(network) or [network]:
                part.compile()
    return network.to(processes.device)


def divide(processes: Processes, *networks: nn.Module) -> None:
    """Divide each among the processes if ``compute.shard`` says so; after `place`, copies, before an optimiser."""
    if processes.compute.shard and processes.world > 1:
        for network in networks:
            shard(network, blocks_of(network), processes.device)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The modules in a network's ``blocks``; none where it has no such list."""
    blocks = getattr(network, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.ModuleList | nn.Sequential) else []
