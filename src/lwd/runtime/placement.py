"""A network on this process's device, compiled, checkpointed and divided as configured.

What a network is asked for beyond being a module is optional: ``blocks``, which are compiled, recomputed and divided
one by one, ``compile_blocks`` and ``checkpoint_blocks``, as `lwd.models.LightningDiT` has them.
"""

from __future__ import annotations

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
        compiles = getattr(network, "compile_blocks", network.compile)
        compiles()
    return network.to(processes.device)


def divide(processes: Processes, *networks: nn.Module) -> None:
    """Divide each among the processes if ``compute.shard`` says so; after `place`, copies, before an optimiser."""
    if processes.compute.shard and processes.world > 1:
        for network in networks:
            shard(network, getattr(network, "blocks", ()), processes.device)
