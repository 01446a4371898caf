"""Too little memory, said before the first step, with what would be enough."""

from __future__ import annotations

import torch

from lwd.planning.memory import Estimate, Trained
from lwd.runtime.compute import ComputeConfig

GIB = 2**30
KEYS = ("micro_batch", "activation_checkpointing", "shard")
"""Of ``compute``: what changes the memory and not the result."""


def shortage(stage: str, estimate: Estimate, compute: ComputeConfig, processes: int, most: float) -> list[str]:
    """A line where ``stage`` needs more than ``most`` bytes of a card, and one for each way to make it fit."""
    found = estimate.memory(compute, processes)
    if found is None or found.total <= most:
        return []
    lines = [f"{stage} may not fit: about {found.total / GIB:,.1f} GiB of {most / GIB:,.1f}, uncompiled"]
    for tried, fits in estimate.proposals(compute, processes, most):
        changed = [key for key in KEYS if getattr(tried, key) != getattr(compute, key)]
        words = " ".join(f"compute.{key}={_in_yaml(getattr(tried, key))}" for key in changed)
        lines.append(f"{words}: {fits.total / GIB:,.1f} GiB")
    if len(lines) == 1:
        lines.append("no micro_batch, activation_checkpointing or shard is enough: more cards, or a smaller network")
    return lines


def shortage_on_gpu(stage: str, trained: Trained, compute: ComputeConfig, processes: int) -> list[str]:
    """`shortage` on this machine's GPU; nothing where training is on a CPU, or where it cannot be known."""
    if compute.device == "cpu" or not torch.cuda.is_available():
        return []
    most = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    try:
        return shortage(stage, Estimate(trained), compute, processes, most)
    except Exception:  # noqa: BLE001 - not every network can be built without data; nothing but a warning depends on it
        return []


def _in_yaml(value: object) -> str:
    return "null" if value is None else str(value).lower()
