"""bf16 as on a card, on the CPU through the same code: weights, moments and losses stay float32, results stay close."""

import pytest
import torch

from lwd.data.batches import StepBatch
from lwd.data.shards import Batch
from lwd.groups import Group, Layout
from lwd.models import create
from lwd.sample import AutoGuidance, generate
from lwd.schedules import Schedule
from lwd.stages.train import TrainSettings
from lwd.stages.train.run import DenoiserObjective, TrainTask
from lwd.training.guard import Guard

LAYOUT = Layout([Group("tex", 4), Group("sem", 2)])


def network(seed=0, feature_dim=None):
    torch.manual_seed(seed)
    model = create("LightningDiT-Mini/1", LAYOUT, 4, 10, feature_dim)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "adaLN" in name or name.startswith("final_layer.linear"):  # which begin at 0
                parameter.normal_(0, 0.1)
    return model


def trained(precision):
    """The task after three steps, with its losses and gradient norms."""
    generator = torch.Generator().manual_seed(1)
    x1, features = torch.randn(8, 6, 4, 4, generator=generator), torch.randn(8, 8, 4, 4, generator=generator)
    batch = StepBatch(Batch(x1, torch.arange(8), features.half()), torch.arange(8))
    settings = TrainSettings(lr=1e-3, ema_decay=0.5)
    objective = DenoiserObjective(network(feature_dim=8), LAYOUT, Schedule.offset(LAYOUT.names, "sem"), settings, 0)
    task = TrainTask(objective, settings)
    guard = Guard(task.module.parameters(), task.optimizer, None, None)
    seen = []
    for step in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = task.module(batch, step)
        assert loss.dtype == torch.float32
        loss.backward()
        assert all(p.grad.dtype == torch.float32 for p in objective.parameters() if p.grad is not None)
        seen += [loss.detach(), guard.inspect()["grad_norm"]]
        guard.step()
        task.optimizer.zero_grad(set_to_none=True)
        task.after_step(step + 1)
    return task, torch.stack(seen)


def test_a_training_step_keeps_its_weights_and_losses_in_float32():
    (task, half), (_, whole) = trained("bf16"), trained("no")
    moments = [value for state in task.optimizer.state.values() for value in state.values()]
    kept = [*task.module.parameters(), *task.ema.model.parameters(), *moments]
    assert all(tensor.dtype == torch.float32 for tensor in kept)
    # bf16 rounds at 2^-9 = 0.002, and a loss is a mean over many such errors.
    error = (half / whole - 1).abs()
    assert error.max() < 0.01, error
    assert error.max() > 1e-6, "the control: it was bf16"


@pytest.mark.parametrize("solver", ["heun", "dopri5"])
def test_samples_are_close_to_those_in_float32(solver):
    main, weak = network().eval(), network(seed=1).eval()

    def samples(enabled):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return generate(
                main,
                Schedule.offset(LAYOUT.names, "sem"),
                LAYOUT,
                torch.arange(3),
                torch.arange(3),
                (6, 4, 4),
                solver=solver,
                rtol=0.05,
                atol=0.005,
                guidance=AutoGuidance(weak, 1.5),
                steps=4,
                batch=2,
            ).latents

    half, whole = samples(True), samples(False)
    assert half.dtype == torch.float32
    # Velocities are off by some 2^-9 of their size; states add them up, and dopri5 takes other steps within its rtol.
    error = float((half - whole).norm() / whole.norm())
    assert 1e-5 < error < 0.02, error
