"""Would a whole step compile into one graph, and does the network export? Followed on meta tensors, without numbers.

    python benchmarks/graphs.py                            # LightningDiT-Mini, in seconds
    python benchmarks/graphs.py --size XL --batch 256 --grid 16

Per step of training, probe, map and sampler: graphs (1 is the whole step), graph breaks, operations. `lwd` compiles the
blocks alone; a step that is one graph has nothing in it that depends on values or leaves PyTorch. Then the forward pass
under `torch.export`, its batch free, and how many variants of a block one process compiles that trains, samples and
evaluates (real numbers, compiled to what they were). Exits with 1 where a step is not one graph.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
from common import CLASSES, FEATURE_DIM, LAYOUT, followed_parser, record
from torch import Tensor, nn

from lwd.data.batches import StepBatch
from lwd.data.shards import Batch
from lwd.maps.measure import at_points
from lwd.models import create, dropper
from lwd.ode import Integration
from lwd.ode.plan import make_plan
from lwd.ode.slots import Slots
from lwd.probe import Probe
from lwd.probe.task import ProbeObjective
from lwd.sample import AutoGuidance, make_flow
from lwd.schedules import Schedule
from lwd.stages.train import TrainSettings
from lwd.stages.train.run import DenoiserObjective
from lwd.training.ema import EMA
from lwd.training.guard import Guard
from lwd.training.optim import adamw

META = torch.device("meta")
Step = tuple[Callable[..., object], tuple[Any, ...]]


def network(arguments: argparse.Namespace, feature_dim: int | None = None) -> nn.Module:
    """A network without numbers."""
    with META:
        return create(f"LightningDiT-{arguments.size}/1", LAYOUT, arguments.grid, CLASSES, feature_dim)


def images(arguments: argparse.Namespace) -> Tensor:
    """Latents without numbers."""
    return torch.empty(arguments.batch, LAYOUT.channels, arguments.grid, arguments.grid, device=META)


def train(arguments: argparse.Namespace) -> Step:
    """The loss of training, with REPA and direction loss."""
    model, schedule = network(arguments, FEATURE_DIM), Schedule.offset(LAYOUT.names, "sem").to(META)
    objective = DenoiserObjective(model, LAYOUT, schedule, TrainSettings(), 0)
    features = torch.empty(arguments.batch, FEATURE_DIM, arguments.grid, arguments.grid, device=META).half()
    labels = torch.zeros(arguments.batch, dtype=torch.int64, device=META)
    return objective, (StepBatch(Batch(images(arguments), labels, features), labels), 0)


def update(arguments: argparse.Namespace) -> Step:
    """What follows the gradients but AdamW, one fused call: guard, EMA."""
    model = network(arguments)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimizer = adamw((model, 1e-4))
    guard, average = Guard(model.parameters(), optimizer, 1.0, 20.0), EMA(model, 0.999)
    average.update()  # finds its tensors once

    def after_gradients() -> None:
        guard.inspect()
        average.update()

    return after_gradients, ()


def probe(arguments: argparse.Namespace) -> Step:
    """The loss of the probe."""
    model = network(arguments)
    objective = ProbeObjective(model, Probe(LAYOUT, "sem").to(META), 0, 0.1, dropper(model))
    labels = torch.zeros(arguments.batch, dtype=torch.int64, device=META)
    return objective, (StepBatch(Batch(images(arguments), labels, None), labels), 0)


def map_block(arguments: argparse.Namespace) -> Step:
    """Losses at three points, in batches of which the last is a part."""
    model, x1 = network(arguments), images(arguments)
    labels, times = torch.zeros(arguments.batch, dtype=torch.int64, device=META), torch.empty(3, 2, device=META)

    def velocity(z: Tensor, at: Tensor, image: Tensor) -> Tensor:
        v: Tensor = model(z, at, labels[image])
        return v

    return at_points, (velocity, x1, x1, times, LAYOUT, 2 * arguments.batch - 1)


def tick(arguments: argparse.Namespace) -> Step:
    """A tick of the sampler: dopri5 with AutoGuidance."""
    main, weak = network(arguments), network(arguments)
    schedule = Schedule.offset(LAYOUT.names, "sem")
    numbers = torch.arange(arguments.batch)
    guidance = AutoGuidance(weak, 1.5)
    flow = make_flow(main, schedule, LAYOUT, numbers % CLASSES, numbers, images(arguments).shape[1:], guidance, META)
    slots = Slots(make_plan(Integration(), schedule, META), flow.noise(numbers), numbers.to(META))
    flow.condition_on_device  # noqa: B018 - copied once, before

    def one() -> None:
        z, tau = slots.ask()
        slots.advance(z, flow.velocity(z, tau, slots.index))

    return torch.no_grad()(one), ()


STEPS: dict[str, Callable[[argparse.Namespace], Step]] = {
    "train": train,
    "update": update,
    "probe": probe,
    "map": map_block,
    "tick": tick,
}


def exported(arguments: argparse.Namespace) -> str:
    """The forward pass under `torch.export`, with any batch from 2 on."""
    model = network(arguments).eval()
    times = torch.empty(arguments.batch, len(LAYOUT.groups), device=META)
    inputs = (images(arguments), times, torch.zeros(arguments.batch, dtype=torch.int64, device=META))
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, inputs, dynamic_shapes=({0: batch},) * 3)
    return f"{len(list(program.graph.nodes))} nodes, output {tuple(program.graph_signature.user_outputs)}"


def variants() -> None:
    """How often a block is compiled in one process that does everything, by two networks of real, small numbers."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    with mock.patch.object(torch, "compile", partial(torch.compile, backend="eager")):
        nets = {size: create(f"LightningDiT-{size}/1", LAYOUT, 2, CLASSES) for size in ("Ti", "Mini")}
        for model in nets.values():
            model.compile_blocks()
        uses = (
            ("training, micro-batches", "Ti", torch.enable_grad, (8, 8, 3)),
            ("sampling", "Ti", torch.no_grad, (8, 4, 2)),
            ("its weak network", "Mini", torch.no_grad, (8, 4, 2)),
            ("one sample", "Ti", torch.no_grad, (1,)),
            ("map, its last batch a part", "Ti", torch.no_grad, (8, 5)),
            ("evaluation", "Ti", torch.inference_mode, (8, 4, 2)),
            ("its weak network", "Mini", torch.inference_mode, (8, 4, 2)),
            ("one sample", "Ti", torch.inference_mode, (1,)),
        )
        before = 0
        for what, size, mode, batches in uses:
            with mode():
                for batch in batches:
                    inputs = torch.randn(batch, LAYOUT.channels, 2, 2), torch.rand(batch, 2), torch.zeros(batch).long()
                    nets[size](*inputs)
            total = counters["stats"]["unique_graphs"]
            record(f"variants: {what}", more=total - before, total=total)
            print(f"{what:28s} batches {' '.join(map(str, batches)):8s} compiled {total - before}, in all {total}")
            before = total


def main() -> None:
    """Follow and print."""
    arguments = followed_parser(__doc__).parse_args()
    print(f"LightningDiT-{arguments.size}/1, batch {arguments.batch}, torch {torch.__version__}, meta tensors")
    print(f"{'step':10s} {'graphs':>6s} {'breaks':>6s} {'operations':>10s} {'s':>6s}")
    whole = True
    for name, make in STEPS.items():
        torch._dynamo.reset()
        step, inputs = make(arguments)
        started = time.perf_counter()
        found = torch._dynamo.explain(step)(*inputs)
        graphs, breaks, operations = found.graph_count, found.graph_break_count, found.op_count
        record(name, graphs=graphs, breaks=breaks, operations=operations)
        print(f"{name:10s} {graphs:6d} {breaks:6d} {operations:10d} {time.perf_counter() - started:6.1f}", flush=True)
        for reason in found.break_reasons:
            print(f"  {' '.join(reason.reason.split())[:160]} {reason.user_stack[-1] if reason.user_stack else ''}")
        whole = whole and (graphs, breaks) == (1, 0)
    started = time.perf_counter()
    print(f"export: {exported(arguments)}, {time.perf_counter() - started:.1f} s")
    variants()
    raise SystemExit(not whole)


if __name__ == "__main__":
    main()
