"""The estimate of memory against what a process that trains really takes on a CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

from lwd.groups import Group, Layout
from lwd.models import ModelConfig
from lwd.planning import Estimate, Trained
from lwd.runtime.compute import ComputeConfig

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="a program's peak is read of Linux")

FACTOR = 1.5
"""How far off the estimate may be, either way; stated in docs/plan.md."""

CHILD = """
import sys, torch
from lwd.flow import cosine_direction_loss, flow_loss
from lwd.groups import Group, Layout
from lwd.models import ModelConfig
from lwd.training.ema import EMA
from lwd.training.optim import adamw
torch.set_num_threads(1)
layout = Layout([Group("tex", 4), Group("sem", 2)])

def step(model, optimizer, ema, images, grid):
    x, times = torch.randn(images, 6, grid, grid), torch.rand(images, 2)
    v = model(x, times, torch.zeros(images, dtype=torch.long))
    (flow_loss(v, x, torch.ones(images, 2), layout)[0] + cosine_direction_loss(v, x, layout)).backward()
    optimizer.step(); optimizer.zero_grad(set_to_none=True); ema.update()

def train(width, depth, images, grid, steps):
    config = ModelConfig(name="LightningDiT-S/1", num_classes=10, width=width, depth=depth, heads=4)
    model = config.build(layout, (grid, grid))
    model.checkpoint_blocks = sys.argv[1] == "again"
    ema, optimizer = EMA(model, 0.9), adamw((model, 1e-4))
    for _ in range(steps):
        step(model, optimizer, ema, images, grid)

def peak():  # of this program: what getrusage says begins with the size of the process that started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

train(16, 1, 1, 4, 1)  # what a first step loads
before = peak()
train(*map(int, sys.argv[2:6]), 2)
print(1024 * (peak() - before))
"""


def measured(again, width, depth, images, grid):
    command = [sys.executable, "-c", CHILD, "again" if again else "whole", *map(str, (width, depth, images, grid))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def estimated(again, width, depth, images, grid):
    model = ModelConfig(name="LightningDiT-S/1", num_classes=10, width=width, depth=depth, heads=4)
    layout = Layout([Group("tex", 4), Group("sem", 2)])
    compute = ComputeConfig(activation_checkpointing=again)
    return Estimate(Trained(model, layout, (grid, grid), images)).memory(compute, gpu=False).total


def test_memory_is_within_the_factor_where_activations_count():
    sizes = False, 128, 4, 32, 6
    assert 1 / FACTOR < estimated(*sizes) / measured(*sizes) < FACTOR


def test_memory_is_within_the_factor_where_weights_count():
    sizes = True, 512, 2, 4, 4
    assert 1 / FACTOR < estimated(*sizes) / measured(*sizes) < FACTOR
