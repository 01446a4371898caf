"""What stepping across a schedule's kinks costs: end states of one trained network against a float64 reference.

    lwd demo
    python benchmarks/sampler_facts.py                # or the folder of any run under SFD's offset

"across" is a solver that knows nothing of the kinks, as SFD's is: torchdiffeq with one step size for the whole batch,
that goes past the end and is interpolated. "at the kinks" is `lwd.ode`, whose steps end there. The network is float64,
so that the figures are the solvers' own errors: relative, |z - z*| / |z*| over all samples, z* from dopri5 at atol and
rtol 1e-10 between the kinks. Prints the table of docs/sampling.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from common import machine
from torch import Tensor
from torchdiffeq import odeint

from lwd.models import load_model
from lwd.ode.grids import uniform
from lwd.ode.plan import Integration, plan_between
from lwd.ode.pool import flow_through
from lwd.runtime.checkpoint import find_checkpoints
from lwd.sample import make_flow
from lwd.schedules import Schedule

STEPS = (10, 20, 40, 80)


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default="runs/digits/train/offset-seed0", help="of a training run")
    parser.add_argument("--images", type=int, default=16)
    arguments = parser.parse_args()
    checkpoints = find_checkpoints(arguments.run) if arguments.run.is_dir() else {}
    if not checkpoints:
        parser.exit(0, f"skipped: {arguments.run} holds no checkpoint; `lwd demo` makes one\n")
    checkpoint = checkpoints[max(checkpoints)]
    model = load_model(checkpoint / "ema").double().eval()
    schedule = Schedule.load(checkpoint / "schedule.json")
    labels = torch.arange(arguments.images) % model.null_label
    flow = make_flow(model, schedule, model.layout, labels, torch.arange(arguments.images), model.shape)
    index = torch.arange(arguments.images)
    z = flow.noise(index).double()
    calls = 0

    def solve(how: Integration, kinks: Sequence[float]) -> tuple[Tensor, Tensor]:
        end, nfe = torch.empty_like(z), torch.zeros(len(z), dtype=torch.int64)
        plan = plan_between(how, kinks, uniform, z.device)
        for done in flow_through(flow.velocity, lambda i: z[i], len(z), len(z), plan):
            end[done.index], nfe[done.index] = done.z, done.nfe
        return end, nfe

    def counted(tau: Tensor, state: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return flow.velocity(state, tau.clamp(0, 1).expand(len(state)), index)

    reference, _ = solve(Integration(atol=1e-10, rtol=1e-10), schedule.kinks)

    def error(end: Tensor) -> float:
        return float((end - reference).norm() / reference.norm())

    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    print(machine())
    print(f"{checkpoint}, {arguments.images} samples, kinks at {', '.join(f'{k:.3f}' for k in schedule.kinks)}\n")
    print("| solver | evaluations per sample | relative error |\n|---|---|---|")
    theirs = odeint(counted, z, ends, method="dopri5", atol=1e-6, rtol=1e-3)[-1]
    print(f"| dopri5, atol 1e-6, rtol 1e-3, across, one step size for the batch | {calls} | {error(theirs):.1e} |")
    for name, kinks in (("across, each sample its own", ()), ("at the kinks", schedule.kinks)):
        end, nfe = solve(Integration(), kinks)
        print(f"| dopri5, atol 1e-6, rtol 1e-3, {name} | {int(nfe.min())} to {int(nfe.max())} | {error(end):.1e} |")
    print("\n| Heun's steps | across (torchdiffeq) | order | at the kinks | order |\n|---|---|---|---|---|")
    before: list[float] = []
    for steps in STEPS:
        across = odeint(counted, z, ends, method="heun2", options={"step_size": 1 / steps})[-1]
        found = [error(across), error(solve(Integration("heun", steps=steps), schedule.kinks)[0])]
        orders = [f"{math.log2(a / b):.1f}" for a, b in zip(before, found, strict=True)] if before else ["", ""]
        print(f"| {steps} | {found[0]:.1e} | {orders[0]} | {found[1]:.1e} | {orders[1]} |")
        before = found


if __name__ == "__main__":
    main()
