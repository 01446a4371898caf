"""How much memory does a training step take on a card? The estimate of `lwd plan` against a step followed without one.

    python benchmarks/memory.py                                       # LightningDiT-Mini, in seconds
    python benchmarks/memory.py --size XL --batch 256 --grid 16

Followed: steps of `lwd train` under bf16 with REPA and EMA on the stand-in (`card_stand_in.py`), their tensors added up
by PyTorch's MemTracker: nothing compiled, no context, no fragmentation. Its time grows faster than the depth, so deep
networks are followed at two depths, along which the sum is linear. Then what one block keeps for the backward pass,
as it is and compiled (PyTorch's partitioner, which recomputes what is cheap), on real tensors of two and three images;
and the estimate with the compiled blocks' activations in place of the others.
"""

from __future__ import annotations

import argparse

import card_stand_in
import torch
from common import CLASSES, FEATURE_DIM, LAYOUT, followed_parser, record
from fake_cuda import Followed
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

from lwd.models import ModelConfig
from lwd.models.layers import Block, rotary_table
from lwd.models.sizes import SIZES
from lwd.planning.memory import Estimate, Memory, Trained
from lwd.runtime.compute import ComputeConfig
from lwd.stages.train import TrainSettings
from lwd.stages.train.run import DenoiserObjective, TrainTask

GIB = 2**30


def planned(arguments: argparse.Namespace) -> Memory:
    """What `lwd plan` says of a step."""
    model = ModelConfig(name=f"LightningDiT-{arguments.size}/1", num_classes=CLASSES)
    trained = Trained(model, LAYOUT, (arguments.grid,) * 2, arguments.batch, feature_dim=FEATURE_DIM)
    found = Estimate(trained).memory(ComputeConfig(precision="bf16"))
    assert found is not None
    return found


def followed(arguments: argparse.Namespace) -> int:
    """Bytes of the tensors of a step at their most."""
    whole, shallow = SIZES[arguments.size].depth, ModelConfig(num_classes=CLASSES).repa_block + 1
    if whole <= shallow + 1:
        return followed_at(arguments, whole)
    first, second = (followed_at(arguments, depth) for depth in (shallow, shallow + 1))
    return first + (whole - shallow) * (second - first)


def followed_at(arguments: argparse.Namespace, depth: int) -> int:
    """The same of a network of so many blocks."""
    with card_stand_in.stand_in() as card:
        parts = Followed(card, arguments)
        model = parts.network(arguments.size, FEATURE_DIM, depth)
        model.requires_grad_(True)  # MemTracker takes no frozen parameter; the table of positions is one, of 1 MB at XL
        tracker = MemTracker()
        with card.waiting():
            task = TrainTask(DenoiserObjective(model, LAYOUT, parts.schedule, TrainSettings(), 0), TrainSettings())
        parts.steps(task, parts.data, 1)  # makes the moments; MemTracker follows a module but once
        tracker.track_external(task.module, task.ema.model, task.optimizer)
        with tracker:
            parts.steps(task, parts.data, 1)
    (found,) = [each for device, each in tracker.get_tracker_snapshot("peak").items() if device.type == "cuda"]
    return int(found["Total"])


def kept(size: str, grid: int, compiled: bool) -> float:
    """Bytes that one block keeps for each image."""
    its = SIZES[size]
    block: nn.Module = Block(its.width, its.heads, 4.0)
    cos, sin = rotary_table(its.width // its.heads, grid)
    own = {t.untyped_storage().data_ptr() for t in (*block.parameters(), cos, sin)}
    if compiled:
        block.compile(fullgraph=True, backend="aot_eager_decomp_partition", dynamic=False)

    def of(images: int) -> int:
        stored: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            if (place := tensor.untyped_storage().data_ptr()) not in own:
                stored.setdefault(place, tensor)
            return tensor

        torch._dynamo.reset()
        x = torch.randn(images, grid**2, its.width, requires_grad=True) * 1
        condition = torch.randn(images, its.width, requires_grad=True) * 1
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            block(x, condition, cos, sin)
        return sum(tensor.untyped_storage().nbytes() for tensor in stored.values())

    return of(3) - of(2)


def main() -> None:
    """Compare and print."""
    arguments = followed_parser(__doc__).parse_args()
    arguments.weak_size = arguments.size
    plan = planned(arguments)
    print(f"LightningDiT-{arguments.size}/1, batch {arguments.batch}, bf16, torch {torch.__version__}, no card; GiB")
    print("lwd plan: " + ", ".join(f"{name} {size / GIB:.3g}" for name, size in plan.parts.items()))
    tensors = plan.total - plan.context
    eager, compiled = (kept(arguments.size, arguments.grid, each) for each in (False, True))
    less = SIZES[arguments.size].depth * arguments.batch * (eager - compiled)
    print(f"one block keeps {eager / 2**20:.2f} MiB an image, compiled {compiled / 2**20:.2f}")
    print(f"lwd plan: {plan.total / GIB:.1f}, with compiled blocks {(plan.total - less) / GIB:.1f}", flush=True)
    found = followed(arguments)
    ratio = tensors / found
    record("memory", planned=plan.total / GIB, followed=found / GIB, ratio=ratio, eager=eager, compiled=compiled)
    print(f"lwd plan without the context {tensors / GIB:.1f}, followed {found / GIB:.1f}: {ratio:.3f}")


if __name__ == "__main__":
    main()
