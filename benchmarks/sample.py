"""How fast are images sampled: solvers, guidance, refilled batches against lockstep?

    python benchmarks/sample.py                                                                  # CPU, float32
    python benchmarks/sample.py --size XL --images 512 --batch 128 --bf16 --compile --grid 16    # GPU

Networks are random, but for output layers and class embeddings scaled so that paths bend, more for some classes than
for others: dopri5's evaluations are those of this toy, evaluations/s are real. The last lines are ratios from this run:
AutoGuidance's evaluation against the sum of the two forwards, dopri5 with refilled slots against lockstep, and decoding
by the SD-VAE against sampling. Latents of the table are not decoded.
"""

from __future__ import annotations

import argparse
import statistics
import time

import common
import torch
from common import CLASSES, LAYOUT, autocast, machine, median_seconds
from torch import nn

from lwd.encoders.vae import SDVAE
from lwd.ode import Integration
from lwd.runtime.processes import keep_freed_memory
from lwd.sample import AutoGuidance, ClassifierFreeGuidance, CombinedGuidance, make_flow, run_flow
from lwd.schedules import Schedule


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="S")
    parser.add_argument("--weak-size", default="S")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rtol", type=float, default=0.01, help="of dopri5; atol is a tenth")
    parser.add_argument("--steps", type=int, default=4, help="of the fixed-step solvers")
    parser.add_argument("--grid", type=int, default=4, help="height and width of the latent (ImageNet-256: 16)")
    parser.add_argument("--solvers", nargs="+", default=["dopri5", "heun", "midpoint", "euler", "ab2"])
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default=common.DEVICE)
    arguments = parser.parse_args()
    common.DEVICE = arguments.device
    if arguments.device == "cpu":
        keep_freed_memory()  # as `Processes` does
    model, weak = (network(size, arguments) for size in (arguments.size, arguments.weak_size))
    print(machine())
    print(
        f"LightningDiT-{arguments.size}/1, weak {arguments.weak_size}, grid {arguments.grid}, "
        f"{arguments.images} images, batch {arguments.batch}, "
        f"steps {arguments.steps}, bf16 {arguments.bf16}, compile {arguments.compile}"
    )
    auto, free = AutoGuidance(weak, 1.5), ClassifierFreeGuidance(1.5)
    kinds = {"none": None, "auto": auto, "classifier-free": free, "both": CombinedGuidance(auto, free)}
    print(f"{'solver':10s} {'guidance':16s} {'evaluations':>19s} {'images/s':>9s} {'evaluations/s':>14s}")
    for solver in arguments.solvers:
        for name, guidance in kinds.items():
            seconds, nfe = sample(model, guidance, solver, arguments)
            rate = arguments.images / seconds
            mean, spread = statistics.mean(nfe), f"({min(nfe)} to {max(nfe)})"
            common.record(f"{solver}, guidance {name}", images_per_s=rate, evaluations=mean)
            print(f"{solver:10s} {name:16s} {mean:6.1f} {spread:12s} {rate:9.3f} {mean * rate:14.2f}", flush=True)
    overhead(model, weak, auto, arguments)
    calls: list[int] = []
    counting = model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    refilled, _ = sample(model, None, "dopri5", arguments)
    few = len(calls)
    lockstep, _ = sample(model, None, "dopri5", arguments, refill=False)
    counting.remove()
    common.record("lockstep / refilled", seconds=lockstep / refilled, calls=(len(calls) - few) / few)
    print(f"dopri5, lockstep / refilled slots: seconds {lockstep / refilled:.3f}, calls {(len(calls) - few) / few:.3f}")
    decoder = SDVAE.random()
    decoder.model.to(arguments.device)
    latents = torch.randn(arguments.batch, decoder.channels, arguments.grid, arguments.grid)
    seconds = median_seconds(lambda: decoder.decode(latents), 3, 1) / arguments.batch * arguments.images
    common.record("decoding", images_per_s=arguments.images / seconds)
    print(
        f"decoding, float32: {arguments.images / seconds:.3f} images/s; its share: {seconds / (seconds + refilled):.1%}"
    )


def network(size: str, arguments: argparse.Namespace) -> nn.Module:
    """A random network whose velocity depends on everything."""
    torch.manual_seed(0)
    model = common.network(size, arguments.grid).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "adaLN" in name or name.startswith("final_layer.linear"):
                p.normal_(0.0, 0.1 * p.shape[-1] ** -0.5)
            if "y_embedder" in name:
                p.mul_(torch.logspace(0, 3, len(p), device=p.device)[torch.randperm(len(p))][:, None])
    if arguments.compile:
        model.compile_blocks()
    return model


def sample(
    model: nn.Module, guidance: object, solver: str, arguments: argparse.Namespace, refill: bool = True
) -> tuple[float, list[int]]:
    """Seconds for all images, and each one's evaluations."""
    labels = torch.arange(arguments.images) * CLASSES // arguments.images
    schedule = Schedule.offset(LAYOUT.names, "sem")
    flow = make_flow(model, schedule, LAYOUT, labels, torch.arange(arguments.images), model.shape, guidance)
    how = Integration(solver, atol=arguments.rtol / 10, rtol=arguments.rtol, steps=arguments.steps)
    nfe: list[int] = []
    common.synchronise()
    start = time.perf_counter()
    with autocast("bf16" if arguments.bf16 else "no"):
        for done in run_flow(flow, how, arguments.batch, refill=refill):
            nfe += done.nfe.tolist()
    common.synchronise()
    return time.perf_counter() - start, nfe


@torch.no_grad()
def overhead(model: nn.Module, weak: nn.Module, auto: AutoGuidance, arguments: argparse.Namespace) -> None:
    """AutoGuidance's evaluation against main plus weak, each by itself, in turns."""
    batch, device = arguments.batch, arguments.device
    z = torch.randn(batch, LAYOUT.channels, arguments.grid, arguments.grid, device=device)
    times, labels = torch.rand(batch, len(LAYOUT.groups), device=device), torch.zeros(batch, device=device).long()
    apart = AutoGuidance(auto.weak, auto.scale, streams=False)
    runs = {"main": model, "weak": weak, "two streams": auto.wrap(model, LAYOUT), "in turn": apart.wrap(model, LAYOUT)}
    with autocast("bf16" if arguments.bf16 else "no"):
        seconds = {name: median_seconds(lambda run=run: run(z, times, labels), 7) for name, run in runs.items()}
    both = seconds["main"] + seconds["weak"]
    for name in ("two streams", "in turn"):
        common.record(f"AutoGuidance, {name}", over_main_and_weak=seconds[name] / both)
        print(f"AutoGuidance, {name}: {seconds[name]:.4f} s; / (main + weak): {seconds[name] / both:.3f}")


if __name__ == "__main__":
    main()
