"""Weights divided among processes (FSDP2), and what has to know of it: norms, gathering, loading.

`torch.distributed.fsdp.fully_shard` makes each parameter a DTensor, of which a process holds some rows; gradients,
the optimiser's moments and averages follow. Whatever here gathers or sums is collective: every process must call it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, get_world_size

from lwd.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs


def shard(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> None:
    """Divide the weights among all processes, in place: those of each of its ``blocks``, then the rest.

    Each process must hold the same weights. A block is gathered when it runs, forwards and backwards, in float32, and
    freed at once. Do it before an optimiser is made, and after copies: a divided network cannot be deep-copied.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (get_world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)  # nobody writes to it


def check_gathered() -> None:
    """Raise UserError where this PyTorch does not have what `gathered` needs."""
    from torch.distributed.fsdp import FSDPModule

    if not hasattr(FSDPModule, "set_reshard_after_forward"):
        raise UserError(
            f"torch {torch.__version__} cannot gather a divided network for a while; take a later one, or leave out "
            "train.evaluate_every or compute.shard"
        )


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within the block each process has all weights of a divided network, and so may run it without the others.

    All must enter it. Takes the memory of the weights whole; nothing where the network is not divided.
    """
    if not divided(model):
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def is_divided(tensor: Tensor) -> TypeIs[DTensor]:
    """Whether it is a DTensor. Whoever makes the first one has loaded the class: seconds, with SymPy behind it, that
    all others do without."""
    loaded = sys.modules.get("torch.distributed.tensor")
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def divided(module: nn.Module) -> bool:
    """Whether some of its parameters are."""
    return any(is_divided(p) for p in module.parameters())


def undivided(module: nn.Module) -> list[nn.Parameter]:
    """What trains beside the divided parameters and is whole on each process: nobody else averages its gradients."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    whole = [p for p in parameters if not is_divided(p)]
    return whole if len(whole) < len(parameters) else []


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm over all entries, those of other processes included: a scalar, the same on each."""
    whole = [t for t in tensors if not is_divided(t)]
    divided = [t for t in tensors if is_divided(t)]
    if not divided:
        return _norm(whole)
    norm = _norm([t.to_local() for t in divided])
    square = norm.double().square()  # in float32 the square of a norm past 2e19 would be infinite
    all_reduce(square, group=divided[0].device_mesh.get_group())
    if whole:
        square = square + _norm(whole).double().square()
    return square.sqrt().to(norm.dtype)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """`torch.nn.utils.get_total_norm` of tensors on one device, without its sorting by device, which costs as much."""
    if not tensors:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
    return norm


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a divided tensor, sharing its memory; another tensor as it is."""
    return tensor.to_local() if is_divided(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All rows of a divided tensor, gathered; another tensor as it is."""
    return tensor.full_tensor() if is_divided(tensor) else tensor


def gather(tensors: Iterable[Tensor]) -> None:
    """Take part in `whole` of each, keeping nothing."""
    for tensor in tensors:
        whole(tensor)


def divided_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, divided as ``pattern`` of the same shape is, and on its device: this process keeps its rows."""
    if not is_divided(pattern):
        return tensor
    from torch.distributed.tensor import DTensor

    mesh = pattern.device_mesh
    rank, parts = mesh.get_local_rank(), tensor.chunk(mesh.size())
    rows = parts[rank] if rank < len(parts) else tensor[:0]
    rows = rows.to(pattern.device, copy=True)  # not a view that keeps the whole in memory
    return DTensor.from_local(
        rows, mesh, pattern.placements, run_check=False, shape=pattern.shape, stride=pattern.stride()
    )
