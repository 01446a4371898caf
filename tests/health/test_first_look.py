"""The first look: it sees what is wrong, agrees with the closed form, and leaves no trace in the run."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import load
from lwd.data.batches import StepBatch
from lwd.data.shards import Batch
from lwd.errors import UserError
from lwd.flow import loss
from lwd.groups import Group, Layout
from lwd.health import Finding, copies, due, labelled, look_at, look_at_step, standardised, table, zero_loss
from lwd.runtime.compute import ComputeConfig
from lwd.schedules import Schedule
from lwd.stages.experiment import Experiment
from lwd.stages.probe.run import run as probe
from lwd.stages.train.run import run as train

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
LAYOUT = Layout([Group("tex", 4), Group("sem", 2, weight=2.0)])


@pytest.fixture
def x1():
    return torch.randn(128, 6, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("reduction", ["mean_flat", "group_mean"])
@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_the_loss_of_a_network_that_says_nothing(reduction, delta):
    x = torch.randn(20_000, 6, 2, 2, generator=torch.Generator().manual_seed(1))
    schedule = Schedule.offset(("tex", "sem"), "sem", delta)
    generator = torch.Generator().manual_seed(2)
    drawn = loss(lambda z, times: torch.zeros_like(z), x, schedule, LAYOUT, reduction, generator=generator)
    assert zero_loss(LAYOUT, reduction) == pytest.approx(float(drawn), rel=0.01)


def test_scale_and_mean_of_one_channel(x1):
    assert all(finding.ok for finding in standardised(x1, LAYOUT))
    wrong = x1.clone()
    wrong[:, 4] *= 2
    tex, sem = standardised(wrong, LAYOUT)
    assert tex.ok and not sem.ok and "mean square of channel 0 is " in sem.found
    wrong = x1.clone()
    wrong[:, 1] += 0.5
    tex, sem = standardised(wrong, LAYOUT, ", held out")
    assert sem.ok and not tex.ok and "mean of channel 1 is 0." in tex.found and tex.name == "tex, held out"


def test_latents_of_any_shape():
    flat = Layout([Group("a", 3, shape=(4,)), Group("b", 5, shape=())])
    assert all(finding.ok for finding in standardised(torch.randn(200, 17), flat))


def test_labels():
    assert labelled(torch.arange(100) % 10, 10).ok
    assert not labelled(torch.arange(100) % 9, 10).ok  # none of the last class
    uneven = labelled(torch.cat([torch.zeros(90, dtype=torch.long), torch.ones(3, dtype=torch.long)]), 2)
    assert not uneven.ok and uneven.found == "93 images, 2 of 2 classes, 3 to 90 images each"


def test_copies_are_other_images_with_the_same_bits(x1):
    images = torch.arange(128)
    assert copies(x1, images).ok
    x1[7] = x1[3]
    assert "1 among 128 images, as 3 and 7" in copies(x1, images).found
    images[7] = 3  # the same image, in a batch larger than the data
    assert copies(x1, images).ok


def test_features_need_a_norm(x1):
    features = torch.ones(128, 8, 4, 4)
    good, bad = (
        look_at(Batch(x1, torch.zeros(128), f), torch.arange(128), LAYOUT)[-1] for f in (features, 0 * features)
    )
    assert good.ok and good.found.startswith("norm 2.83") and not bad.ok
    features[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="REPA features"):
        look_at(Batch(x1, torch.zeros(128), features), torch.arange(128), LAYOUT)


class Scaled(nn.Module):
    """v = weight z, of which a batch norm keeps count."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.norm, self.drop = nn.Parameter(torch.tensor(weight)), nn.BatchNorm2d(6), nn.Dropout(0.5)

    def objective(self, step_batch, step):
        v = self.weight * self.drop(self.norm(step_batch.batch.x1))
        loss = v.square().mean()
        return loss, {"flow": loss}


def step_of(x1):
    return StepBatch(Batch(x1, torch.zeros(len(x1), dtype=torch.long), None), torch.arange(len(x1)))


def test_the_first_loss_and_gradient(x1):
    network = Scaled(2**0.5).train()
    before = [t.clone() for t in network.state_dict().values()]
    torch.manual_seed(0)
    drawn = torch.get_rng_state()
    first, gradient = look_at_step(network, network.objective, step_of(x1), 2.0, True, nullcontext)
    assert first.ok and gradient.ok and network.training and network.weight.grad is None
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), before, strict=True))
    assert not look_at_step(network, network.objective, step_of(x1), 20.0, True, nullcontext)[0].ok  # far too low
    assert look_at_step(network, network.objective, step_of(x1), 20.0, False, nullcontext)[0].ok  # as a trained one is
    assert not look_at_step(network, network.objective, step_of(x1), 0.2, False, nullcontext)[0].ok
    assert not look_at_step(Scaled(0.0), Scaled(0.0).objective, step_of(x1), 1.0, True, nullcontext)[1].ok
    for weight, says in ((float("nan"), "first loss is nan"), (1e25, "first loss is inf")):
        network = Scaled(weight)
        with pytest.raises(UserError, match=says):
            look_at_step(network, network.objective, step_of(x1), 2.0, True, nullcontext)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]


def test_a_run_is_the_same_bit_for_bit_with_and_without(data, tmp_path):
    """Of a network with buffers and draws of its own, too."""
    for name in ("{name: LightningDiT-Mini/1, num_classes: 10}", "{name: 'networks:unet', num_classes: 10}"):
        done = []
        for preflight in ("true", "false"):
            folder = tmp_path / name[7:12].strip("'") / preflight
            words = [f"output={folder}", f"data.path={data}", f"compute={{preflight: {preflight}, progress: false}}"]
            words += [f"model={name}", "train={steps: 4, batch: 16, schedule: synchronous}"]
            words += ["probe={steps: 4, burn_in: 1, batch: 16}"]
            config = load(Experiment, DIGITS, words)
            checkpoint = train(config)
            learned = probe(config)
            log = [
                {k: v for k, v in line.items() if "flow" in k or k == "loss"} for line in lines_of(checkpoint.parent)
            ]
            done.append((load_file(checkpoint / "model" / "model.safetensors"), log, learned.to_json()))
        (weights, log, learned), (weights_, log_, learned_) = done
        assert log == log_ and learned == learned_
        assert all(torch.equal(weights[key], weights_[key]) for key in weights)


def test_a_run_that_goes_on_is_not_looked_at(tmp_path):
    assert due(ComputeConfig(), tmp_path) and not due(ComputeConfig(preflight=False), tmp_path)
    (tmp_path / "step-00000004").mkdir()
    assert not due(ComputeConfig(), tmp_path) and due(ComputeConfig(resume=False), tmp_path)


def test_check_says_it_all(data):
    done = CliRunner().invoke(
        app, ["check", str(DIGITS), f"data.path={data}", "data.flip=true", "compute.progress=false"]
    )
    assert done.exit_code == 0 and done.output.count("  ok  ") == 9, done.output
    assert "of a network that says nothing 2.67" in done.output and "held out" in done.output


def test_the_table():
    text = table([Finding("a", "b", True), Finding("longer", "c", False)], "title")
    assert text == "title\n  ok    a       b\n  WARN  longer  c"
