"""What only a GPU can show: no host sync in a step, bf16 and compiled steps close to exact ones. Skipped elsewhere."""

import pytest
import torch

from lwd.data.batches import StepBatch
from lwd.data.shards import Batch
from lwd.groups import Group, Layout
from lwd.models import create
from lwd.probe import Probe
from lwd.probe.task import ProbeObjective
from lwd.schedules import Schedule
from lwd.stages.train.run import DenoiserObjective
from lwd.stages.train.settings import TrainSettings
from lwd.training.ema import EMA
from lwd.training.guard import Guard
from lwd.training.optim import adamw

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LAYOUT = Layout([Group("tex", 4), Group("sem", 2)])


def stage(probe, compiled=False):
    """A training or probe step on random data, and its model."""
    torch.manual_seed(0)
    model = create("LightningDiT-Ti/1", LAYOUT, 8, 10, None if probe else 16).cuda()
    schedule = Schedule.learnable(LAYOUT.names, "sem").cuda()
    if compiled:
        model.compile_blocks()
    if probe:
        learning = Probe(LAYOUT, "sem").cuda()

        def drop(labels, dropped):
            return torch.where(dropped, model.null_label, labels)

        objective, optimizer = ProbeObjective(model, learning, 0, 0.1, drop), adamw((model, 1e-3), (learning, 0.01))
    else:
        objective, optimizer = DenoiserObjective(model, LAYOUT, schedule, TrainSettings(), 0), adamw((model, 1e-3))
    average = EMA(model, 0.99)
    guard = Guard(objective.parameters(), optimizer, 1.0, 20.0)
    x1 = torch.randn(16, LAYOUT.channels, 8, 8, device="cuda")
    features = None if probe else torch.randn(16, 16, 8, 8, device="cuda").half()
    batch = StepBatch(Batch(x1, torch.arange(16, device="cuda") % 10, features), torch.arange(16, device="cuda"))

    def step(number):
        with torch.autocast("cuda", torch.bfloat16):
            loss, _ = objective(batch, number)
        loss.backward()
        guard.inspect()
        guard.step()
        optimizer.zero_grad(set_to_none=True)
        average.update()
        return loss.detach()

    return step, model


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("probe", [False, True], ids=["train", "probe"])
def test_a_step_never_waits_for_the_device(probe, compiled):
    step, _ = stage(probe, compiled=compiled)
    for number in range(3):
        step(number)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [step(number) for number in range(3, 6)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("probe", [False, True], ids=["train", "probe"])
def test_compiled_steps_follow_eager_ones(probe):
    eager, compiled = stage(probe)[0], stage(probe, compiled=True)[0]
    for number in range(10):
        # bfloat16 rounds at 2^-9; losses are means over thousands of such errors.
        torch.testing.assert_close(compiled(number), eager(number), rtol=0.01, atol=0)
